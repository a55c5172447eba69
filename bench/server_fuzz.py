"""Sends random requests to the server: every answer must be a 2xx, or a 4xx with an error object, never a 500 or
silence.

``python -m bench.server_fuzz --requests 10000`` prints how many answers of each status came.
"""
import argparse
import asyncio
import collections
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx

from bench.server_load import made_up_image, record

FIELDS = ("messages", "prompt", "model", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k",
          "min_p", "seed", "stop", "stream",
          "stream_options", "n", "logprobs", "top_logprobs", "repeat_penalty", "repeat_last_n", "cache_prompt",
          "presence_penalty",
          "logit_bias", "response_format", "tools", "user", "metadata", "echo", "grammar", "return_tokens",
          "timings_per_token", "content",
          "tokens", "add_special", "with_pieces", "parse_special", "unknown", "", "\0", "é" * 100)
PATHS = ("/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize", "/apply-template")
OTHERS = ("/", "/health", "/props", "/boards", "/metrics", "/v1/models", "/v1/models/x", "/v1/models/%00",
          "/page/app.js", "/page/%2e%2e/x",
          "/nowhere", "/v1", "//", "/v1/completions?x=%ff")
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")
TEXTS = ("", "x", "hello there", "é€😀", "\0\x7f\n", "<s></s>[INST]", "{{ 7*7 }}{% for x in y %}", "a" * 3000,
         "\u202e\ufffe")
NUMBERS = (0, 1, -1, 2, 5, 0.5, 1.0, 1e-9, 1e308, -1e308, 1 << 31, 1 << 63, 1 << 64, 10 ** 40, True, False)
RESULTS = Path(__file__).parent / "results" / "server-fuzz.json"


class Maker:
    """Bodies from a seed: some sensible, some with wrong fields, some not JSON at all."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)

    def value(self, depth: int = 0):
        chance = self.random.random()
        if chance < 0.3:
            return self.random.choice(TEXTS)
        if chance < 0.7:
            return self.random.choice(NUMBERS)
        if chance < 0.75 or depth > 3:
            return None
        if chance < 0.88:
            return [self.value(depth + 1) for _ in range(self.random.randrange(4))]
        return {self.random.choice(("role", "content", "type", "text", "include_usage", "x", *FIELDS[:4])):
                self.value(depth + 1)
                for _ in range(self.random.randrange(4))}

    def sensible(self) -> dict:
        """A request that may well be answered."""
        messages = [{"role": self.random.choice(("user", "user", "assistant", "system")),
                     "content": self.random.choice(TEXTS[:7])}
                    for _ in range(self.random.randrange(1, 4))]
        body = {"messages": messages, "prompt": self.random.choice((*TEXTS[:7], [1, 5, 70], [])), "content": "x",
                "tokens": [5, 258], "max_tokens": 2}
        wanted = {"/v1/chat/completions": ("messages", "max_tokens"), "/v1/completions": ("prompt", "max_tokens"),
                  "/tokenize": ("content",),
                  "/detokenize": ("tokens",), "/apply-template": ("messages",)}[self.path]
        return {name: body[name] for name in wanted}

    def request(self) -> tuple[str, str, bytes, dict]:
        """Method, path, body, headers."""
        if self.random.random() < 0.1:
            return self.random.choice(METHODS), self.random.choice(PATHS + OTHERS), self.body({}), {}
        self.path = self.random.choice(PATHS)
        body = self.sensible()
        for _ in range(self.random.choice((0, 0, 1, 1, 2, 4))):
            body[self.random.choice(FIELDS)] = self.value()
        if self.random.random() < 0.1:
            body.pop(self.random.choice(list(body)))
        headers = ({} if self.random.random() < 0.95
                   else {"Content-Type": self.random.choice(("text/plain", "", "x" * 1000))})
        return "POST", self.path, self.body(body), headers

    def body(self, body: dict) -> bytes:
        data = json.dumps(body, ensure_ascii=self.random.random() < 0.5).encode("utf-8", "surrogatepass")
        if self.random.random() < 0.05:
            at = self.random.randrange(len(data) + 1)
            data = data[:at] + self.random.randbytes(self.random.randrange(4)) + data[at + self.random.randrange(4):]
        return data


def judge(method: str, response: httpx.Response) -> str | None:
    """What is wrong with an answer; None if nothing is."""
    if response.status_code < 400:
        if not response.headers["content-type"].startswith("text/event-stream"):
            return None
        events = [line[6:] for line in response.text.split("\n") if line.startswith("data: ")]
        return None if method == "HEAD" or events[-1] == "[DONE]" else f"a stream that ends with {events[-1][:200]}"
    if response.status_code >= 500:
        return f"{response.status_code}: {response.text[:200]}"
    if method == "HEAD":
        return None
    try:
        error = response.json()["error"]
        return (None if error["message"] and set(error) == {"message", "type", "param", "code"}
                else f"a strange error: {error}")
    except (ValueError, KeyError, TypeError):
        return f"{response.status_code} without an error object: {response.text[:200]}"


async def fuzz(url: str, count: int, seed: int, clients: int = 8) -> dict:
    """Statuses, and what was wrong with its request."""
    maker, statuses, wrong, left = Maker(seed), collections.Counter(), [], iter(range(count))

    async def client_loop(client):
        for _ in left:
            method, path, body, headers = maker.request()
            try:
                response = await client.request(method, httpx.URL(url).copy_with(raw_path=path.encode()), content=body,
                                                headers=headers)
            except httpx.HTTPError as error:
                wrong.append(f"{type(error).__name__} for {method} {path} {body[:200]!r}")
                continue
            statuses[response.status_code] += 1
            if fault := judge(method, response):
                wrong.append(f"{fault} for {method} {path} {body[:300]!r}")
    async with httpx.AsyncClient(timeout=300) as client:
        await asyncio.gather(*(client_loop(client) for _ in range(clients)))
        alive = (await client.get(url + "/health")).status_code == 200
    return {"requests": count, "statuses": dict(sorted(statuses.items())), "wrong": wrong, "alive": alive}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--requests", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures go (%(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "llama2_host", "serve", "--golden", "--model",
                   str(made_up_image(Path(folder))), "--http-port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            url = process.stdout.readline().rsplit(" ", 1)[1].strip()
            result = asyncio.run(fuzz(url, args.requests, args.seed))
        finally:
            process.terminate()
            process.wait()
    record(args.json, result | {"wrong": result["wrong"][:10], "wrong_count": len(result["wrong"])}, RESULTS.stem)
    return 1 if result["wrong"] or not result["alive"] else 0


if __name__ == "__main__":
    sys.exit(main())
