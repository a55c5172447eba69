"""Options that several commands share, and what they make of them."""
import argparse
import secrets
from pathlib import Path

from host.backend import Backend
from host.connection import connect
from host.errors import HostError
from host.generation import Sampling
from host.link import trace_to_stderr
from host.model import GROUPS, KV_FORMATS, Model
from host.progress import Progress
from host.quantisation import FORMATS, MATRIX_FORMATS, Recipe
from host.tokenizer import Tokenizer
from host.transport import DEFAULT_BAUD
from spec.image import Image, Kind
from spec.protocol import MAX_BAUD
from spec.traffic import TARGETS


def add_device(parser: argparse.ArgumentParser, *, local: bool = True, several: bool = False) -> None:
    """--port, and where it makes sense --sim and --golden. ``several``: --port may be given more than once."""
    group = parser.add_argument_group("where the model runs")
    group.add_argument("--port", metavar="URL", help="a board or a running simulator: /dev/ttyUSB1, COM3, socket://HOST:PORT"
                       + ("; several are a pool" if several else ""), **({"action": "append"} if several else {}))
    if local:
        group.add_argument("--sim", action="store_true", help="start the simulated SoC, and stop it in the end")
        group.add_argument("--golden", action="store_true", help="the same integers in this process, without any hardware")
        group.add_argument("--upload", action="store_true", help="with --sim: send the model over the UART instead of preloading it")
    group.add_argument("--baud", type=int, default=DEFAULT_BAUD, help="rate that a serial port starts at (default %(default)s)")
    group.add_argument("--max-baud", type=int, default=MAX_BAUD, metavar="RATE", help="fastest rate to switch to, if device, "
                       "port and cable can do it (default %(default)s)")
    group.add_argument("--trace", action="store_true", help="show every frame with its time and opcode on stderr")


def add_conversion(parser: argparse.ArgumentParser, *, formats: bool = False) -> None:
    """``formats``: --format takes several."""
    group = parser.add_argument_group("conversion of a checkpoint")
    group.add_argument("-z", "--tokenizer", type=Path, metavar="FILE", help="tokenizer.bin, .model, "
                       "tokenizer.json, a GGUF file or a folder (default: the image's, or one that lies beside the checkpoint)")
    if formats:
        group.add_argument("--format", choices=FORMATS, nargs="+", help="weights (default: q8 and q4; mixed too with --calibrate)")
    else:
        group.add_argument("--format", choices=FORMATS, default="q8", help="weights; mixed is q4 with q8 where it helps most "
                           "(default %(default)s)")
    group.add_argument("--calibrate", type=Path, metavar="FILE", help="round q4 for this text, like those that the model will write")
    group.add_argument("--embedding", choices=MATRIX_FORMATS, default="q8", help="embedding and classifier in q4 and mixed "
                       "(default %(default)s)")
    group.add_argument("--budget", metavar="AMOUNT", help="of mixed: 4MB, 3.5MiB, 5.5bits a weight or 500tok/s (default 6bits)")
    group.add_argument("--group", type=int, choices=GROUPS, help="weights that share a scale (default: the checkpoint's, or the format's)")
    group.add_argument("--seq-len", type=int, metavar="N", help="positions of the context, which the K/V cache is for "
                       "(default: the checkpoint's)")
    group.add_argument("--kv", choices=KV_FORMATS, default=KV_FORMATS[0], help="bits of K's and V's elements in the cache; fewer, "
                       "and a longer context fits (default %(default)s)")
    group.add_argument("--template", help="chat template: plain, llama2, chatml, or a file with Jinja or JSON (see "
                       "docs/host.md; default: the one that the model brings along)")


def add_model(parser: argparse.ArgumentParser, *, required: bool = False, formats: bool = False) -> None:
    parser.add_argument("--model", type=Path, metavar="FILE", required=required, help="an image (.llm) or a checkpoint, converted "
                        "on the way (default: the device's own; with --sim and --golden the project's)")
    add_conversion(parser, formats=formats)


def add_text(parser: argparse.ArgumentParser) -> None:
    """What an evaluation reads, and how it is told."""
    parser.add_argument("--text", type=Path, required=True, metavar="FILE", help="a text, or several with <|endoftext|> between them")
    parser.add_argument("--target", choices=TARGETS, default=next(iter(TARGETS)), help="whose speed is predicted (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="for a program")


def require_tokenizer(model: Model) -> Tokenizer:
    if model.tokenizer is None:
        raise HostError("the model has no tokenizer: name it with --tokenizer")
    return model.tokenizer


def weights(image: Image) -> str:
    """The formats and group sizes that occur."""
    found = {f"{entry.format.name.lower()} g{entry.group}" for entry in image.entries if entry.kind != Kind.GAIN}
    return " and ".join(sorted(found))


def add_sampling(parser: argparse.ArgumentParser, *, requests: bool = False) -> None:
    """The sampler's options, with llama2.c's defaults and letters. ``requests``: defaults of a server's requests, which have
    a seed each and no guesses."""
    default = Sampling()
    group = parser.add_argument_group("sampling" + (", where a request does not say" if requests else ""))
    group.add_argument("-t", "--temperature", type=float, default=default.temperature, metavar="T", help="0 is greedy (default %(default)s)")
    group.add_argument("-p", "--top-p", type=float, default=default.top_p, metavar="P", help="keep the likeliest up to this probability; 0 or 1 is off (default %(default)s)")
    group.add_argument("--top-k", type=int, default=default.top_k, metavar="K", help="keep the K likeliest; 0 is off (default)")
    group.add_argument("--min-p", type=float, default=default.min_p, metavar="P", help="drop what is less likely than P times the likeliest; 0 is off (default)")
    group.add_argument("--repetition-penalty", type=float, default=default.repetition_penalty, metavar="F", help="1 is off (default)")
    group.add_argument("--repetition-window", type=int, default=default.repetition_window, metavar="N", help="recent positions that count for it (default %(default)s)")
    if requests:
        parser.set_defaults(speculate=0, seed=1)
        return
    group.add_argument("--speculate", type=int, default=default.speculate, metavar="N", help="greedy only: guess up to N tokens from what was said before "
                       "and verify them in one pass, as far as the core has columns; 0 is off (default)")
    group.add_argument("-s", "--seed", type=int, help="of the random numbers (default: a new one each time)")


def sampling(args: argparse.Namespace) -> dict:
    """Keywords of :class:`Sampling`, checked now rather than after an upload."""
    seed = args.seed if args.seed is not None else secrets.randbelow(1 << 32) or 1
    keywords = {"temperature": args.temperature, "top_p": args.top_p, "top_k": args.top_k, "min_p": args.min_p,
                "repetition_penalty": args.repetition_penalty, "repetition_window": args.repetition_window, "seed": seed, "speculate": args.speculate}
    Sampling(**keywords).fixed()
    return keywords


def conversion(args: argparse.Namespace) -> dict:
    return {"format": args.format, "group": args.group, "seq_len": args.seq_len, "kv": args.kv, "template": template(args.template),
            "calibrate": args.calibrate, "embedding": args.embedding, "budget": args.budget}


def recipe(args: argparse.Namespace) -> Recipe:
    return Recipe(args.format, args.group, args.embedding, args.calibrate, args.budget)


def template(named: str | None) -> str | None:
    """A template's text: what is named, or the content of the file that is."""
    try:
        return Path(named).read_text() if named and len(named) < 4096 and Path(named).is_file() else named
    except (OSError, ValueError) as error:
        raise HostError(f"--template {named[:80]}: cannot be read ({error}): choose another file") from None


def open_backend(args: argparse.Namespace, progress: Progress, wait_s: float = 0.0, flash: bool = False) -> Backend:
    """The backend that the options name."""
    return connect(port=args.port, sim=getattr(args, "sim", False), golden=getattr(args, "golden", False),
                   upload=getattr(args, "upload", False), model=args.model, tokenizer=args.tokenizer, baud=args.baud,
                   max_baud=args.max_baud, flash=flash,
                   wait_s=wait_s, trace=trace_to_stderr(args.trace), progress=progress, **conversion(args))
