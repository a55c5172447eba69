"""Renders chat templates in a process of its own, so that a template can break nothing else.

Reads a request per line (JSON: ``source``, and ``context`` or null to only compile) and answers each with a line:
``text``, or ``error`` with the kind of what went wrong.
"""
import datetime
import json
import os
import sys
import threading
from pathlib import Path

from jinja2 import Undefined, nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.utils import Namespace

try:
    import resource
except ImportError:             # Windows: a timer ends a request there, and memory has no limit
    resource = None             # type: ignore[assignment] # looked at before it is used

CPU_S        = 2            #: per request
MEMORY_BYTES = 256 << 20    #: beyond what the process takes at first
MAX_TEXT     = 1 << 22      #: characters of a conversation
STATM        = Path("/proc/self/statm")
OUT_OF_TIME  = 124          #: exit status where a timer ended the process


class Refused(Exception):
    """Raised by a template through raise_exception, by name."""


class Generation(Extension):
    """``{% generation %}``: marks an assistant's text for training; here it renders as what it holds."""
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        # A scope of its own, as a macro's: what is set within ends with it
        return nodes.CallBlock(self.call_method("_told"), [], [], body).set_lineno(line)

    def _told(self, caller):
        return caller()


class Plain(Namespace):
    """``namespace(...)`` without names that begin with an underscore."""

    def __init__(*args, **kwargs):
        self, *told = args
        attributes = dict(*told, **kwargs)
        for name in attributes:
            _expect_plain(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name, value):
        _expect_plain(name)
        super().__setitem__(name, value)


def _expect_plain(name) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"no name in a namespace begins with an underscore, as {name[:40]!r} does")


class Missing(Undefined):
    """A name that nobody gave: it renders as nothing, and a special token does so where a template joins it to a text,
    too."""

    def __add__(self, other):
        return other if self._is_token() else super().__add__(other)

    def __radd__(self, other):
        return other if self._is_token() else super().__radd__(other)

    def _is_token(self) -> bool:
        return str(self._undefined_name).endswith("_token")


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's own, without powers, and without computing constants while it compiles."""
    intercepted_binops = frozenset(["**"])

    def __init__(self):
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"],
                         optimized=False,
                         undefined=Missing)
        self.filters["tojson"] = _to_json
        self.globals["namespace"] = Plain
        self.globals["raise_exception"] = _refuse
        self.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(str(form)[:100])

    def call_binop(self, context, operator, left, right):
        raise SecurityError("no powers here: they take for ever")


def _to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message="") -> None:
    raise Refused(str(message)[:200])


def _limit_memory() -> None:
    """Limit the memory of this process, on systems that tell how much it takes, as Linux does."""
    if resource is None:
        return
    try:
        pages = int(STATM.read_text().split()[0])
    except (OSError, ValueError):
        return
    if resource is None:
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    wanted = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


_timer = None


def _limit_time() -> None:
    """The system ends the process CPU_S seconds from now, whole seconds rounded up; a timer does where the system
    can't."""
    global _timer
    if resource is None:
        if _timer:
            _timer.cancel()
        _timer = threading.Timer(CPU_S + 1, os._exit, [OUT_OF_TIME])
        _timer.daemon = True
        _timer.start()
        return
    usage = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(usage.ru_utime + usage.ru_stime) + CPU_S + 1, hard))


def answer(environment: Sandbox, source: str, context: dict | None) -> dict[str, str]:
    """The rendered text, or what was wrong."""
    kind = "compile"
    try:
        template = environment.from_string(source)
        kind = "render"
        text = "" if context is None else template.render(context)
        return {"text": text} if len(text) <= MAX_TEXT else {"error": kind, "line": f"it gives {len(text)} characters"}
    except Refused as error:
        return {"error": "refused", "line": str(error)}
    except Exception as error:      # the parser and expressions raise whatever they like
        return {"error": kind, "line": str(error)[:1000] or type(error).__name__}


def main() -> None:
    environment = Sandbox()
    _limit_memory()
    for line in sys.stdin:
        _limit_time()
        print(json.dumps(answer(environment, **json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
