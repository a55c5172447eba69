"""Shows that every kind of vocabulary encodes and decodes as the package or file that it comes from, whole and as a
stream."""
import base64
import dataclasses
import json
from pathlib import Path

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings, strategies as st

from llama2_host.tokenizer import llama3_ranks, section, vocabulary
from llama2_host.tokenizer.json_tokenizer import JsonTokenizer
from llama2_host.tokenizer.base import Decoder, Tokenizer, TokenizerError
from llama2_host.tokenizer import load as load_tokenizer, unpack
from tests.host.checkpoints import write_gguf, write_huggingface
from tests.host.generated import random_tensors
from tests.host.test_containers import CONFIG
from tests.host.vocabularies import (SPECIALS, TEXT, byte_level, gguf_byte_level, gguf_scored, with_fallback,
                                     write_folder)

REPO = Path(__file__).parents[2]
STORIES = REPO / "models" / "stories.tokenizer.bin"
TEXTS = ["", " ", "a", "Once upon a time", "  two  spaces  ", "line\nbreak\n\n", "tab\there", "x = 1234",
         "I don't, they've",
         "Zoë said: “für 3 €, 日本語 🐕!”", "THE END", "naïve", "\x00\x7f", "�"]
# Special tokens in a text are no letters to a tokenizer.json: test_special_tokens_in_a_text has them
NAMES = [*SPECIALS, "<unk>", "<s>", "</s>"]
texts = st.text(st.characters(exclude_characters="▁", exclude_categories=["Cs"]), max_size=40).filter(
    lambda text: not any(name in text for name in NAMES))
fuzz = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def streamed(tokenizer, ids):
    """Text told token by token; no piece ends in half a character."""
    decoder = Decoder(tokenizer)
    parts = [decoder.feed(id) for id in ids]
    assert "�" not in "".join(parts)
    return "".join(parts) + decoder.finish()


@pytest.fixture(scope="module")
def smol(tmp_path_factory):
    folder = write_folder(tmp_path_factory.mktemp("smol"), byte_level(), bos_token="<|im_start|>",
                          eos_token="<|im_end|>",
                          generation={"bos_token_id": 1, "eos_token_id": [2, 0]})
    return load_tokenizer(folder, 512)


# tokenizer.json -----------------------------------------------------------------------------------

@fuzz
@given(text=texts)
def test_byte_level_equals_its_package(smol, text):
    ids = smol.encode(text)
    assert ids == byte_level().encode(text).ids
    assert smol.decode(ids) == text == byte_level().decode(ids)
    if "�" not in text:
        assert streamed(smol, ids) == text


def test_byte_level_ids(smol):
    assert isinstance(smol, JsonTokenizer)
    assert (smol.bos_id, smol.eos_id, smol.stop_ids, smol.adds_bos, smol.vocab_size) == (1, 2, (2, 0), False, 512)
    assert smol.encode("<|im_start|>user\nHi<|im_end|>")[0] == 1 and smol.encode("x<|im_end|>")[-1] == 2
    assert smol.decode([1, *smol.encode("Hi"), 2, 511]) == "Hi"
    assert smol.encode("a\udcff") == smol.encode("a�")


def test_never_prints_half_a_character(smol):
    ids = smol.encode("🐕€")
    decoder = Decoder(smol)
    assert len(ids) > 3                          # bytes of their own
    pieces = [decoder.feed(id) for id in ids]
    assert [piece for piece in pieces if piece] == ["🐕", "€"] and pieces[0] == ""


@pytest.mark.parametrize("text", ["<s>", "a</s> <s>b", "x<unk>y", "<|im_start|>a<|im_end|>", "<|endoftext|>"])
def test_special_tokens_in_a_text(smol, text):
    package = with_fallback(load_tokenizer(STORIES), metaspace=False)
    for ours, theirs in ((JsonTokenizer(package.to_str(), bos_id=1, eos_id=2), package), (smol, byte_level())):
        assert ours.encode(text) == theirs.encode(text).ids


@pytest.mark.parametrize("metaspace", [False, True])
@fuzz
@given(text=texts)
def test_llama2s_json_equals_its_package_and_the_scored_vocabulary(metaspace, text):
    scored = load_tokenizer(STORIES)
    package = with_fallback(scored, metaspace=metaspace)
    ours = JsonTokenizer(package.to_str(), bos_id=1, eos_id=2)
    assert ours.adds_bos
    if text:                                     # an empty text is only BOS with us
        assert ours.encode(text) == package.encode(text).ids
    if text and not metaspace:
        assert ours.encode(text) == scored.encode(text)
    assert ours.decode(ours.encode(text)) == package.decode(package.encode(text).ids)
    if not metaspace:                            # which has one space before the text, whatever it begins with
        assert ours.decode(ours.encode(text)) == scored.decode(scored.encode(text)) == text


def test_settings_beside_the_file(tmp_path):
    for beside, generation, model, expected in [
            ({}, None, {}, (None, None, (2, 0), False)),
            ({"bos_token": {"content": "<|endoftext|>"}, "eos_token": "<|im_end|>", "add_bos_token": True}, None, {},
             (0, 2, (2, 0), False)),            # the tokenizer.json says how a text begins, as transformers 5 has it
            ({}, {"eos_token_id": 0}, {"bos_token_id": 1}, (1, 0, (0, 2), False)),
            ({"eos_token": "nonsense"}, None, {"eos_token_id": [1, 0, True, 99999, -1, "x"]},
             (None, 400, (400, 1, 0, 2), False))]:
        folder = write_folder(tmp_path, byte_level(), generation=generation or {}, **beside)
        (folder / "config.json").write_text(json.dumps(model))
        read = load_tokenizer(folder / "tokenizer.json")
        assert (read.bos_id, read.eos_id, read.stop_ids, read.adds_bos) == expected


def test_a_vocabulary_may_be_smaller_than_the_model_not_larger(tmp_path):
    folder = write_folder(tmp_path, byte_level())
    assert load_tokenizer(folder, 448).vocab_size == 448
    with pytest.raises(TokenizerError, match="has 400 entries, the model has 399"):
        load_tokenizer(folder, 399)


@pytest.mark.parametrize("change, message", [
    (lambda d: d["model"].update(type="Unigram"), "a vocabulary of type Unigram"),
    (lambda d: d["model"].update(type="WordPiece"), "a vocabulary of type WordPiece"),
    (lambda d: d.update(decoder={"type": "WordPiece", "prefix": "##", "cleanup": True}), "a decoder of type"),
    (lambda d: d.update(decoder=None), "a decoder of type none"),
    (lambda d: d.pop("model"), "no tokenizer.json"), (lambda d: d["model"].pop("vocab"), "damaged tokenizer.json"),
    (lambda d: d["model"]["merges"].append(["qqq", "zzz"]), "damaged tokenizer.json"),
    (lambda d: d["model"]["vocab"].update(far=1 << 30), "ids up to 1073741824 for 401 entries")])
def test_refuses_other_tokenizer_json(tmp_path, change, message):
    described = json.loads(byte_level().to_str())
    change(described)
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    with pytest.raises(TokenizerError, match=message) as refused:
        load_tokenizer(tmp_path / "tokenizer.json")
    assert "\n" not in str(refused.value) and str(tmp_path) in str(refused.value)


@pytest.mark.parametrize("lies", ["alone", "in a folder", "in an image"])
@pytest.mark.parametrize("change", [lambda d: d["model"]["vocab"].update(far=1 << 31),
                                    lambda d: d["added_tokens"][0].update(id=1 << 31)])
def test_ids_far_beyond_the_entries_never_reach_the_package(tmp_path, monkeypatch, lies, change):
    """Which would make room for every id up to them."""
    described = json.loads(byte_level().to_str())
    change(described)
    if lies == "in a folder":
        write_folder(tmp_path, byte_level())
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    monkeypatch.setattr(tokenizers, "Tokenizer", None)
    with pytest.raises(TokenizerError, match=f"ids up to {1 << 31} for 40[01] entries: copy the file again"):
        if lies == "in an image":
            unpack(section.pack("json", json.dumps(described), {"stop_ids": []}))
        load_tokenizer(tmp_path / "tokenizer.json")


def test_refuses_a_folder_without_tokenizer(tmp_path):
    with pytest.raises(TokenizerError, match="no tokenizer in this folder"):
        load_tokenizer(tmp_path)


# In the image -------------------------------------------------------------------------------------

def test_packed_and_unpacked(smol, tmp_path):
    llama3 = vocabulary.from_ranks(ranks(), "llama3")
    chat = load_tokenizer(write_gguf(tmp_path / "chat.gguf", *small(516), vocabulary=gguf_scored(
        load_tokenizer(STORIES), extra=["<|im_start|>", "<|im_end|>", "a b", "<|end|>"])), 516)
    for tokenizer in (smol, llama3, chat):
        again = unpack(tokenizer.pack())
        assert type(again) is type(tokenizer) and again.pack() == tokenizer.pack()
        for name in ("vocab_size", "bos_id", "eos_id", "stop_ids", "adds_bos", "specials", "silent_ids"):
            assert getattr(again, name) == getattr(tokenizer, name), name
        for text in TEXTS:
            assert again.encode(text) == tokenizer.encode(text)
            assert again.decode(again.encode(text)) == text


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:5], lambda data: b"TOKZ" + data,
                                    lambda data: data[:40] + bytes([data[40] ^ 8]) + data[41:]])
def test_refuses_a_damaged_section(smol, damage):
    with pytest.raises(TokenizerError, match="damaged tokenizer section"):
        unpack(damage(smol.pack()))


# GGUF ---------------------------------------------------------------------------------------------

def small(vocab_size, seq_len=24):
    config = dataclasses.replace(CONFIG, vocab_size=vocab_size, seq_len=seq_len)
    return config, random_tensors(config)


@fuzz
@given(text=texts)
def test_gguf_byte_level_equals_the_json(gguf_smol, text):
    assert gguf_smol.encode(text) == byte_level().encode(text).ids
    assert gguf_smol.decode(gguf_smol.encode(text)) == text


@pytest.fixture(scope="module")
def gguf_smol(tmp_path_factory):
    path = write_gguf(tmp_path_factory.mktemp("gguf") / "m.gguf", *small(400), vocabulary=gguf_byte_level(byte_level()))
    return load_tokenizer(path, 400)


def test_gguf_byte_level_ids(gguf_smol):
    assert (gguf_smol.bos_id, gguf_smol.eos_id, gguf_smol.stop_ids, gguf_smol.adds_bos) == (0, 2, (2, 0), False)
    assert gguf_smol.specials == {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}


def test_gguf_with_llama3s_vocabulary(tmp_path):
    """Words that are entries are found whole, and a text begins with BOS though the file does not say so."""
    llama3 = vocabulary.from_ranks(ranks(), "llama3")
    path = write_gguf(tmp_path / "m.gguf", *small(756), vocabulary=gguf_byte_level(
        tokenizers.Tokenizer.from_str(llama3.content), pre="llama-bpe", bos=500, eos=501))
    read = load_tokenizer(path, 756)
    assert (read.bos_id, read.stop_ids, read.adds_bos) == (500, (501, 508, 509), True)
    for text in [*TEXTS, "the quick brown foxes juggle vegetables", "<|start_header_id|>user<|end_header_id|>"]:
        assert read.encode(text) == llama3.encode(text)
    # An entry that no merges make: only who looks for whole words first finds it.
    described = json.loads(llama3.content)
    del described["model"]["merges"][1:]
    path = write_gguf(tmp_path / "n.gguf", *small(756), vocabulary=gguf_byte_level(
        tokenizers.Tokenizer.from_str(json.dumps(described)), pre="llama-bpe", bos=500, eos=501))
    word = max((piece for piece in ranks() if piece.isalpha()), key=len)
    assert load_tokenizer(path).encode(word.decode()) == [500, ranks().index(word)]


def test_a_list_of_texts_that_ends_with_the_file(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", *small(400), vocabulary=gguf_byte_level(byte_level()))
    data = path.read_bytes()
    path.write_bytes(data[:data.index(b"tokenizer.ggml.tokens") + 1000])
    with pytest.raises(TokenizerError, match="truncated: it ends before byte"):
        load_tokenizer(path)


def test_gguf_scored_is_llama2s_own(tmp_path):
    scored = load_tokenizer(STORIES)
    path = write_gguf(tmp_path / "m.gguf", *small(512), vocabulary=gguf_scored(scored))
    read = load_tokenizer(path, 512)
    for text in TEXTS:
        assert read.encode(text) == scored.encode(text) and read.decode(read.encode(text)) == text
    # as llama.cpp takes a prompt, llama2.c does not
    assert read.encode("a</s>", bos=False) == [*scored.encode("a", bos=False), 2]
    assert vocabulary._fitting(scored, 512, path) is scored
    with pytest.raises(TokenizerError, match="has 512 entries, the model has 511"):
        load_tokenizer(path, 511)


def test_gguf_scored_with_tokens_of_a_chat_model(tmp_path):
    scored = load_tokenizer(STORIES)
    path = write_gguf(tmp_path / "m.gguf", *small(514),
                      vocabulary=gguf_scored(scored, extra=["<|im_start|>", "<|im_end|>"]))
    chat = load_tokenizer(path, 514)
    assert chat.encode("Once upon a time") == scored.encode("Once upon a time")
    ids = chat.encode("<|im_start|>user\nHi<|im_end|>\n", bos=False)
    assert ids[0] == 512 and ids.count(513) == 1 and chat.stop_ids == (2, 513)
    # A space after each special token, as llama.cpp has it; a token of type 4 is shown, one that ends is not
    assert chat.decode(ids) == "<|im_start|> user\nHi \n"
    assert chat.encode("</s><s>", bos=False) == [2, 1]


@pytest.mark.parametrize("pre, message", [("qwen2", "text is split as 'qwen2' has it"),
                                          ("", "text is split as 'None' has it")])
def test_refuses_unknown_splits(tmp_path, pre, message):
    path = write_gguf(tmp_path / "m.gguf", *small(400), vocabulary=gguf_byte_level(byte_level(), pre=pre))
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(path)


def test_refuses_gguf_without_vocabulary(tmp_path):
    with pytest.raises(TokenizerError, match="a vocabulary of type 'None'"):
        load_tokenizer(write_gguf(tmp_path / "m.gguf", *small(40)))


# LLaMA-3 ------------------------------------------------------------------------------------------

def ranks(size: int = 500) -> list[bytes]:
    """A vocabulary as tiktoken's: bytes first, then pieces in the order in which they merge."""
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    trained.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([
        tokenizers.pre_tokenizers.Split(tokenizers.Regex(llama3_ranks.LLAMA3_SPLIT), "isolated"),
        tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    trained.train_from_iterator(TEXT, tokenizers.trainers.BpeTrainer(
        vocab_size=size, show_progress=False, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet()))
    plain = JsonTokenizer(json.dumps(json.loads(trained.to_str()) | {"decoder": {
        "type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}}))
    return [plain.piece(id, False) for id in range(plain.vocab_size)]


def merge_by_rank(piece: bytes, order: dict[bytes, int]) -> list[int]:
    """tiktoken's rule, as its description has it: a word that is an entry is one; else the lowest rank merges first."""
    if piece in order:
        return [order[piece]]
    parts = [piece[i:i + 1] for i in range(len(piece))]
    while True:
        pairs = [(order[a + b], i) for i, (a, b) in enumerate(zip(parts, parts[1:])) if a + b in order]
        if not pairs:
            return [order[part] for part in parts]
        _, at = min(pairs)
        parts[at:at + 2] = [parts[at] + parts[at + 1]]


@pytest.fixture(scope="module")
def llama3(tmp_path_factory):
    path = tmp_path_factory.mktemp("llama3") / "tokenizer.model"
    path.write_bytes(b"".join(base64.b64encode(piece) + b" %d\n" % rank for rank, piece in enumerate(ranks())))
    return load_tokenizer(path, 756)


@fuzz
@given(text=st.text("abc enotd'lrs 0123456789\n.,é日", max_size=30))
def test_llama3_merges_by_rank(llama3, text):
    order = {piece: rank for rank, piece in enumerate(ranks())}
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(llama3_ranks.LLAMA3_SPLIT), "isolated")
    expected = [id for word, _ in split.pre_tokenize_str(text) for id in merge_by_rank(word.encode(), order)]
    assert llama3.encode(text) == [500, *expected]
    assert llama3.decode(llama3.encode(text)) == text


def test_llama3_special_tokens(llama3):
    assert (llama3.vocab_size, llama3.bos_id, llama3.eos_id, llama3.stop_ids) == (756, 500, 501, (501, 508, 509))
    assert llama3.encode("<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>", bos=False)[0] == 506
    assert llama3.specials["<|reserved_special_token_0|>"] == 502 and llama3.specials["<|python_tag|>"] == 510
    assert len(llama3.specials) == 256 and llama3.decode([500, *llama3.encode("Hi", bos=False), 509]) == "Hi"


def test_llama3_as_tokenizer_bin(llama3, tmp_path):
    """llama2.c's layout with ranks for scores, as its LLaMA-3 descendants write it."""
    texts = [text.encode() for text, _ in sorted(llama3.specials.items(), key=lambda item: item[1])]
    plain = Tokenizer([*ranks(), *texts], [float(rank) for rank in range(756)])
    (tmp_path / "tokenizer.bin").write_bytes(plain.pack_pieces())
    again = load_tokenizer(tmp_path / "tokenizer.bin", 756)
    assert again.pack() == llama3.pack() and again.encode("the fox") == llama3.encode("the fox")
    (tmp_path / "tokenizer.bin").write_bytes(Tokenizer([b"a", *ranks()[1:], *texts], plain.scores).pack_pieces())
    with pytest.raises(TokenizerError, match="an entry twice"):
        load_tokenizer(tmp_path / "tokenizer.bin")


@pytest.mark.parametrize("lines", [b"IQ== 0\nIg== 2\n", b"IQ== 0\nIQ== 1\n", b"IQ== 0\nnonsense\n",
                                   b"IQ== 0\n\xff\xff 1\n", b"IQ== 0\n"])
def test_refuses_damaged_ranks(tmp_path, lines):
    (tmp_path / "tokenizer.model").write_bytes(lines)
    with pytest.raises(TokenizerError, match="damaged LLaMA-3 tokenizer"):
        load_tokenizer(tmp_path / "tokenizer.model")


# Beside a checkpoint ------------------------------------------------------------------------------

def test_is_found_beside_the_weights(tmp_path):
    from llama2_host.image.model import Model
    folder = write_huggingface(tmp_path / "hf", *small(400))
    write_folder(folder, byte_level(), eos_token="<|im_end|>")
    gguf = write_gguf(tmp_path / "m.gguf", *small(400), vocabulary=gguf_byte_level(byte_level()))
    for path in (folder, folder / "model.safetensors", gguf):
        model = Model.load(path)
        assert model.tokenizer.encode("Once") == byte_level().encode("Once").ids
        assert model.template.stops == (2, 0) and model.template.name == "plain"
