"""Options that several commands share, and their evaluation."""
import argparse
import secrets
import sys
from pathlib import Path

from llama2_host import combinations
from llama2_host.backend import Backend
from llama2_host.connection import connect
from llama2_host.errors import HostError
from llama2_host.files import is_image, require_file
from llama2_host.generation import Sampling
from llama2_host.device import rate
from llama2_host.device.link import Link, VersionError, trace_to_stderr
from llama2_host.device.simulator import COLUMNS
from llama2_host.doctor import ports
from llama2_host.image.conversion import GROUPS, KV_FORMATS
from llama2_host.image.model import Model
from llama2_host.progress import Progress
from llama2_host.quantisation import FORMATS, MATRIX_FORMATS, Recipe
from llama2_host.terminal import filter_for, is_terminal
from llama2_host.tokenizer.base import Tokenizer
from llama2_host.device.transport import DEFAULT_BAUD, Transport
from llama2_spec.image import Image, Kind
from llama2_spec.protocol import MAX_BAUD
from llama2_spec.traffic import TARGETS


def add_device(parser: argparse.ArgumentParser, *, local: bool = True, hurries: bool = True, models: bool = True,
               several: bool = False) -> None:
    """--port, and where it makes sense --sim and --golden; ``hurries``: so much is sent that the rate matters. Without
    ``models``, no model of the user's is run. ``several``: --port may be given more than once."""
    group = parser.add_argument_group("where the model runs")
    group.add_argument("--port", metavar="URL", help="a board or a running simulator: /dev/ttyUSB1, COM3, "
                                                     "socket://HOST:PORT (default: "
                       f"{ports.VARIABLE}, or the one board that answers)" +
                       ("; several are a pool" if several else ""),
                       action="append" if several else "store")
    if local:
        group.add_argument("--sim", action="store_true", help="start the simulated SoC, and stop it in the end")
    if local and models:
        group.add_argument("--golden", action="store_true",
                           help="the same integers in this process, without any hardware")
        group.add_argument("--upload", action="store_true",
                           help="with --sim: send the model over the UART instead of preloading it")
        group.add_argument("--columns", type=int, choices=COLUMNS,
                           help="with --sim: positions that share a pass over the weights, of one text or of several "
                           "(default: as many as an Arty A7-35T's core has)")
    group.add_argument("--baud", type=int, help=f"rate that a serial port starts at (default {DEFAULT_BAUD})")
    if hurries:
        group.add_argument("--max-baud", type=int, metavar="RATE",
                           help="fastest rate to switch to, if device, port and cable can "
                           f"do it (default {MAX_BAUD})")
    group.add_argument("--trace", action="store_true", help="show every frame with its time and opcode on stderr")


def add_conversion(parser: argparse.ArgumentParser, *, formats: bool = False, template: bool = True) -> None:
    """``formats``: --format takes several. ``template``: turns are written."""
    group = parser.add_argument_group("conversion of a checkpoint")
    group.add_argument("-z", "--tokenizer", type=Path, metavar="FILE", help="tokenizer.bin, .model, "
                       "tokenizer.json, a GGUF file or a folder (default: the image's, or one that lies beside the "
                       "checkpoint)")
    if formats:
        group.add_argument("--format", choices=FORMATS, nargs="+",
                           help="weights (default: q8 and q4; mixed too with --calibrate)")
    else:
        group.add_argument("--format", choices=FORMATS, help="weights; mixed is q4 with q8 where it helps most "
                           f"(default {Recipe().format})")
    group.add_argument("--calibrate", type=Path, metavar="FILE",
                       help="round q4 for this text, like those that the model will write")
    group.add_argument("--embedding", choices=MATRIX_FORMATS, help="embedding and classifier in q4 and mixed "
                       f"(default {Recipe().embedding})")
    group.add_argument("--budget", metavar="AMOUNT", help="of mixed: 4MB, 3.5MiB, 5.5bits a weight or 500tok/s "
                                                          "(default 6bits, more where the "
                       "embedding needs it)")
    group.add_argument("--group", type=int, choices=GROUPS,
                       help="weights that share a scale (default: the checkpoint's, or the format's)")
    group.add_argument("--allow-loss", action="store_true", help="convert although whole rows of weights become zero")
    group.add_argument("--seq-len", type=int, metavar="N", help="positions of the context, which the K/V cache is for "
                       "(default: the checkpoint's)")
    group.add_argument("--kv", choices=KV_FORMATS, help="bits of K's and V's elements in the cache; fewer, "
                       f"and a longer context fits (default {KV_FORMATS[0]})")
    if template:
        group.add_argument("--template", help="chat template: plain, llama2, chatml, or a file with Jinja or JSON (see "
                           "docs/host.md; default: the one that the model brings along)")


def add_output(parser: argparse.ArgumentParser) -> None:
    """-o and --force; what they name goes to :class:`llama2_host.files.Output`, an empty name too."""
    parser.add_argument("-o", "--output", required=True, metavar="OUT.llm",
                        help="the image; no file that is read for it")
    parser.add_argument("--force", action="store_true",
                        help="replace OUT.llm though it is write-protected, or no image")


def add_model(parser: argparse.ArgumentParser, *, default: str = "the device's own; with --sim and --golden the "
                                                                 "project's",
              formats: bool = False, template: bool = True) -> None:
    """--model and the options of its conversion; without a ``default`` it must be named."""
    what = "a checkpoint" if formats else "an image (.llm) or a checkpoint, converted on the way"
    parser.add_argument("--model", type=Path, metavar="FILE", required=not default,
                        help=what + (f" (default: {default})" if default else ""))
    add_conversion(parser, formats=formats, template=template)


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for a program")


def add_raw(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--raw", action="store_true", help="control characters too: on a terminal they are left out "
                                                           "otherwise")


def show(lines: list[str], raw: bool = False) -> None:
    """Print lines for people: on a terminal without control characters."""
    made = filter_for(sys.stdout, raw)
    for line in lines:
        print(made(line.replace("\n", " ") if is_terminal(sys.stdout) and not raw else line))


def print_lines(lines: list[str]) -> None:
    """Print lines that were made fit for stdout already: see :mod:`llama2_host.screen`."""
    for line in lines:
        print(line)


def add_text(parser: argparse.ArgumentParser) -> None:
    """Add the options of an evaluation: its text, the target of the predicted speed, and --json."""
    parser.add_argument("--text", type=Path, required=True, metavar="FILE",
                        help="a text, or several with <|endoftext|> between them")
    parser.add_argument("--target", choices=TARGETS, default=next(iter(TARGETS)),
                        help="whose speed is predicted (default %(default)s)")
    add_json(parser)


def require_tokenizer(model: Model) -> Tokenizer:
    if model.tokenizer is None:
        raise HostError("the model has no tokenizer: name it with --tokenizer")
    return model.tokenizer


def weights(image: Image) -> str:
    """The formats and group sizes that occur."""
    found = {f"{entry.format.name.lower()} g{entry.group}" for entry in image.entries if entry.kind != Kind.GAIN}
    return " and ".join(sorted(found))


def add_sampling(parser: argparse.ArgumentParser, *, requests: bool = False) -> None:
    """The sampler's options, with llama2.c's defaults and letters. ``requests``: defaults of a server's requests, each
    of which has a seed of its own and no guesses."""
    group = parser.add_argument_group("sampling" + (", where a request does not say" if requests else ""))
    for names, type, metavar, text in SAMPLING:
        field = field_of(names)
        if not (requests and field in OF_A_RUN):
            group.add_argument(*names, type=type, metavar=metavar,
                               help=f"{text} (default {getattr(Sampling(), field)})")
    if requests:
        parser.set_defaults(seed=None, **dict.fromkeys(OF_A_RUN))
    else:
        group.add_argument("-s", "--seed", type=int, metavar="N",
                           help="of the random numbers (default: a new one each time)")


def field_of(names: tuple[str, ...]) -> str:
    """The field of :class:`Sampling` that an option sets."""
    return names[-1].strip("-").replace("-", "_")


OF_A_RUN = ("speculate",)   #: not for the requests of a server
SAMPLING = (
    (("-t", "--temperature"), float, "T", "0 is greedy"),
    (("-p", "--top-p"), float, "P", "keep the likeliest up to this probability; 0 or 1 is off"),
    (("--top-k",), int, "K", "keep the K likeliest; 0 is off"),
    (("--min-p",), float, "P", "drop what is less likely than P times the likeliest; 0 is off"),
    (("--repetition-penalty",), float, "F", "1 is off"),
    (("--repetition-window",), int, "N", "recent positions that count for it"),
    (("--speculate",), int, "N", "greedy only: guess up to N tokens from what was said before and verify them in one "
                                 "pass, "
     "as far as the core has columns; 0 is off"),
)


def sampling(args: argparse.Namespace) -> dict:
    """Keywords of :class:`Sampling`, checked now rather than after an upload."""
    seed = args.seed if args.seed is not None else secrets.randbelow(1 << 32) or 1
    keywords = {field: getattr(args, field) for field in (field_of(names) for names, *_ in SAMPLING)}
    keywords = {field: value for field, value in keywords.items() if value is not None} | {"seed": seed}
    Sampling(**keywords).fixed()
    return keywords


DISCOVERY_S = 0.5       #: for a board's first answer


def find_port(args: argparse.Namespace) -> None:
    """If no option says where the model runs, take LLAMA2_HOST_PORT or the one board that answers. Leaves args as they
    are if no port could be a board's."""
    if any(getattr(args, name, None) for name in combinations.PLACES):
        return
    args.port = ports.chosen(None)
    found = ports.ports()
    if args.port is None and ports.candidates(found):
        args.port = ports.discover(lambda device: _answers(device, args.baud or DEFAULT_BAUD), found)
        Progress.stderr().note(f"using {args.port}")


def _answers(device: str, baud: int) -> bool:
    """Returns whether this project's firmware answers."""
    try:
        link = Link(Transport.open(device, baud=baud))
    except HostError:
        return False
    try:
        return rate.find(link, DISCOVERY_S) is not None
    except VersionError:
        return True             # the error on opening it says what to update
    except HostError:
        return False
    finally:
        link.close()


def check(args: argparse.Namespace, **more) -> None:
    """Refuse options that cannot take effect together; ``more`` stands for what they leave open."""
    if hasattr(args, "port"):
        find_port(args)
    told = vars(args) | more
    for name in ("calibrate", "text"):
        if told.get(name) is not None:
            require_file(told[name], f"--{name}")
    named = next((name for name in ("port", "sim", "golden") if told.get(name)), None)
    model = told.get("model")
    runs = "port" in told
    kind = (("image" if is_image(model) else "checkpoint") if model else ("device" if named == "port" else "default")
            if runs and named else None)
    given = {name: value for name, value in told.items() if name not in ("command", "model")}
    combinations.check(combinations.Given(given, named, kind))


def conversion(args: argparse.Namespace) -> dict:
    return {"format": args.format, "group": args.group, "seq_len": args.seq_len, "kv": args.kv,
            "template": template(getattr(args, "template", None)),
            "calibrate": args.calibrate, "embedding": args.embedding, "budget": args.budget,
            "allow_loss": args.allow_loss}


def recipe(args: argparse.Namespace) -> Recipe:
    default = Recipe()
    return Recipe(args.format or default.format, args.group, args.embedding or default.embedding, args.calibrate,
                  args.budget,
                  args.allow_loss)


def is_file(named: str) -> bool:
    """Returns whether this names a file; a template's text may be too long for a name."""
    try:
        return len(named) < 4096 and Path(named).is_file()
    except (OSError, ValueError):
        return False


def template(named: str | None) -> str | None:
    """A template's text: what is named, or the content of the file that is."""
    try:
        return Path(named).read_text("utf-8") if named and is_file(named) else named
    except (OSError, ValueError) as error:
        raise HostError(f"--template {(named or '')[:80]}: cannot be read ({error}): choose another file") from None


def open_backend(args: argparse.Namespace, progress: Progress, wait_s: float = 0.0, flash: bool = False) -> Backend:
    """The backend that the options name."""
    return connect(port=args.port, sim=getattr(args, "sim", False), golden=getattr(args, "golden", False),
                   upload=getattr(args, "upload", False), columns=getattr(args, "columns", None),
                   model=args.model, tokenizer=args.tokenizer, baud=args.baud,
                   max_baud=args.max_baud, flash=flash,
                   wait_s=wait_s, trace=trace_to_stderr(args.trace), progress=progress, **conversion(args))
