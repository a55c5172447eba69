"""Renders chat templates written in Jinja, in its sandbox, with little time and memory: they come with files from anywhere."""
# Ref: https://huggingface.co/docs/transformers/chat_templating for the names that templates may use

import contextlib
import datetime
import functools
import json
import sys
import threading
import time
from pathlib import Path

from host.errors import HostError

MAX_SOURCE = 1 << 18        #: characters; the longest that models bring are some tens of thousands
MAX_TEXT = 1 << 22          #: characters of a conversation
DEADLINE_S = 2.0
MEMORY_BYTES = 256 << 20    #: what rendering may add to the process
STACK_BYTES = 16 << 20      #: for templates that call themselves, up to Python's limit
STATM = Path("/proc/self/statm")


class JinjaError(HostError):
    """A template that cannot be used, in one line."""


class _Refused(Exception):
    """Raised by a template through raise_exception, by name."""


class _Late(BaseException):
    """The deadline; no exception that a template could catch."""


def check(source: str) -> None:
    """Refuse what is no template."""
    _compiled(source)


def render(source: str, messages: list[dict[str, str]], *, bos_token: str = "", eos_token: str = "") -> str:
    """The text of a conversation and the beginning of the answer."""
    template = _compiled(source)
    try:
        text = _within(DEADLINE_S, lambda: template.render(
            messages=messages, add_generation_prompt=True, bos_token=bos_token, eos_token=eos_token, tools=None,
            documents=None))
    except _Refused as error:
        raise JinjaError(f"the chat template refuses this conversation: {_line(error)}: leave --system out, or choose "
                         "another --template") from None
    except _Late:
        raise JinjaError(f"the chat template takes longer than {DEADLINE_S:g} s: choose another --template") from None
    except Exception as error:      # whatever its expressions raise
        raise JinjaError(f"the chat template fails ({_line(error)}): choose another --template") from None
    if len(text) > MAX_TEXT:
        raise JinjaError(f"the chat template gives {len(text)} characters: choose another --template")
    return text


@functools.lru_cache(maxsize=4)
def _compiled(source: str):
    if len(source) > MAX_SOURCE:
        raise JinjaError(f"a chat template of {len(source)} characters, expected at most {MAX_SOURCE}: choose another --template")
    try:
        return _within(DEADLINE_S, lambda: _environment().from_string(source))      # it computes constants
    except _Late:
        raise JinjaError(f"the chat template takes longer than {DEADLINE_S:g} s: choose another --template") from None
    except Exception as error:      # its parser also fails with RecursionError, OverflowError, MemoryError
        raise JinjaError(f"not a Jinja chat template ({_line(error)}): choose another --template") from None


@functools.cache
def _environment():
    from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

    class Sandbox(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset(["**"])

        def call_binop(self, context, operator, left, right):
            raise SecurityError("no powers here: they take for ever")

    environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"], optimized=False)
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(str(form)[:100])
    return environment


def _refuse(message="") -> None:
    raise _Refused(str(message)[:200])


def _within(limit_s: float, function):
    """Its result, unless it runs longer: a trace of every line looks at the clock.

    In a thread, whose stack is there before memory becomes scarce: one that could not grow would end the process.
    """
    end_s, outcome = time.monotonic() + limit_s, {}

    def trace(frame, event, argument):
        if time.monotonic() > end_s:
            raise _Late
        return trace

    def run():
        with _little_memory():
            sys.settrace(trace)
            try:
                outcome["result"] = function()
            except BaseException as error:      # raised again by the caller's thread
                outcome["error"] = error
            finally:
                sys.settrace(None)
    size = threading.stack_size(STACK_BYTES)
    try:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
    finally:
        threading.stack_size(size)
    thread.join()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["result"]


@contextlib.contextmanager
def _little_memory():
    """Allocations beyond MEMORY_BYTES fail, where the system can do that."""
    try:
        import resource
        pages = int(STATM.read_text().split()[0])
    except (ImportError, OSError, ValueError):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = pages * resource.getpagesize() + MEMORY_BYTES
    if soft != resource.RLIM_INFINITY:
        wanted = min(wanted, soft)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _line(error) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
