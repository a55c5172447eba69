"""Measures the time to the first byte of an answer in a cached conversation: the server and ``llama2-host chat``, side
by side.

``python -m bench.server_latency`` starts both, each on a simulated SoC of its own (``--golden``: on the integer model),
and has the same conversation with both, turn by turn. Each turn feeds its new tokens only. The texts
must be equal.
"""
import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx

from bench.server_load import record

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "models" / "stories.bin"
RESULTS = Path(__file__).parent / "results" / "server-latency.json"
LINES = ("Once upon a time", "The dog said", "Then a cat came", "They were happy", "The sun was hot", "Mom said no",
         "A bird sang", "It was fun")
TOKENS = 8          #: of an answer
MOST = 1.1          #: largest ratio of the server's time to the chat's
PATIENCE_S = 300.0


class Chat:
    """The command line's chat on pipes."""

    def __init__(self, where: str):
        command = [sys.executable, "-u", "-m", "llama2_host", "chat", where, "--model", str(MODEL), "-t", "0", "-n",
                   str(TOKENS)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)

    def turn(self, line: str) -> tuple[str, float]:
        """The answer, and seconds to its first byte."""
        start_s = time.monotonic()
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        text = self.process.stdout.read1(1)
        first_s = time.monotonic() - start_s
        for note in iter(self.process.stderr.readline, b""):
            if note.startswith(b"["):               # the figures of the answer, which is complete
                break
        return (text + self.process.stdout.read1(1 << 16)).decode().removesuffix("\n"), first_s

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(PATIENCE_S)


class Served:
    """The server, and a client that sends its whole history."""

    def __init__(self, where: str):
        command = [sys.executable, "-m", "llama2_host", "serve", where, "--model", str(MODEL), "--http-port", "0"]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self.client = httpx.Client(base_url=self.process.stdout.readline().rsplit(" ", 1)[1].strip(),
                                   timeout=PATIENCE_S)
        self.messages: list[dict[str, str]] = []
        self.cached: list[int] = []

    def turn(self, line: str) -> tuple[str, float]:
        """The answer, and seconds from the request to the first event with text."""
        self.messages.append({"role": "user", "content": line})
        body = {"messages": self.messages, "max_tokens": TOKENS, "temperature": 0, "stream": True,
                "stream_options": {"include_usage": True}}
        text, first_s, start_s = "", 0.0, time.monotonic()
        with self.client.stream("POST", "/v1/chat/completions", json=body) as response:
            for event in response.iter_lines():
                if not event.startswith("data: {"):
                    continue
                chunk = json.loads(event[6:])
                text += "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
                first_s = first_s or (time.monotonic() - start_s if text else 0.0)
                if chunk.get("usage"):
                    self.cached.append(chunk["usage"]["prompt_tokens_details"]["cached_tokens"])
        self.messages.append({"role": "assistant", "content": text})
        return text, first_s

    def close(self) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait(PATIENCE_S)


def measure(where: str) -> dict:
    """Milliseconds to the first byte of each turn but the first, which loads what Python loads late."""
    chat = Chat(where)
    served = Served(where)
    try:
        # The order alternates, so that neither always finds the machine's caches warm.
        turns = []
        for index, line in enumerate(LINES):
            one, other = (chat, served) if index % 2 else (served, chat)
            first, second = one.turn(line), other.turn(line)
            (said, chat_s), (told, served_s) = (first, second) if one is chat else (second, first)
            turns.append({"chat_ms": round(1e3 * chat_s, 2), "server_ms": round(1e3 * served_s, 2),
                          "equal": said == told})
    finally:
        chat.close()
        served.close()
    for turn, cached in zip(turns, served.cached):
        turn["cached_tokens"] = cached
    ratio = (statistics.median(turn["server_ms"] for turn in turns[1:]) /
             statistics.median(turn["chat_ms"] for turn in turns[1:]))
    return {"where": where.lstrip("-"), "turns": turns, "ratio": round(ratio, 3), "most": MOST,
            "failures": [name for name, failed in {
                "the texts differ": not all(turn["equal"] for turn in turns), "the server is slower": ratio > MOST,
                "nothing was cached": not all(turn["cached_tokens"] for turn in turns[1:])}.items() if failed]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--golden", action="store_true", help="on the integer model, without hardware")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures go (%(default)s)")
    args = parser.parse_args()
    result = measure("--golden" if args.golden else "--sim")
    record(args.json, result, RESULTS.stem)
    return 1 if result["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
