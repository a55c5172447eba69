"""The command ``llm``, whose OpenAI-compatible models are named in a file."""
import subprocess
import sys
from pathlib import Path


def ask_llm(url: str, model: str, folder: Path, *more: str, max_tokens: int) -> subprocess.CompletedProcess:
    """One greedy question to the server at ``url``; ``folder`` is llm's own, where it keeps its conversations."""
    (folder / "extra-openai-models.yaml").write_text(
        f"- model_id: board\n  model_name: {model}\n  api_base: {url}/v1\n  can_stream: true\n")
    environment = {"LLM_USER_PATH": str(folder), "PATH": "/usr/bin:/bin", "OPENAI_API_KEY": "none", "HOME": str(folder)}
    return subprocess.run([sys.executable, "-m", "llm", "prompt", *more, "-m", "board", "-o", "temperature", "0", "-o",
                           "max_tokens", str(max_tokens)],
                          capture_output=True, text=True, env=environment)
