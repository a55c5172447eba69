"""The command ``llm`` streams, and goes on with a conversation."""
from tests.server.asking import ask_llm


def test_llm_streams_and_goes_on(server, tmp_path):
    ask = lambda *more: ask_llm(server.url, "tiny", tmp_path, *more, max_tokens=5)
    first = ask("hello")
    assert first.returncode == 0, first.stderr
    expected = server.chat("hello", max_tokens=5, temperature=0).json()["choices"][0]["message"]["content"]
    assert first.stdout.strip() == expected.strip()
    again = ask("-c", "--no-stream", "more")
    assert again.returncode == 0, again.stderr
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": expected},
                {"role": "user", "content": "more"}]
    whole = server.client.post("/v1/chat/completions",
                               json={"messages": messages, "max_tokens": 5, "temperature": 0}).json()
    assert again.stdout.strip() == whole["choices"][0]["message"]["content"].strip()
