"""The server on the simulated SoC: its ids are the command's, and the counters say where the cycles went."""
import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.server.running import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "stories.bin"
SAMPLING = [("temperature", 0), ("temperature", 0.8)]


@pytest.mark.soc
def test_ids_are_the_command_s():
    serve = subprocess.Popen([sys.executable, "-m", "llama2_host", "serve", "--sim", "--model", str(MODEL), "--http-port", "0"], cwd=ROOT,
                             stdout=subprocess.PIPE, text=True)
    try:
        url = serve.stdout.readline().removeprefix("listening on ").strip()
        client = httpx.Client(base_url=url, timeout=20 * PATIENCE_S)
        for name, value in SAMPLING:
            command = [sys.executable, "-m", "llama2_host", "generate", "--golden", "--model", str(MODEL), "-i", "Once upon a time", "-n", "16",
                       "--json", "-s", "5", "-t", str(value)]
            expected = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
            answer = client.post("/v1/completions", json={"prompt": "Once upon a time", "seed": 5, name: value, "return_tokens": True, "logprobs": 1,
                                                          "max_tokens": 17 - len(expected["prompt_ids"])}).json()
            assert expected["prompt_ids"] + answer["choices"][0]["tokens"] == expected["ids"]
        assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == len(expected["prompt_ids"]) - 1
        assert len(answer["choices"][0]["logprobs"]["token_logprobs"]) == len(answer["choices"][0]["tokens"])
        assert answer["timings"]["clock_hz"] == 100_000_000 and answer["timings"]["cycles_per_token"] > 1000
        client.post("/v1/completions", json={"prompt": "x", "max_tokens": 8})
        last = client.get("/boards").json()["boards"][0]["last"]
        assert last["tokens"] >= 1 and 0 < last["phases"]["classify"]["beats"] <= last["phases"]["classify"]["cycles"]
        assert sum(phase["cycles"] for phase in last["phases"].values()) + last["cpu_cycles"] >= last["cycles"]
    finally:
        serve.terminate()
        serve.communicate()
