"""Finds what lies beside a checkpoint: its tokenizer, its chat template; and the project's own model."""
from pathlib import Path

from host import jinja_template, vocabulary
from host.checkpoint import gguf
from host.checkpoint.fields import read_json
from host.checkpoint.gguf_file import GgufFile
from host.files import ModelError
from host.tokenizer import Tokenizer, TokenizerError

DEFAULT_MODEL = Path("models") / "stories.bin"


def find_tokenizer(checkpoint_path: Path, vocab_size: int) -> Path | None:
    """The tokenizer that lies in a folder or a GGUF file, or beside a checkpoint; others' sizes do not fit.

    Beside a checkpoint it has its name, or one of llama2.c's or Hugging Face's.
    """
    folder = checkpoint_path if checkpoint_path.is_dir() else checkpoint_path.parent
    names = (checkpoint_path.stem + ".tokenizer", checkpoint_path.stem, f"tok{vocab_size}", "tokenizer")
    found = [folder / (name + suffix) for name in names for suffix in (".bin", ".json", ".model")]
    if _starts(checkpoint_path, gguf.MAGIC):
        found = [checkpoint_path]
    elif checkpoint_path.suffix == ".safetensors" or checkpoint_path.is_dir():
        found = [folder / name for name in vocabulary.NAMES]
    for path in found:
        if path.is_file() and (path != checkpoint_path or len(found) == 1):
            try:
                Tokenizer.load(path, vocab_size)
                return path
            except TokenizerError:
                continue
    return None


def find_template(checkpoint_path: Path) -> str | None:
    """The chat template that a model brings along: in its folder, or in its GGUF file."""
    if _starts(checkpoint_path, gguf.MAGIC):
        text = GgufFile.open(checkpoint_path).value("tokenizer.chat_template")
        return text if isinstance(text, str) else None
    folder = checkpoint_path if checkpoint_path.is_dir() else checkpoint_path.parent
    if not checkpoint_path.is_dir() and checkpoint_path.suffix != ".safetensors":
        return None
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_bytes()[:jinja_template.MAX_SOURCE + 1].decode("utf-8", "replace")
    if not (folder / "tokenizer_config.json").is_file():
        return None
    told = read_json(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(told, list):                  # several by name
        told = next((entry.get("template") for entry in told if isinstance(entry, dict) and entry.get("name") == "default"), None)
    return told if isinstance(told, str) else None


def _starts(path: Path, magic: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(magic)) == magic
    except OSError:
        return False


def default_model() -> Path:
    """The project's own model, in a clone."""
    for root in (Path(__file__).resolve().parent.parent, Path.cwd()):
        if (root / DEFAULT_MODEL).exists():
            return root / DEFAULT_MODEL
    raise ModelError(f"name a model with --model: the project's own ({DEFAULT_MODEL}) lies in a clone only")
