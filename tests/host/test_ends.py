"""Shows what ends a model's texts: its own files wherever the vocabulary is, tokens by name, and what is said of too
many."""
import io
import json

import pytest

from bench.conformance import vocabularies as made
from llama2_host.tokenizer import ends, vocabulary
from llama2_host.image.discovery import load_tokenizer, read_files, search_tokenizer
from llama2_host.errors import HostError
from llama2_host.image.model import Model
from llama2_host.progress import Progress
from llama2_host.tokenizer.sentencepiece_model import CONTROL, NORMAL, USER_DEFINED
from llama2_host.tokenizer.base import TokenizerError
from llama2_host.tokenizer import unpack
from llama2_spec.protocol import MAX_STOPS
from tests.host.checkpoints import write_gguf, write_huggingface
from tests.host.generated import random_tensors
from tests.host.test_vocabulary import STORIES, small
from tests.host.vocabularies import gguf_scored


def hugging_face(folder, vocab_size=512, **files):
    """A model of random weights with these files beside it; names have `__` for a dot."""
    write_huggingface(folder, *small(vocab_size))
    for name, value in files.items():
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        (folder / name.replace("__", ".")).write_bytes(data)
    return folder


def notes_of(path, **options):
    """The model, and what was said on the way."""
    notes = io.StringIO()
    notes.isatty = lambda: False
    model = Model.load(path, progress=Progress(notes), **options)
    assert model.data
    return model, notes.getvalue()


MODEL = made.sentencepiece()
SEVERAL = {"eos_token_id": [2, 420, 430]}


def test_a_sentencepiece_model_in_a_folder_has_the_folders_settings(tmp_path):
    folder = hugging_face(tmp_path / "hf", tokenizer__model=MODEL, generation_config__json=SEVERAL,
                          tokenizer_config__json={"tokenizer_class": "LlamaTokenizer", "add_bos_token": False})
    model = Model.load(folder)
    assert model.template.stops == (2, 420, 430) and model.tokenizer.encode("Once upon a time")[0] != 1
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer",
                                                              "add_bos_token": True,
                                                              "add_eos_token": True}))
    ids = Model.load(folder).tokenizer.encode("Once upon a time")
    assert (ids[0], ids[-1]) == (1, 2)


@pytest.mark.parametrize("named", ["folder", "file"])
def test_a_model_ends_where_it_says_with_a_tokenizer_from_elsewhere(tmp_path, named):
    folder = hugging_face(tmp_path / "hf", generation_config__json=SEVERAL)
    other = tmp_path / "other"
    other.mkdir()
    (other / "tokenizer.json").write_bytes(made.as_json(made.llama("prepend", chat=False)))
    (other / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    (other / "generation_config.json").write_text(json.dumps({"eos_token_id": 99}))
    model = Model.load(folder, tokenizer=other if named == "folder" else other / "tokenizer.json")
    assert model.template.stops == (2, 420, 430)
    # A model that says nothing ends where the vocabulary's folder does.
    assert load_tokenizer(tmp_path / "model.bin", other).stop_ids == (2, 99)


def test_an_image_ends_where_it_says_with_another_tokenizer(tmp_path):
    folder = hugging_face(tmp_path / "hf", tokenizer__model=MODEL, generation_config__json=SEVERAL)
    (tmp_path / "m.llm").write_bytes(Model.load(folder).data)
    (tmp_path / "other.json").write_bytes(made.as_json(made.llama("prepend", chat=False)))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<s>"}))
    model = Model.load(tmp_path / "m.llm", tokenizer=tmp_path / "other.json")
    assert model.template.stops == (1, 2, 420, 430) and model.tokenizer.special_texts == {"eos_token": "<s>"}


def test_a_gguf_file_ends_where_it_says_with_a_tokenizer_from_elsewhere(tmp_path):
    scored = vocabulary.load(STORIES)
    path = write_gguf(tmp_path / "m.gguf", *small(514),
                      vocabulary=gguf_scored(scored, extra=["<|im_start|>", "<|im_end|>"]))
    (tmp_path / "tokenizer.json").write_bytes(made.as_json(made.llama("prepend")))
    assert load_tokenizer(path, tmp_path / "tokenizer.json", 514).stop_ids == (2, 513)


@pytest.mark.parametrize("name, type", [("<|im_end|>", NORMAL), ("<|eot_id|>", CONTROL), ("<EOT>", USER_DEFINED),
                                        ("<end_of_turn>", NORMAL),
                                        ("<end_of_utterance>", NORMAL), ("<|file_sep|>", NORMAL),
                                        ("<｜end▁of▁sentence｜>", CONTROL)])
def test_tokens_of_gguf_files_end_by_name_whatever_their_type(tmp_path, name, type):
    made.gguf(tmp_path / "m.gguf", "llama", extra=[(name, type)])
    read = vocabulary.load(tmp_path / "m.gguf")
    assert read.stop_ids == (2, 512) and read.encode(f"a{name}", bos=False)[-1] == 512 and read.decode([512]) == ""


def test_user_defined_tokens_are_shown(tmp_path):
    made.gguf(tmp_path / "m.gguf", "llama", extra=[("<think>", USER_DEFINED), ("\n\n", USER_DEFINED),
                                                   ("<tool>", CONTROL)])
    read = unpack(vocabulary.load(tmp_path / "m.gguf").pack())
    ids = read.encode("<think>a\n\nb<tool>", bos=False)
    assert ids.count(512) == ids.count(513) == ids.count(514) == 1
    assert read.decode(ids) == "<think> a\n\n b"


def test_an_eos_token_that_is_not_special_ends(tmp_path):
    files = {"tokenizer__json": made.llama("prepend",
                                           added=[made.token(0, "<unk>"), made.token(1, "<s>"), made.token(2, "</s>"),
                                                  made.token(513, "<|im_end|>", special=False)]),
             "tokenizer_config__json": {"eos_token": "<|im_end|>"}}
    model = Model.load(hugging_face(tmp_path / "hf", 514, **files))
    assert 513 in model.template.stops and model.template.special_texts["eos_token"] == "<|im_end|>"


@pytest.mark.parametrize("files", [
    {"tokenizer_config__json": {"added_tokens_decoder": {"512": made.token(512, "<|im_start|>"),
                                                         "513": made.token(513, "<|im_end|>")}}},
    {"tokenizer_config__json": {"additional_special_tokens": made.CHAT}},
    {"added_tokens__json": {"<|im_start|>": 512, "<|im_end|>": 513}},
    {"tokenizer_config__json": {"eos_token": "<|im_end|>", "bos_token": "<|im_start|>"}},
    {"special_tokens_map__json": {"eos_token": "<|im_end|>", "bos_token": "<|im_start|>"}}])
@pytest.mark.parametrize("kind", ["tokenizer.json", "tokenizer.model"])
def test_added_tokens_are_tokens_wherever_they_are_named(tmp_path, files, kind):
    for told in files.values():
        for token in told.get("added_tokens_decoder", {}).values():
            token.pop("id", None)
    data = made.as_json(made.llama("first")) if kind == "tokenizer.json" else \
        made.sentencepiece(extra=[(text, NORMAL) for text in made.CHAT])
    folder = hugging_face(tmp_path / "hf", 514, **files, **{kind.replace(".", "__"): data})
    ids = Model.load(folder).tokenizer.encode("<|im_start|>user\nHi<|im_end|>\n", bos=False)
    assert ids.count(512) == ids.count(513) == 1


def test_more_ends_than_a_request_takes_are_named(tmp_path):
    folder = hugging_face(tmp_path / "hf", tokenizer__model=MODEL,
                          generation_config__json={"eos_token_id": [2, *range(300, 302 + MAX_STOPS)]})
    model, notes = notes_of(folder)
    assert len(model.template.stops) == MAX_STOPS and len(model.template.left_out) == 3
    assert f"3 end tokens more than a request takes ({MAX_STOPS})" in notes
    assert len(model.tokenizer.stop_ids) == MAX_STOPS + 3


def test_names_are_a_list_without_repetitions():
    assert len(set(ends.NAMES)) == len(ends.NAMES)
    assert ends.by_llama_cpp({"<|end|>": 5, "<|return|>": 6, "<|call|>": 7, "<|fim_pad|>": 8, "</s>": 9},
                             [1]) == [1, 6, 7, 8, 9]
    assert ends.by_llama_cpp({"</s>": 9, "<|tool_response>": 10}, [1]) == [1, 10]


# What was read, and what could not be -------------------------------------------------------------

def tokenizer_folder(folder, entry, **settings):
    """A folder with a vocabulary in which the last entry has another text."""
    described = made.llama("prepend", chat=False)
    described["model"]["vocab"][entry] = described["model"]["vocab"].pop("▁there")
    described["model"]["merges"] = [pair for pair in described["model"]["merges"]
                                    if "▁there" not in (pair[0], pair[1], "".join(pair))]
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_bytes(made.as_json(described))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_the_cache_tells_tokenizers_apart(tmp_path):
    folder = hugging_face(tmp_path / "hf")
    one, two = tokenizer_folder(tmp_path / "one", "one"), tokenizer_folder(tmp_path / "two", "two")
    text = lambda tokenizer: Model.load(folder, tokenizer=tokenizer).tokenizer
    first = text(one)
    id = next(id for id in range(512) if first.decode([id]) == "one")
    assert text(two).decode([id]) == "two" and text(one).decode([id]) == "one"
    # What lies beside a file that is named is read, too, and so part of the name of what is kept.
    assert Model.load(folder, tokenizer=one / "tokenizer.json").template.stops == (2,)
    tokenizer_folder(one, "one", eos_token="<s>")
    assert Model.load(folder, tokenizer=one / "tokenizer.json").template.stops == (1, 2)


def test_every_file_that_was_read_is_listed(tmp_path):
    folder = hugging_face(tmp_path / "hf", generation_config__json=SEVERAL, chat_template__jinja=b"x",
                          added_tokens__json={})
    other = tokenizer_folder(tmp_path / "other", "other")
    (other / "special_tokens_map.json").write_text("{}")
    (other / "additional_chat_templates").mkdir()
    (other / "additional_chat_templates" / "tools.jinja").write_text("t")
    names = {str(file.relative_to(tmp_path)) for file in read_files(folder, other)}
    assert names == {"other/tokenizer.json", "other/tokenizer_config.json", "other/special_tokens_map.json",
                     "other/additional_chat_templates/tools.jinja", "hf/chat_template.jinja",
                     "hf/generation_config.json",
                     "hf/config.json"}
    assert read_files(tmp_path / "m.bin", STORIES) == [STORIES]


@pytest.mark.parametrize("data, reason", [
    (b"nonsense", "no llama2.c tokenizer"), (b"{}", "no tokenizer.json"),
    (made.as_json(made.llama("prepend") | {"model": {"type": "Unigram"}}), "a vocabulary of type Unigram"),
    (made.as_json(made.llama("prepend", chat=True)), "has 514 entries, the model has 512")])
def test_a_tokenizer_that_cannot_be_used_is_named(tmp_path, data, reason):
    folder = hugging_face(tmp_path / "hf", tokenizer__json=data)
    model, notes = notes_of(folder)
    assert model.tokenizer is None and reason in model.tokenizer_problem and reason in notes
    # The next one in the folder is taken, and the note stays.
    (folder / "tokenizer.model").write_bytes(MODEL)
    model, notes = notes_of(folder)
    assert model.tokenizer.vocab_size == 512 and reason in notes and not model.tokenizer_problem


def test_a_chat_without_a_usable_tokenizer_says_why(tmp_path):
    from llama2_host.connection import connect
    folder = hugging_face(tmp_path / "hf", tokenizer__json=b"{}")
    with connect(golden=True, model=folder) as backend, pytest.raises(HostError, match="tokenizer cannot be used: .*no "
                                                                      "tokenizer.json"):
        _ = backend.tokenizer


def test_a_dangling_link_is_named(tmp_path):
    folder = hugging_face(tmp_path / "hf")
    (folder / "tokenizer.json").symlink_to(tmp_path / "gone")
    found, reasons = search_tokenizer(folder, 512)
    assert found is None and len(reasons) == 1 and "tokenizer.json: cannot be read: is a link to nothing" in reasons[0]
    with pytest.raises(TokenizerError, match="is a link to nothing"):
        vocabulary.load(folder)


def test_unrelated_vocabularies_beside_a_checkpoint_are_no_news(tmp_path):
    from llama2_host.checkpoint.write import pack_v0
    from tests.host.tiny import CONFIG, TOKENIZER
    (tmp_path / "model.bin").write_bytes(pack_v0(CONFIG, random_tensors(CONFIG)))
    (tmp_path / "tok259.bin").write_bytes(STORIES.read_bytes())
    assert "tok259.bin: tokenizer has 512 entries, the model has 259" in notes_of(tmp_path / "model.bin")[1]
    (tmp_path / "tokenizer.bin").write_bytes(TOKENIZER.pack())
    model, notes = notes_of(tmp_path / "model.bin")
    assert "not used" not in notes and model.tokenizer.vocab_size == 259


def test_a_model_with_fewer_rows_than_special_tokens_is_read(tmp_path):
    """A token that settings name and no row of the model holds is none; transformers makes one that no model could
    read."""
    folder = hugging_face(tmp_path / "hf", 514, tokenizer__json=made.llama("prepend"),
                          tokenizer_config__json={"pad_token": "<new>"})
    assert Model.load(folder).tokenizer.vocab_size == 514
    assert vocabulary.load(folder / "tokenizer.json").vocab_size == 515
