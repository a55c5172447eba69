"""The command ``llm``, whose OpenAI-compatible models are named in a file."""
import subprocess
import sys


def test_llm_streams_and_goes_on(server, tmp_path):
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: board\n  model_name: tiny\n  api_base: {server.url}/v1\n  can_stream: true\n")
    ask = lambda *more: subprocess.run(
        [sys.executable, "-m", "llm", "prompt", *more, "-m", "board", "-o", "temperature", "0", "-o", "max_tokens", "5"],
        capture_output=True, text=True, env={"LLM_USER_PATH": str(tmp_path), "PATH": "/usr/bin:/bin", "OPENAI_API_KEY": "none", "HOME": str(tmp_path)})
    first = ask("hello")
    assert first.returncode == 0, first.stderr
    expected = server.chat("hello", max_tokens=5, temperature=0).json()["choices"][0]["message"]["content"]
    assert first.stdout.strip() == expected.strip()
    again = ask("-c", "--no-stream", "more")
    assert again.returncode == 0, again.stderr
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": expected}, {"role": "user", "content": "more"}]
    whole = server.client.post("/v1/chat/completions", json={"messages": messages, "max_tokens": 5, "temperature": 0}).json()
    assert again.stdout.strip() == whole["choices"][0]["message"]["content"].strip()
