"""Finds a checkpoint's tokenizer, its chat template and the ids that end its texts, and the project's own model."""
from pathlib import Path

from llama2_host.tokenizer import ends, vocabulary
from llama2_host.chat import jinja_template
from llama2_host.checkpoint import gguf
from llama2_host.checkpoint.fields import read_json
from llama2_host.checkpoint.gguf_file import GgufFile
from llama2_host.files import ModelError
from llama2_host.tokenizer.base import TokenizerError

DEFAULT_MODEL = Path("models") / "stories.bin"
SETTINGS, TEMPLATE, MORE_TEMPLATES = "tokenizer_config.json", "chat_template.jinja", "additional_chat_templates"


def find_tokenizer(checkpoint_path: Path, vocab_size: int) -> Path | None:
    """The tokenizer that lies in a folder or a GGUF file, or beside a checkpoint; others' sizes do not fit."""
    return search_tokenizer(checkpoint_path, vocab_size)[0]


def search_tokenizer(checkpoint_path: Path, vocab_size: int) -> tuple[Path | None, list[str]]:
    """Like :func:`find_tokenizer`; also returns why earlier candidates in the same place cannot be used.

    Beside a checkpoint a tokenizer has its name, or one of llama2.c's or Hugging Face's.
    """
    own = _is_gguf(checkpoint_path) or _folder(checkpoint_path) is not None
    reasons: list[str] = []
    for path in _candidates(checkpoint_path, vocab_size):
        if path.is_file() or path.is_symlink():
            try:
                vocabulary.load(path, vocab_size)
                return path, reasons if own else []     # beside a checkpoint lie other models' tokenizers, too
            except TokenizerError as error:
                reasons.append(str(error))
    return None, reasons


def _candidates(checkpoint_path: Path, vocab_size: int) -> list[Path]:
    if _is_gguf(checkpoint_path):
        return [checkpoint_path]
    if (folder := _folder(checkpoint_path)) is not None:
        return [folder / name for name in vocabulary.NAMES]
    names = (checkpoint_path.stem + ".tokenizer", checkpoint_path.stem, f"tok{vocab_size}", "tokenizer")
    found = [checkpoint_path.parent / (name + suffix) for name in names for suffix in (".bin", ".json", ".model")]
    return [path for path in found if path != checkpoint_path]


def load_tokenizer(checkpoint_path: Path, tokenizer: str | Path, vocab_size: int | None = None):
    """A model's tokenizer from wherever it is. What ends the model's texts is the model's own."""
    loaded = vocabulary.load(tokenizer, vocab_size)
    return vocabulary.of_model(loaded, ends_of(checkpoint_path, Path(tokenizer)))


def ends_of(checkpoint_path: Path, tokenizer: Path) -> list[int]:
    """End ids that a model's own files name, for a model whose tokenizer lies elsewhere; empty if they name none."""
    if (folder := _folder(checkpoint_path)) is not None:
        return ends.of_folder(folder)
    if _is_gguf(checkpoint_path) and tokenizer != checkpoint_path:
        try:
            return list(vocabulary.load(checkpoint_path).stop_ids)
        except TokenizerError:
            value = GgufFile.open(checkpoint_path).value
            return [id for name in ("eos", "eot", "eom")
                    for id in ends.ids_of(value(f"tokenizer.ggml.{name}_token_id"))]
    return []


def read_files(checkpoint_path: Path, tokenizer: str | Path | None) -> list[Path]:
    """Every file that provides vocabulary, template and ends: a conversion of this model depends on them beside the
    weights."""
    files = vocabulary.read_for(Path(tokenizer)) if tokenizer else []
    folders = [folder for folder in (_folder(checkpoint_path), _tokenizers_folder(tokenizer)) if folder is not None]
    for folder in folders:
        files += [folder / name for name in (SETTINGS, TEMPLATE, ends.GENERATION, ends.CONFIG)]
        files += sorted((folder / MORE_TEMPLATES).glob("*.jinja"))
    if _is_gguf(checkpoint_path):
        files.append(checkpoint_path)
    return [file for file in dict.fromkeys(files) if file.is_file()]


def find_template(checkpoint_path: Path, tokenizer: str | Path | None = None) -> str | None:
    """The chat template that a model brings along: with the tokenizer that was named, in its folder, or in its GGUF
    file."""
    folder = _tokenizers_folder(tokenizer)
    if folder is not None and (text := _template_in(folder)) is not None:
        return text
    named = Path(tokenizer) if tokenizer else checkpoint_path
    for path in (named, checkpoint_path):
        if _is_gguf(path):
            text = GgufFile.open(path).value("tokenizer.chat_template")
            if isinstance(text, str):
                return text
    folder = _folder(checkpoint_path)
    return _template_in(folder) if folder is not None else None


def _template_in(folder: Path) -> str | None:
    """A folder's template: of files of its own, which replace those in the settings; of several, the one named
    default."""
    files = {path.name.removesuffix(".jinja"): path for path in sorted((folder / MORE_TEMPLATES).glob("*.jinja"))}
    if (folder / TEMPLATE).is_file():
        files.setdefault("default", folder / TEMPLATE)
    if files:
        return _text(files["default"]) if "default" in files else None
    if not (folder / SETTINGS).is_file():
        return None
    told = read_json(folder / SETTINGS).get("chat_template")
    if isinstance(told, list):                  # several by name
        told = {entry.get("name"): entry.get("template") for entry in told if isinstance(entry, dict)}
    if isinstance(told, dict):
        told = told.get("default")
    return told if isinstance(told, str) else None


def _text(path: Path) -> str:
    """The file's text with normalised line ends, because transformers opens it as text."""
    try:
        data = path.read_bytes()[:4 * (jinja_template.MAX_SOURCE + 1)]
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    return data.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")


def _folder(checkpoint_path: Path) -> Path | None:
    """The Hugging Face folder that a checkpoint is, or lies in."""
    if checkpoint_path.is_dir():
        return checkpoint_path
    return checkpoint_path.parent if checkpoint_path.suffix == ".safetensors" else None


def _tokenizers_folder(tokenizer: str | Path | None) -> Path | None:
    """The folder whose settings go with a tokenizer; None for a file of another kind."""
    if not tokenizer:
        return None
    path = Path(tokenizer)
    return path if path.is_dir() else path.parent if path.suffix in (".json", ".model") else None


def _is_gguf(path: Path) -> bool:
    if path.is_dir():
        return False
    try:
        with open(path, "rb") as file:
            return file.read(len(gguf.MAGIC)) == gguf.MAGIC
    except OSError:
        return False


def default_model() -> Path:
    """The project's own model: in the clone, or in the installed package."""
    here = Path(__file__).resolve()
    for root in (here.parents[3], here.parents[1], Path.cwd()):
        if (root / DEFAULT_MODEL).exists():
            return root / DEFAULT_MODEL
    raise ModelError(f"name a model with --model: the project's own ({DEFAULT_MODEL}) is not in this installation")
