"""Puts load on the server: of many clients a third leaves midway, and every answer is compared with the integer
model's.

``python -m bench.server_load`` starts ``llama2-host serve --golden`` with a tiny made-up model and prints its findings
as JSON; its exit status is 1 if an answer was wrong or missing, memory grew, or a generation outlived its client by
more than a token.
"""
import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from bench import records
from llama2_host import connect
from llama2_host.backend import Backend
from llama2_host.checkpoint.write import pack_v0
from llama2_host.image.model import Model
from tests.host.generated import random_tensors
from tests.host.tiny import CONFIG, TOKENIZER

TOKENS = 12             #: longest answer
PROMPTS = 40            #: different ones, whose answers are known beforehand
GROWTH_MIB = 24.0       #: of the server's memory between a quarter of the requests and the end
PATIENCE_S = 600.0
RESULTS = Path(__file__).parent / "results" / "server-load.json"


@dataclass
class Seen:
    """The counts and faults of a run."""
    right: int = 0
    left: int = 0
    refused: int = 0                #: 429, asked again
    wrong: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    memory_kib: list[int] = field(default_factory=list)
    seconds: float = 0.0


def expected(backend: Backend, prompt: str, seed: int) -> list[int]:
    """Ids of the answer, by the integer model in this process."""
    ids = backend.tokenizer.encode(prompt)
    writing = backend.write(ids, steps=len(ids) + TOKENS - 1, temperature=1.0, top_p=1.0, seed=seed)
    return [event.token for event in writing.tokens()]


def resident_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


class Load:
    """``clients`` at once until ``requests`` are done."""

    def __init__(self, url: str, pid: int, answers: dict[tuple[str, int], list[int]], *, clients: int, requests: int,
                 seed: int):
        self.url, self.pid, self.answers = url, pid, answers
        self.clients, self.left, self.random, self.seen = clients, requests, random.Random(seed), Seen()
        self.total = requests

    async def run(self) -> Seen:
        start_s = time.monotonic()
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=self.url, timeout=PATIENCE_S, limits=limits) as client:
            await asyncio.gather(*(self._client(client) for _ in range(self.clients)))
        self.seen.seconds = time.monotonic() - start_s
        return self.seen

    async def _client(self, client: httpx.AsyncClient) -> None:
        while self.left > 0:
            self.left -= 1
            if self.left % (self.total // 20 or 1) == 0:
                self.seen.memory_kib.append(resident_kib(self.pid))
            leaves = self.random.randrange(3) == 0
            case = self.random.choice(list(self.answers))
            try:
                await self._request(client, *case, leave_after=self.random.randrange(1, TOKENS // 2) if leaves
                                    else None)
            except httpx.HTTPError as error:
                self.seen.unanswered.append(f"{type(error).__name__}: {error}")

    async def _request(self, client: httpx.AsyncClient, prompt: str, seed: int, leave_after: int | None) -> None:
        stream = leave_after is not None or self.random.randrange(2) == 0
        body = {"prompt": prompt, "seed": seed, "max_tokens": TOKENS, "temperature": 1.0, "top_p": 1.0,
                "return_tokens": True, "stream": stream}
        while True:
            async with client.stream("POST", "/v1/completions", json=body) as response:
                if response.status_code == 429:
                    self.seen.refused += 1
                    await response.aread()
                elif response.status_code != 200:
                    self.seen.wrong.append(f"{response.status_code}: {(await response.aread())[:200]!r}")
                    return
                else:
                    ids, ended = await (self._events(response, leave_after) if stream else self._whole(response))
                    self._judge(ids, ended, self.answers[prompt, seed], leave_after)
                    return
            await asyncio.sleep(0.3 + self.random.random())     # Retry-After says a second and more

    async def _whole(self, response: httpx.Response) -> tuple[list[int], bool]:
        return json.loads(await response.aread())["choices"][0]["tokens"], True

    async def _events(self, response: httpx.Response, leave_after: int | None) -> tuple[list[int], bool]:
        ids: list[int] = []
        async for line in response.aiter_lines():
            if line == "data: [DONE]":
                return ids, True
            if line.startswith("data: "):
                ids += json.loads(line[6:])["choices"][0].get("tokens", [])
                if leave_after is not None and len(ids) >= leave_after:
                    return ids, False
        return ids, False

    def _judge(self, ids: list[int], ended: bool, answer: list[int], leave_after: int | None) -> None:
        if ids != (answer if ended else answer[:len(ids)]):
            self.seen.wrong.append(f"{ids} for {answer}")
        elif ended:
            self.seen.right += 1
        elif leave_after is not None:
            self.seen.left += 1
        else:
            self.seen.unanswered.append("a stream without its end")


def metric(text: str, name: str) -> float:
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


def measure(image: Path, *, clients: int, requests: int, copies: int, queue: int, seed: int) -> dict:
    """Run the load; returns what happened, and ``failures``, which is empty if all is well."""
    with connect(golden=True, model=image) as backend:
        answers = {(f"prompt {index}", 1 + index % 7): expected(backend, f"prompt {index}", 1 + index % 7)
                   for index in range(PROMPTS)}
    command = [sys.executable, "-m", "llama2_host", "serve", "--golden", "--model", str(image), "--http-port", "0",
               "--copies", str(copies), "--queue", str(queue)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        url = process.stdout.readline().rsplit(" ", 1)[1].strip()
        seen = asyncio.run(Load(url, process.pid, answers, clients=clients, requests=requests, seed=seed).run())
        deadline_s = time.monotonic() + 30
        while metric(httpx.get(url + "/metrics").text, "llama2_queue_running") and time.monotonic() < deadline_s:
            time.sleep(0.1)
        text = httpx.get(url + "/metrics").text
    finally:
        process.terminate()
        process.wait()
    quarter, last = seen.memory_kib[len(seen.memory_kib) // 4], seen.memory_kib[-1]
    result = {"clients": clients, "requests": requests, "boards": copies, "seconds": round(seen.seconds, 1),
              "answered": seen.right,
              "left": seen.left, "refused_then_asked_again": seen.refused, "wrong": len(seen.wrong),
              "unanswered": len(seen.unanswered),
              "aborted": int(metric(text, "llama2_aborted_total")),
              "longest_overrun_tokens": int(metric(text, "llama2_overrun_tokens")),
              "memory_mib": [round(kib / 1024, 1) for kib in seen.memory_kib],
              "still_running": int(metric(text, "llama2_queue_running"))}
    result["failures"] = [*seen.wrong[:3], *seen.unanswered[:3]]
    checks = {"memory grew": (last - quarter) / 1024 > GROWTH_MIB, "a board still runs": result["still_running"] > 0,
              "an abort took more than a token": result["longest_overrun_tokens"] > 1,
              "requests are missing": seen.right + seen.left + len(seen.wrong) + len(seen.unanswered) != requests,
              "nobody left": seen.left == 0}
    result["failures"] += [name for name, failed in checks.items() if failed]
    return result


def record(path: Path, result: dict, name: str) -> None:
    """Write the figures down, and print them."""
    records.write(path, name, result, indent=2)
    print(json.dumps(result, indent=2))


def made_up_image(folder: Path) -> Path:
    """A tiny model of random weights with a tokenizer of single bytes."""
    config = replace(CONFIG, seq_len=256)
    (folder / "tiny.bin").write_bytes(pack_v0(config, random_tensors(config)))
    (folder / "tokenizer.bin").write_bytes(TOKENIZER.pack())
    (folder / "tiny.llm").write_bytes(Model.load(folder / "tiny.bin").data)
    return folder / "tiny.llm"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--copies", type=int, default=2, help="boards")
    parser.add_argument("--queue", type=int, default=16, help="requests that may wait for each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures go (%(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(made_up_image(Path(folder)), clients=args.clients, requests=args.requests, copies=args.copies,
                         queue=args.queue, seed=args.seed)
    record(args.json, result, RESULTS.stem)
    return 1 if result["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
