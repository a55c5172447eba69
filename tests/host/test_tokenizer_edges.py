"""Vocabularies that are damaged, of another kind, or written as few tools write them: each has its line, or its
meaning."""
import base64
import json
import zlib
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models, processors

from llama2_host.tokenizer import huggingface_tokenizer as folder
from llama2_host.tokenizer import sentencepiece_json, sentencepiece_model, unpacking
from llama2_host.tokenizer import section
from llama2_host.tokenizer.base import TokenizerError
from llama2_host.tokenizer.gguf_vocabulary import Entries, _byte_level, _scored
from llama2_host.tokenizer.sentencepiece_model import BPE, BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, Model
from llama2_host.tokenizer.sentencepiece_tokenizer import SentencePieceTokenizer, expect_bpe

HERE = Path("here")


# sentencepiece ------------------------------------------------------------------------------------


def varint(value):
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def of_bytes(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


@pytest.mark.parametrize("data, what", [
    (b"", "no pieces"), (b"\x80" * 11, "more than 64 bits"),
    (of_bytes(2, of_bytes(3, b"bpe")), "model_type is of another type"),
    (of_bytes(2, varint(44 << 3) + varint(7)), "unk_surface is of another type")])
def test_a_model_that_is_none(data, what):
    with pytest.raises(ValueError, match=what):
        sentencepiece_model.parse(data)


def test_settings_of_a_model():
    trainer = of_bytes(44, "?".encode()) + varint(40 << 3) + varint((1 << 64) - 1) + varint(35 << 3) + varint(1)
    model = sentencepiece_model.parse(of_bytes(1, of_bytes(1, b"a")) + of_bytes(2, trainer))
    assert (model.unk_surface, model.unk_id, model.byte_fallback, model.pieces) == ("?", -1, True, ["a"])


def test_a_model_of_two_pieces_is_none():
    with pytest.raises(TokenizerError, match="2 pieces, expected unknown, BOS, EOS and more"):
        expect_bpe(Model(pieces=["a", "b"], model_type=BPE), "here")


def model_of(**settings):
    pieces = ["<unk>", "<s>", "</s>", "<0x41>", "▁", "a", "▁a", "own"]
    kinds = [UNKNOWN, CONTROL, CONTROL, BYTE, NORMAL, NORMAL, NORMAL, USER_DEFINED]
    return Model(pieces=pieces, scores=[-float(id) for id in range(8)], kinds=kinds, model_type=BPE, **settings)


@pytest.mark.parametrize("dummy_prefix, extra, first", [(True, True, b"a"), (False, True, b"a"), (False, False, b" a")])
def test_the_bytes_of_a_piece(dummy_prefix, extra, first):
    tokenizer = SentencePieceTokenizer.__new__(SentencePieceTokenizer)
    tokenizer._model = model_of(dummy_prefix=dummy_prefix, remove_extra_whitespaces=extra)
    assert tokenizer.piece(3, False) == b"A" and tokenizer.piece(0, False) == " ⁇ ".encode()
    assert tokenizer.piece(6, False) == b" a" and tokenizer.piece(6, True) == first
    tokenizer._model.pieces[3] = "<0x4_>"
    assert tokenizer.piece(3, False) == b"<0x4_>"


@pytest.mark.parametrize("settings, text, ids", [
    (dict(dummy_prefix=True, remove_extra_whitespaces=True), "  a", [6]),
    (dict(dummy_prefix=False, remove_extra_whitespaces=True), " a ", [5]),
    (dict(dummy_prefix=False, remove_extra_whitespaces=False, escape_whitespaces=False), "a", [5]),
    (dict(dummy_prefix=False, remove_extra_whitespaces=False, byte_fallback=True), "aA", [5, 3])])
def test_a_general_class_encodes_as_its_model_says(settings, text, ids):
    told = {}
    backend = sentencepiece_json.backend_of_model(model_of(**settings), told, {})
    assert backend.encode(text, add_special_tokens=False).ids == ids
    assert told["bos_token"] == "<s>" and str(told["additional_special_tokens"][0]) == "<s>"
    if settings["dummy_prefix"] or settings.get("byte_fallback"):
        assert backend.decode(ids, skip_special_tokens=False) == text.strip()


def test_a_model_without_an_end_names_none():
    told = {}
    sentencepiece_json.backend_of_model(model_of(eos_id=-1), told, {7: AddedToken("own")})
    assert "eos_token" not in told and told["bos_token"] == "<s>"


# GGUF ---------------------------------------------------------------------------------------------


def entries(texts, types=None, **values):
    values = {"tokens": texts, "token_type": types, **values}
    return Entries(values.get, HERE), values.get


@pytest.mark.parametrize("texts", [None, ["a", "b"], ["a", "b", 3]])
def test_no_vocabulary(texts):
    with pytest.raises(TokenizerError, match="no vocabulary in this file"):
        entries(texts)


def test_types_that_a_file_has_wrong_are_corrected():
    texts = ["<unk>", "<s>", "</s>", "<|im_end|>", "a"]
    found, _ = entries(texts, [2, 3, 3, 1, 1])
    found.correct({3})
    assert found.types[3] == CONTROL and found.types[2] == NORMAL, "</s> ends nothing here: it is text"


@pytest.mark.parametrize("scores", [[1.0], "none", [0.0, float("nan"), 1.0]])
def test_scores_that_are_missing_or_no_numbers(scores):
    found, value = entries(["a", "b", "c"], scores=scores)
    with pytest.raises(TokenizerError, match="3 entries without as many scores"):
        _scored(value, found, {}, HERE)


@pytest.mark.parametrize("merges", [None, ["a b", 3], ["a b c"]])
def test_merges_that_are_none(merges):
    found, value = entries(["a", "b", "ab"], pre="gpt-2", merges=merges)
    with pytest.raises(TokenizerError, match="no merges in this file's vocabulary"):
        _byte_level(value, found, {}, HERE)


# An image's section --------------------------------------------------------------------------------


def packed(**fields):
    return section.MAGIC + zlib.compress(json.dumps({"options": {"stop_ids": []}, **fields}).encode())


@pytest.mark.parametrize("data, what", [
    (packed(kind="odd", content=""), "of kind 'odd'"), (packed(kind="json", content="")[:-4], "incomplete")])
def test_a_section_of_another_kind(data, what):
    with pytest.raises(ValueError, match=what):
        unpacking._of_section(data, "here")


def test_ranks_in_a_section_of_scores():
    ranks = "\n".join(f"{base64.b64encode(bytes([byte])).decode()} {byte}" for byte in range(256)).encode()
    content = base64.b64encode(ranks).decode()
    with pytest.raises(ValueError, match="ranks in place of scores|damaged|expected"):
        unpacking._of_section(packed(kind="scored", content=content), "here")


# A folder of Hugging Face --------------------------------------------------------------------------


def test_extra_tokens_that_have_names():
    found = folder.Specials.of({"bos_token": "<s>", "extra_special_tokens": {"image_token": "<image>", "odd": 3},
                                "own": {"boi_token": "<boi>"}})
    assert found.named == {"bos_token": "<s>", "image_token": "<image>", "boi_token": "<boi>"} and found.extra == []


def test_names_of_the_model_s_own_are_set_aside():
    told = {"bos_token": "<s>", "image_token": "<image>", "extra_special_tokens": {"boi_token": "<boi>"}}
    folder._set_aside(told)
    assert set(told) == {"bos_token", "own"} and set(told["own"]) == {"image_token", "boi_token"}


def test_older_files_tell_more_tokens(tmp_path):
    (tmp_path/folder.MAP).write_text(json.dumps({"extra_special_tokens": ["<a>", "<b>"], "bos_token": "<s>",
                                                 "additional_special_tokens": ["<c>"]}))
    (tmp_path/folder.ADDED).write_text(json.dumps({"<a>": 7, "<d>": 8, "<odd>": "9"}))
    told = {"extra_special_tokens": [folder._token("<a>", True)]}
    described = {"added_tokens": [{"id": 9, "content": "<e>"}, "odd", {"content": "<f>"}]}
    added = folder._older(told, tmp_path/"tokenizer.json", described)
    assert {id: str(token) for id, token in added.items()} == {7: "<a>", 8: "<d>", 9: "<e>"}
    assert [str(token) for token in told["extra_special_tokens"]] == ["<a>", "<b>"] and added[7].special
    assert [str(token) for token in told["additional_special_tokens"]] == ["<c>"] and not added[8].special


def bpe():
    return Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))


@pytest.mark.parametrize("kind", ["GPT2Tokenizer", folder.LLAMA])
def test_a_post_processor_of_the_file_is_kept(kind):
    whole = bpe()
    content = whole.to_str()
    assert folder._rebuild(kind, content, json.loads(content), {}).post_processor is None
    whole.post_processor = processors.TemplateProcessing(single=["$A"], special_tokens=[])
    content = whole.to_str()
    assert folder._rebuild(kind, content, json.loads(content), {}).post_processor is not None


def test_what_was_special_once_stays_so():
    backend = bpe()
    backend.add_tokens([AddedToken("<x>", special=False)])
    tokens = {one["content"]: one["special"] for one in json.loads(folder._written(backend, {"<x>"}))["added_tokens"]}
    assert tokens == {"<x>": True}
    assert json.loads(folder._written(backend, set()))["added_tokens"][0]["special"] is False
