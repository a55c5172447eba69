"""Finds out which kind of vocabulary a file or folder has, and reads it with what lies beside it."""
# Ref: https://github.com/huggingface/transformers for the files of a folder

import contextlib
import functools
from pathlib import Path

from llama2_host.tokenizer import binary, ends, gguf_vocabulary, huggingface_tokenizer, sentencepiece_tokenizer
from llama2_host.checkpoint import gguf
from llama2_host.checkpoint.errors import CheckpointError
from llama2_host.tokenizer.json_tokenizer import JsonTokenizer
from llama2_host.tokenizer.llama3_ranks import from_ranks, is_ranks, read_ranks
from llama2_host.tokenizer.base import Tokenizer, TokenizerError

NAMES = ("tokenizer.json", "tokenizer.model", "tokenizer.bin")
BESIDE = (*huggingface_tokenizer.BESIDE, ends.GENERATION)      #: what says something about a vocabulary's special
                                                               #: tokens
MAX_BYTES = 256 << 20


def load(path: str | Path, vocab_size: int | None = None):
    """The tokenizer of a file or folder; a size given is the model's, which the vocabulary must fit.

    Kinds: llama2.c's tokenizer.bin, a sentencepiece or a LLaMA-3 (tiktoken) tokenizer.model, tokenizer.json, a GGUF
    file, or a folder with one of them.

    Raises
    ------
    TokenizerError
        The file cannot be read, is of no kind above, is damaged, or does not fit the model.
    """
    path = file_of(Path(path))
    stamps = []
    for file in read_for(path):
        with contextlib.suppress(OSError):
            status = file.stat()
            stamps.append((file.name, status.st_ino, status.st_mtime_ns, status.st_size))
    return _load(path, vocab_size, tuple(stamps))


def file_of(path: Path) -> Path:
    """The vocabulary's file: the path itself, or the first one that lies in a folder."""
    if not path.is_dir():
        return path
    names = [name for name in NAMES if (path / name).is_file()]
    if not names:
        broken = [name for name in NAMES if (path / name).is_symlink()]
        reason = f"{broken[0]} is a link to nothing" if broken else \
            f"no tokenizer in this folder: expected {', '.join(NAMES)}"
        raise TokenizerError(f"{path}: cannot be read: {reason}")
    return path / names[0]


def read_for(path: Path) -> list[Path]:
    """Every file that is read for the vocabulary of ``path``: itself, and what lies beside a part of a folder."""
    path = file_of(path)
    beside = [path.parent / name for name in BESIDE] if path.suffix in (".json", ".model") else []
    return [path, *(file for file in beside if file.is_file() and file != path)]


@functools.lru_cache(maxsize=2)
def _load(path: Path, vocab_size: int | None, stamps):
    """Kept as long as the files are the same: a vocabulary is looked for, then used, then shown."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
            if gguf.matches(head):
                return _fitting(gguf_vocabulary.load(path), vocab_size, path)
            data = head + file.read(MAX_BYTES)
    except OSError as error:
        reason = "is a link to nothing" if path.is_symlink() and not path.exists() else error.strerror
        raise TokenizerError(f"{path}: cannot be read: {reason}: expected tokenizer.bin, tokenizer.model or "
                             "tokenizer.json, check the path") from None
    except CheckpointError as error:
        raise TokenizerError(str(error)) from None
    if is_ranks(head):
        return _fitting(from_ranks(read_ranks(data, path), path), vocab_size, path)
    if head.lstrip()[:1] == b"{":
        return _fitting(_of_folder(_text(data, path), None, path, vocab_size), vocab_size, path)
    if sentencepiece_tokenizer.matches(data):
        return _from_sentencepiece(data, path, vocab_size)
    return _fitting(binary.read(data, path), vocab_size, path)


def _from_sentencepiece(data: bytes, path: Path, vocab_size: int | None):
    """Read it as transformers does if it is a part of a folder, as sentencepiece does if it lies alone."""
    if not huggingface_tokenizer.lies_in_folder(path):
        return sentencepiece_tokenizer.load(data, vocab_size, path)
    model = sentencepiece_tokenizer.parse_model(data, path)
    sentencepiece_tokenizer.expect_bpe(model, path)
    return _fitting(_of_folder(None, model, path, vocab_size), vocab_size, path)


def _of_folder(content: str | None, model, path: Path, vocab_size: int | None) -> JsonTokenizer:
    """With BOS and the ends that the folder's files tell; a model elsewhere may tell others."""
    tokenizer = huggingface_tokenizer.load(content, model, path, vocab_size or 0)
    first = lambda ids: next((id for id in ids if id < tokenizer.vocab_size), None)
    told = ends.of_folder(path.parent)
    # An ordinary token is no end by default, though transformers takes it for one.
    told += [id for id in ends.by_default(path.parent) if id in tokenizer.specials.values()]
    bos = tokenizer.bos_id if tokenizer.bos_id is not None else first(ends.begins(path.parent))
    eos = tokenizer.eos_id if tokenizer.eos_id is not None else first(told)
    stops = ends.few([eos, *told, *ends.named(tokenizer.specials)], tokenizer.vocab_size)
    return tokenizer.with_ids(bos_id=bos, eos_id=eos, stop_ids=stops, adds_bos=None)


def of_model(tokenizer, told: list[int]):
    """The tokenizer for a model that tells its own ends, whatever the vocabulary's folder says."""
    if not told:
        return tokenizer
    specials = tokenizer.specials if isinstance(tokenizer, JsonTokenizer) else {}
    return tokenizer.with_stops(ends.few([tokenizer.eos_id, *told, *ends.named(specials)], tokenizer.vocab_size))


def _text(data: bytes, path: Path) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise TokenizerError(f"{path}: no tokenizer.json: it is not UTF-8: copy the file again") from None


def _fitting(tokenizer, vocab_size: int | None, path: Path):
    if vocab_size is not None and tokenizer.vocab_size > vocab_size or \
            vocab_size is not None and isinstance(tokenizer, Tokenizer) and tokenizer.vocab_size != vocab_size:
        raise TokenizerError(f"{path}: tokenizer has {tokenizer.vocab_size} entries, the model has {vocab_size}: "
                             "use the tokenizer that the model was trained with")
    return tokenizer
