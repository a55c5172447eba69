"""Finds the tokens that end a text: those that a model's files name, and those with well-known names."""
# Ref: https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp, special_eog_ids, for the names;
# https://huggingface.co/docs/transformers/main_classes/text_generation for generation_config.json

from pathlib import Path

from llama2_host.checkpoint.errors import CheckpointError
from llama2_host.checkpoint.fields import read_json
from llama2_host.tokenizer.base import TokenizerError

GENERATION, CONFIG = "generation_config.json", "config.json"
#: texts of tokens that end a turn wherever they are in a vocabulary
NAMES = ("</s>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|endoftext|>", "<|end|>",
         "<end_of_turn>",
         "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<end_of_utterance>",
         "<eos>",
         "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~[")
#: of each row, the first token that there is ends a text too: a code model goes on with another file there
FILL_IN = (("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
           ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"), ("<|file_sep|>",))
HARMONY = ({"<|return|>", "<|call|>"}, {"<|call|>", "<|flush|>"}, {"<|calls|>", "<|flush|>"})
AS_TEXT = ("<|end|>", "</s>")      #: where they end nothing, they are not control tokens either
NO_S = ("<|tool_response>", "<|plamo:eos|>")


def ids_of(value) -> list[int]:
    """Ids of a field that holds one or several."""
    values = value if isinstance(value, list) else [value]
    return [id for id in values if isinstance(id, int) and not isinstance(id, bool) and id >= 0]


def of_folder(folder: Path) -> list[int]:
    """Ids at which the model in a folder ends: those of generation_config.json, else those of config.json."""
    return ids_of(beside(folder, GENERATION).get("eos_token_id")) or ids_of(beside(folder, CONFIG).get("eos_token_id"))


def by_default(folder: Path) -> list[int]:
    """The ids at which transformers ends a LLaMA or Mistral whose files name none."""
    silent = (not (folder / GENERATION).is_file() and (folder / CONFIG).is_file()
              and "eos_token_id" not in beside(folder, CONFIG))
    return [2] if silent else []


def begins(folder: Path) -> list[int]:
    """BOS, from the same files."""
    return ids_of(beside(folder, GENERATION).get("bos_token_id")) or ids_of(beside(folder, CONFIG).get("bos_token_id"))


def beside(folder: Path, name: str) -> dict:
    """The object in a JSON file of a folder, empty where there is none."""
    try:
        return read_json(folder / name) if (folder / name).is_file() else {}
    except CheckpointError as error:
        raise TokenizerError(str(error)) from None


def named(specials: dict[str, int]) -> list[int]:
    """Special tokens that end a turn by their names."""
    return [specials[name] for name in NAMES if name in specials]


def by_llama_cpp(ids: dict[str, int], told: list[int]) -> list[int]:
    """All ids at which llama.cpp ends, by the texts of a whole vocabulary; ``told`` are the ids in the file's keys."""
    first = (next((name for name in row if name in ids), None) for row in FILL_IN)
    ends = [*told, *sorted([*named(ids), *(ids[name] for name in first if name is not None)])]
    texts = {text for text, id in ids.items() if id in ends}
    if any(pair <= texts for pair in HARMONY):      # there "<|end|>" ends a message, not the turn
        ends = [id for id in ends if id != ids.get("<|end|>")]
    if texts & set(NO_S):                           # there "</s>" is a tag of HTML
        ends = [id for id in ends if id != ids.get("</s>")]
    return list(dict.fromkeys(ends))


def few(ids, vocab_size: int) -> tuple[int, ...]:
    """The ids that the vocabulary has, each once, in order."""
    return tuple(dict.fromkeys(id for id in ids if id is not None and id < vocab_size))
