"""Keeps a conversation in a file, and goes on with it: JSON, for the model that it was held with."""
import json
import os
from pathlib import Path

from llama2_host.chat.conversation import Conversation
from llama2_host.errors import HostError
from llama2_host.files import write_whole

KIND = "llama2-host conversation"
MAX_BYTES = 64 << 20


def save(conversation: Conversation, name: str | Path) -> None:
    """Write the whole conversation, or leave an older file as it is; a file of another kind is never replaced."""
    path = Path(os.path.expanduser(name))
    if path.exists() and not _is_saved(path):
        raise HostError(f"{path} is there, and no saved conversation: choose another name")
    text = json.dumps(conversation.state() | {"kind": KIND}, ensure_ascii=False, indent=1)
    try:
        write_whole(path, lambda file: file.write(text.encode()))
    except OSError as error:
        raise HostError(f"cannot write {path}: {error.strerror or error}") from error


def load(conversation: Conversation, name: str | Path) -> None:
    """Load a file into ``conversation``, which stays as it is if that fails."""
    path = Path(os.path.expanduser(name))
    state = _read(path)
    try:
        conversation.restore(state)
    except (KeyError, TypeError, ValueError) as error:
        raise HostError(f"{path} is a damaged conversation ({error!r:.80})") from error


def _is_saved(path: Path) -> bool:
    return _object(path) is not None


def _read(path: Path) -> dict:
    state = _object(path)
    if state is None:
        raise HostError(f"{path} is no saved conversation: make one with /save")
    return state


def _object(path: Path) -> dict | None:
    """The file's object; None where it is no conversation."""
    try:
        with open(path, "rb") as file:
            state = json.loads(file.read(MAX_BYTES))
    except OSError as error:
        raise HostError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError):
        state = None
    return state if isinstance(state, dict) and state.get("kind") == KIND else None
