"""Measures what clients get together against one: ``python -m bench.server_slots`` starts ``llama2-host serve --sim``
and asks it with the ``openai`` package, one client after another and then all at the same time.

Tokens a second are those of the target's clock: tokens over the cycles that the device's counter says in each chunk of
a stream, whatever the simulation takes. The texts must be equal.
"""
import argparse
import logging
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from openai import OpenAI

from bench import records, shapes
from bench.slots import rate
from llama2_host import connect
from llama2_host.device.simulator import COLUMNS
from llama2_host.statistics import WORD32
from targets import sim

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
MODEL = ROOT / "models" / "stories.bin"
PROMPTS = ("A", "B", "C", "D", "E", "F", "G", "H")     #: a few tokens each, so that all soon decode
PATIENCE_S = 3600.0     #: a pass of a large model takes seconds


@dataclass(frozen=True)
class Seen:
    """A token of a stream: which one, and the device's counter; what :func:`bench.slots.rate` takes."""
    position: int
    cycles: int


@dataclass
class Answer:
    """What a client was answered."""
    text: str = ""
    tokens: list[Seen] = field(default_factory=list)
    prompt_tokens: int = 0
    prompt_cycles: int = 0      #: from the generation's start to its first token
    clock_hz: int = 0

    @property
    def start(self) -> int:
        return (self.tokens[0].cycles - self.prompt_cycles) % WORD32


class Served:
    """``serve --sim`` with a model; a context manager. ``complaints`` are what it said on stderr, once it has ended."""

    def __init__(self, image: Path, *, columns: int, slots: int):
        self.command = [sys.executable, "-m", "llama2_host", "serve", "--sim", "--columns", str(columns), "--slots",
                        str(slots), "--model", str(image), "--http-port", "0", "--model-name", "bench"]

    def __enter__(self) -> "Served":
        self._errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(self.command, cwd=ROOT, stdout=subprocess.PIPE, stderr=self._errors, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            self.__exit__()
            raise SystemExit(f"bench.server_slots: the server did not start:\n{self.complaints}")
        self.url = line.removeprefix("listening on ").strip()
        return self

    def __exit__(self, *_) -> None:
        self.process.terminate()
        self.process.wait()
        self._errors.seek(0)
        self.complaints = self._errors.read()
        self._errors.close()


def ask(url: str, prompt: str, count: int, begin=lambda: None) -> Answer:
    """Have ``count`` tokens streamed to a client of its own."""
    answer = Answer()
    with OpenAI(base_url=url + "/v1", api_key="none", timeout=PATIENCE_S, max_retries=0) as client:
        begin()
        for chunk in client.completions.create(model="bench", prompt=prompt, max_tokens=count, temperature=0,
                                               stream=True,
                                               extra_body={"timings_per_token": True, "cache_prompt": False}):
            answer.text += "".join(choice.text for choice in chunk.choices)
            timings = (chunk.model_extra or {}).get("timings", {})
            if "cycles" in timings:
                answer.tokens.append(Seen(timings["predicted_n"], timings["cycles"]))
            elif timings:
                answer.prompt_tokens, answer.clock_hz = timings["prompt_n"], timings["clock_hz"]
                answer.prompt_cycles = timings["prompt_cycles"]
    if [seen.position for seen in answer.tokens] != list(range(1, count + 1)):
        raise SystemExit(f"bench.server_slots: {prompt!r} was answered with {len(answer.tokens)} tokens, not {count}: "
                         "ask for fewer with --tokens")
    return answer


def ask_together(url: str, prompts, count: int) -> list[Answer]:
    """The same by a thread for each client; all begin when all are there."""
    barrier = threading.Barrier(len(prompts))
    with ThreadPoolExecutor(len(prompts)) as pool:
        return list(pool.map(lambda prompt: ask(url, prompt, count, barrier.wait), prompts))


def whole(answers: list[Answer]) -> tuple[int, int]:
    """Tokens and cycles from the start of the first generation to the last token of all: prompts count."""
    origin = answers[0].start - WORD32 // 2
    since = min((answer.start - origin) % WORD32 for answer in answers)
    until = max((answer.tokens[-1].cycles - origin) % WORD32 for answer in answers)
    return sum(len(answer.tokens) for answer in answers), until - since


def decoding(answers: list[Answer]) -> tuple[int, int]:
    """Tokens and cycles of the time in which all were decoding."""
    origin = answers[0].tokens[0].cycles - WORD32 // 2
    streams = sorted((answer.tokens for answer in answers), key=lambda tokens: (tokens[0].cycles - origin) % WORD32)
    return rate(streams, 1, len(streams[0]))


def per_second(measured: tuple[int, int], clock_hz: int) -> float:
    tokens, cycles = measured
    return tokens * clock_hz / cycles


def compared(alone: list[Answer], together: list[Answer]) -> dict:
    """Tokens a second of the target's clock, together against one: while all decode, and prompts included."""
    clock_hz, result = alone[0].clock_hz, {}
    for name, of in (("", decoding), ("_with_prompts", whole)):
        one = [per_second(of([answer]), clock_hz) for answer in alone]
        all_ = per_second(of(together), clock_hz)
        result |= {f"alone{name}": sum(one) / len(one), f"together{name}": all_,
                   f"ratio{name}": all_ * len(one) / sum(one)}
    return {**result, "clock_hz": clock_hz, "prompt_tokens": [answer.prompt_tokens for answer in alone],
            "identical": [answer.text for answer in alone] == [answer.text for answer in together]}


def measure(image: Path, *, clients: int, columns: int, tokens: int) -> dict:
    """Figures of so many clients, each with a slot; ``dram_violations`` are the server's lines about them."""
    sim.build(columns=columns, variant=sim.USUAL)       # as --sim builds it
    # LiteX has the root logger tell everything, into the build's log, which is closed now.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with Served(image, columns=columns, slots=clients) as served:
        alone = [ask(served.url, prompt, tokens) for prompt in PROMPTS[:clients]]
        together = ask_together(served.url, PROMPTS[:clients], tokens)
    return {"clients": clients, "columns": columns, "tokens": tokens, **compared(alone, together),
            "dram_violations": served.complaints.count("DRAM timing")}


def report(result: dict) -> None:
    print(f"{result['model']}, {result['columns']} columns, {result['clients']} clients with {result['tokens']} tokens "
          f"each: {result['together']:,.1f} tokens/s at {result['clock_hz'] / 1e6:g} MHz together, "
          f"{result['alone']:,.1f} one: {result['ratio']:.2f} times as many (prompts included "
          f"{result['ratio_with_prompts']:.2f}), texts {'identical' if result['identical'] else 'NOT IDENTICAL'}, "
          f"DRAM timing violations: {result['dram_violations']}")


def parse(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m bench.server_slots", description=__doc__.split("\n\n")[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--model", type=Path, default=MODEL, help="checkpoint or image with a vocabulary (default: the "
                                                                "project's)")
    what.add_argument("--shape", choices=tuple(shapes.SHAPES), help="a known model's shape, random weights, q8")
    parser.add_argument("--clients", type=int, default=4, choices=range(2, len(PROMPTS) + 1), metavar="N")
    parser.add_argument("--columns", type=int, default=4, choices=COLUMNS, help="of the core (%(default)s)")
    parser.add_argument("--tokens", type=int, default=64, metavar="N", help="for each client (%(default)s)")
    parser.add_argument("--json", type=Path, help="where the figures go (default: bench/results/server-slots-MODEL"
                                                  ".json)")
    args = parser.parse_args(arguments)
    if args.tokens < 4:
        parser.error("--tokens is at least 4")
    return args


def command(args) -> str:
    """The command line that repeats this run."""
    what = f"--shape {args.shape}" if args.shape else f"--model {named(args.model)}"
    return (f"python -m bench.server_slots {what} --clients {args.clients} --columns {args.columns} --tokens "
            f"{args.tokens}")


def named(path: Path) -> Path:
    """As it is called in the clone."""
    path = path.resolve()
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def main() -> int:
    args = parse()
    image = (shapes.random_image(args.shape, "q8", words=True) if args.shape
             else connect(golden=True, model=args.model).model.path)
    result = {"command": command(args), "model": args.shape or args.model.name, "format": "q8",
              "random_weights": bool(args.shape),
              **measure(image, clients=args.clients, columns=args.columns, tokens=args.tokens)}
    report(result)
    name = f"server-slots-{args.shape or args.model.stem}"
    records.write(args.json or RESULTS / f"{name}.json", name, result)
    return 0 if result["identical"] and not result["dram_violations"] else 1


if __name__ == "__main__":
    sys.exit(main())
