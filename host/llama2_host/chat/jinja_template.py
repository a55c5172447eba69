"""Renders chat templates written in Jinja, in its sandbox, with little time and memory: they come with files from
anywhere."""
# Ref: https://huggingface.co/docs/transformers/chat_templating for the names that templates may use

import functools
import json
import signal
import subprocess
import sys
from pathlib import Path

from llama2_host.errors import HostError

MAX_SOURCE = 1 << 18        #: characters; the longest that models bring are some tens of thousands
WORKER = Path(__file__).with_name("jinja_worker.py")
#: Exit status of a worker that was out of time: the system's signal, or its own timer where there is none.
OUT_OF_TIME = {124, -getattr(signal, "SIGXCPU", 0)} - {0}


class JinjaError(HostError):
    """A template cannot be used; the message says why in one line."""


def check(source: str) -> None:
    """Refuse a text that is no template."""
    _ask(source, None)


def render(source: str, messages: list[dict[str, str]], specials: dict[str, str] | None = None) -> str:
    """The text of a conversation and the beginning of the answer; ``specials``: texts of ``bos_token`` and others.

    A special token that the model does not have is undefined, which renders as nothing.
    """
    return _ask(source, {**(specials or {}), "messages": messages, "add_generation_prompt": True, "tools": None,
                         "documents": None})


def _ask(source: str, context: dict | None) -> str:
    """The worker's answer; a worker that did not answer is replaced by a new one."""
    if len(source) > MAX_SOURCE:
        raise JinjaError(f"a chat template of {len(source)} characters, expected at most {MAX_SOURCE}: choose another "
                         "--template")
    worker, line = _worker(), ""
    assert worker.stdin and worker.stdout
    try:
        worker.stdin.write(json.dumps({"source": source, "context": context}) + "\n")
        worker.stdin.flush()
        line = worker.stdout.readline()
    except BrokenPipeError:
        pass
    except BaseException:       # interrupted: the late answer would be taken for that of the next request
        _worker.cache_clear()
        worker.kill()
        raise
    if not line:        # out of time, or broken in some way of its own
        _worker.cache_clear()
        status = worker.wait()
        reason = "takes too long" if status in OUT_OF_TIME else f"breaks its interpreter (status {status})"
        raise JinjaError(f"the chat template {reason}: choose another --template")
    answer = json.loads(line)
    if "text" in answer:
        return answer["text"]
    reason = " ".join(answer["line"].split())[:160]
    raise JinjaError({
        "refused": f"the chat template refuses this conversation: {reason}: leave --system out, or choose another "
                   "--template",
        "compile": f"not a Jinja chat template ({reason}): choose another --template",
        "render":  f"the chat template fails ({reason}): choose another --template",
    }[answer["error"]])


@functools.cache
def _worker() -> subprocess.Popen:
    """The process that renders; it ends when this one does, and does not hear its Ctrl-C."""
    return subprocess.Popen([sys.executable, "-I", str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, text=True, encoding="utf-8", start_new_session=True)
