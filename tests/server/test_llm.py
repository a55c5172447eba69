"""The command ``llm``, whose OpenAI-compatible models are named in a file."""
import subprocess
import sys

import pytest


@pytest.mark.parametrize("options", [["--no-stream"], []])
def test_llm_prompts_and_goes_on(server, tmp_path, options):
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: board\n  model_name: tiny\n  api_base: {server.url}/v1\n  can_stream: true\n")
    ask = lambda *more: subprocess.run(
        [sys.executable, "-m", "llm", "prompt", *more, "-m", "board", "-o", "temperature", "0", "-o", "max_tokens", "5", *options],
        capture_output=True, text=True, env={"LLM_USER_PATH": str(tmp_path), "PATH": "/usr/bin:/bin", "OPENAI_API_KEY": "none", "HOME": str(tmp_path)})
    first = ask("hello")
    assert first.returncode == 0, first.stderr
    expected = server.chat("hello", max_tokens=5, temperature=0).json()["choices"][0]["message"]["content"]
    assert first.stdout.strip() == expected.strip()
    again = ask("-c", "more")
    assert again.returncode == 0, again.stderr
