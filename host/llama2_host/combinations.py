"""Knows which options cannot take effect together: one table, for the command line and for Python.

An option that does nothing is refused with one line that says why, so that nobody believes in it.
"""
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from llama2_host.errors import HostError
from llama2_spec.image import Format, Image, Kind


class CombinationError(HostError, ValueError):
    """An option that cannot take effect beside others."""


class ArgumentError(HostError, TypeError):
    """An argument of a wrong type, or of an unknown name."""


@dataclass(frozen=True)
class Given:
    """The user's options with their values, without those that were left out, and their meaning together."""
    options: Mapping[str, object] = field(default_factory=dict)
    where: str | None = None        #: "port", "sim", "golden"; None: nothing runs, or nobody said where
    model: str | None = None        #: "checkpoint", "image", "device" for a device's own, "default" for the project's;
                                    #: None: not known

    def __contains__(self, name: str) -> bool:
        return self.options.get(name) not in (None, False)

    def __getitem__(self, name: str):
        return self.options.get(name)

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats that are going to be made: ``compare`` makes several."""
        named = self["format"]
        if isinstance(named, (list, tuple)):
            return tuple(named)
        return (str(named),) if named else ("q8",)

    @property
    def socket(self) -> bool:
        return str(self["port"] or "").startswith("socket://")

    @property
    def greedy(self) -> bool:
        return self["temperature"] == 0


@dataclass(frozen=True)
class Rule:
    """``options`` are refused if ``idle`` holds; ``why`` says why each has no effect, and what to do."""
    options: tuple[str, ...]
    idle: Callable[[Given], bool]
    why: str


PLACES = ("port", "sim", "golden")
CHOOSE = "choose where the model runs: --port URL (a board or a running simulator), --sim, or --golden"
CONVERSION = ("format", "group", "embedding", "calibrate", "budget", "seq_len", "kv", "allow_loss")
ON = {"top_p": lambda value: 0 < value < 1, "top_k": lambda value: value > 0, "min_p": lambda value: value > 0}

#: The first that applies is told. --seed with --temperature 0 is no mistake: it is how a run is repeated, whatever it
#: was.
RULES = (
    Rule(("upload",), lambda g: g.where != "sim", "it sends the model to the simulator that --sim starts: add --sim, "
                                                  "or leave it out"),
    Rule(("columns",), lambda g: g.where != "sim",
         "a board's columns are in its bitstream, a running simulator's in its build: add --sim, or leave it out"),
    Rule(("baud", "max_baud"), lambda g: g.where != "port",
         "it is the rate of a serial port: add --port, or leave it out"),
    Rule(("baud", "max_baud"), lambda g: g.socket, "a socket has no rate: leave it out"),
    Rule(("trace",), lambda g: g.where == "golden", "--golden sends no frames: leave it out"),
    Rule(("copies",), lambda g: g.where not in ("sim", "golden"),
         "it is for --sim and --golden: name several boards by several --port"),
    Rule(("slots",), lambda g: g.where == "golden",
         "--golden has no device whose memory could be divided: use --copies, or leave it out"),
    Rule(("dram_fault",), lambda g: g.where != "sim",
         "it is a fault of the simulated DRAM: add --sim, or leave it out"),
    Rule(("force",), lambda g: g.where == "sim", "the simulator that --sim starts holds nobody's model: leave it out"),
    Rule(("flash",), lambda g: g.where in ("sim", "golden"), "only a board on a --port has a flash: leave it out"),
    Rule(CONVERSION, lambda g: g.model == "device", "it is for the conversion of a checkpoint, and the device's own "
                                                    "model is used: "
         "name a checkpoint with --model, or leave it out"),
    Rule(("calibrate", "budget", "allow_loss"), lambda g: g.model == "image",
         "it is for the conversion of a checkpoint, and the model is an image: "
         "name the checkpoint that it was made from, or leave it out"),
    Rule(("budget",), lambda g: "mixed" not in g.formats and g.model != "image",
         "it is for --format mixed: add that, or leave it out"),
    Rule(("calibrate",), lambda g: set(g.formats) == {"q8"} and g.model != "image",
         "it is for --format q4 and mixed, q8 is as good without: leave it out"),
    Rule(("embedding",), lambda g: set(g.formats) == {"q8"} and g.model != "image" and g["embedding"] != "q8",
         "it is for --format q4 and mixed: add one of them, or leave it out"),
    Rule(("top_p", "top_k", "min_p"), lambda g: g.greedy, "--temperature 0 always takes the likeliest token: leave it "
                                                          "out, or raise "
         "--temperature"),
    Rule(("repetition_window",), lambda g: (g["repetition_penalty"] or 1) == 1,
         "it is of --repetition-penalty, which is off: "
         "add that, or leave it out"),
    Rule(("speculate",), lambda g: g.where == "golden", "--golden has no hardware whose columns could verify guesses: "
                                                        "leave it out"),
    Rule(("prompt_ids", "file"), lambda g: "prompt" in g or g["prompt"] == "",
         "--prompt says what to continue already: leave one of them out"),
    Rule(("prompt_ids",), lambda g: "file" in g, "--file says what to continue already: leave one of them out"),
    Rule(("ids",), lambda g: "json" in g, "--json has the token ids anyway: leave it out"),
    Rule(("raw",), lambda g: "json" in g or "ids" in g, "no text is printed as it is: leave it out"),
)


def check(given: Given) -> None:
    """Raise one line for the first option that cannot take effect."""
    if sum(name in given for name in PLACES) > 1:
        raise CombinationError(CHOOSE)
    for rule in RULES:
        for option in rule.options:
            if option in given and (option not in ON or ON[option](given[option])) and rule.idle(given):
                raise CombinationError(f"{flag(option)} has no effect here: {rule.why}")


#: what a caller in Python may give; the command line's parser sees to it there
TYPES: dict[str, type | tuple[type, ...]] = {"port": str, "sim": bool, "golden": bool, "upload": bool, "flash": bool,
                                             "baud": int, "max_baud": int, "slots": int, "columns": int, "format": str,
         "group": int, "embedding": str, "budget": str, "seq_len": int, "kv": str, "template": str,
         "calibrate": (str, os.PathLike), "model": (str, os.PathLike), "tokenizer": (str, os.PathLike)}


def check_types(values: Mapping[str, object], known: Iterable[str] = ()) -> None:
    """Raise one line for an option of another type, or of a name that there is not; ``known`` are names beside
    these."""
    for name, value in values.items():
        if name not in TYPES and name not in known:
            raise ArgumentError(f"there is no option {name!r}: choose from {', '.join(sorted({*TYPES, *known}))}")
        expected = TYPES.get(name, object)
        if value is not None and (not isinstance(value, expected) or isinstance(value, bool) and expected is int):
            kind = expected.__name__ if isinstance(expected, type) else "path"
            raise ArgumentError(f"{name} is {value!r:.40}, of type {type(value).__name__}: expected one of type {kind}")


def check_image(image: Image, options: Mapping[str, object], name) -> None:
    """Raise one line if an image has another format, group size or context than is asked for: it is not converted
    again."""
    for option, has in described(image).items():
        wanted = options.get(option)
        if wanted is not None and wanted not in has:
            raise CombinationError(f"{flag(option)} {wanted} has no effect here: {name} is an image, which has "
                                   f"{' and '.join(map(str, sorted(has)))}: convert its checkpoint again, or leave it "
                                   "out")


def described(image: Image) -> dict[str, set]:
    """The options of a conversion with the values that an image has; a format is named if all matrices of the layers
    are in it."""
    tables = [entry for entry in image.entries if entry.kind in (Kind.CLASSIFIER, Kind.EMBEDDING)]
    layers = [entry for entry in image.entries if entry.kind != Kind.GAIN and entry not in tables]
    formats = {Format(entry.format).name.lower() for entry in layers}
    groups = {entry.group for entry in layers + tables}
    return {"format": formats if len(formats) == 1 else {"mixed"}, "group": groups if len(groups) == 1 else {"several"},
            "embedding": {Format(entry.format).name.lower() for entry in tables}, "seq_len": {image.config.seq_len},
            "kv": {image.config.kv.name.lower()}}


def flag(option: str) -> str:
    """The option's spelling on the command line."""
    return "--" + option.replace("_", "-")
