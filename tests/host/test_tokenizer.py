"""Shows that ids and text are llama2.c's, whichever file the vocabulary comes from, and that bad files are refused."""

import json
import struct
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import HealthCheck, given, settings, strategies as st

from bench import reference_data
from llama2_host.errors import HostError
from llama2_host.tokenizer.base import BYTE_PIECES, Decoder, Tokenizer, TokenizerError
from llama2_host.tokenizer import load as load_tokenizer, unpack

REPO = Path(__file__).parents[2]
fuzz = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

TEXTS = ["", " ", "a", "Once upon a time, there was a tiny dog.", "  two  spaces  ", "line\nbreak\n\n", "tab\there",
         "Zoë said: “für 3 €, 日本語 🐕!”", "He said, \"I don't know.\"", "<s>", "</s>", "<0x41>", "<unk>", "\n<s>\n"]
SPECIAL = [b"<unk>", b"\n<s>\n", b"\n</s>\n"]


def vocabulary(*pieces: tuple[str, float]) -> Tokenizer:
    """A tokenizer with byte fallback and these pieces from id 259 on."""
    entries = [(piece, 0.0) for piece in SPECIAL + BYTE_PIECES] + [(text.encode(), score) for text, score in pieces]
    return Tokenizer([piece for piece, _ in entries], [score for _, score in entries])


TINY = vocabulary((" ", -1e3), ("a", -1e3), ("b", -1e3), ("c", -1e3), ("ab", -2.0), ("bc", -1.0), ("aa", -3.0),
                  ("bca", -4.0), (" a", -9.0), ("é", -1e3))
SPACE, A, B, C, AB, BC, AA, BCA, SPACE_A, E_ACUTE = range(259, 269)


def reference_encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """llama2.c's encode as its source has it: look up characters, then rescan all pairs for every merge."""
    ids = [id for char in " " + text for id in tokenizer._char_ids(char)] if text else []
    while True:
        best, at = None, None
        for i in range(len(ids) - 1):
            merged = tokenizer._ids.get(tokenizer.pieces[ids[i]] + tokenizer.pieces[ids[i + 1]])
            if merged is not None and (best is None or tokenizer.scores[merged] > tokenizer.scores[best]):
                best, at = merged, i
        if best is None:
            return ids
        ids[at:at + 2] = [best]


FILES = {"default": (REPO / "models/stories.tokenizer.bin", REPO / "models/stories.model"),
         "tok512": (reference_data.path("models", "tok512.bin"), reference_data.path("models", "tok512.model"))}
trained = pytest.mark.parametrize("name", ["default", pytest.param("tok512", marks=pytest.mark.reference)])


# Encoding and decoding ------------------------------------------------------------------------

@pytest.mark.parametrize("text, ids", [
    ("", []),
    ("b", [SPACE, B]),
    ("a", [SPACE_A]),
    ("abc", [SPACE_A, BC]),                  # bc outscores ab
    ("babc", [SPACE, B, A, BC]),
    ("bca", [SPACE, BCA]),                   # a merge makes the next one possible
    ("aaa", [SPACE, AA, A]),                 # the leftmost of equal scores
    ("é", [SPACE, E_ACUTE]),
    ("ü", [SPACE, 3 + 0xC3, 3 + 0xBC]),      # UTF-8 bytes where no piece holds the character
    ("\n", [SPACE, 3 + 0x0A]),
])
def test_encodes_by_hand(text, ids):
    assert TINY.encode(text, bos=False) == ids
    assert TINY.encode(text) == [1, *ids]
    assert TINY.encode(text, eos=True) == [1, *ids, 2]


@fuzz
@given(st.text("abc é\nü", max_size=40))
def test_equals_the_rescan_of_all_pairs(text):
    assert TINY.encode(text, bos=False) == reference_encode(TINY, text)


@trained
@pytest.mark.parametrize("text", TEXTS)
def test_both_files_encode_as_llama2c(name, text):
    binary, model = map(load_tokenizer, FILES[name])
    assert binary.encode(text) == [1, *reference_encode(binary, text)]
    assert model.encode(text, bos=False) == sentencepiece.SentencePieceProcessor(str(FILES[name][1])).encode(text)
    # tok512.model drops extra spaces, tok512.bin cannot
    if name == "default" or text.strip(" ") == text and "  " not in text:
        assert binary.encode(text) == model.encode(text)
    assert binary.decode(binary.encode(text)) == text


@trained
@fuzz
@given(text=st.text(st.characters(exclude_characters="▁", exclude_categories=["Cs"]), max_size=60))
def test_every_text_comes_back(name, text):
    tokenizer = load_tokenizer(FILES[name][0])
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids[1:]) == text
    assert ids[1:] == reference_encode(tokenizer, text)


@pytest.mark.reference
def test_equals_the_recorded_ids():
    tokenizer = load_tokenizer(FILES["tok512"][0], 512)
    for record in json.loads(reference_data.path("models", "expected.json").read_text())["records"]:
        assert tokenizer.encode(record["prompt"]) == record["prompt_ids"]
        assert tokenizer.decode(record["ids"]) == record["text"]


def test_special_tokens_are_never_made_from_text():
    pieces = [("\n", -5.0), ("<", -5.0), ("\n<", -4.0), ("\n<s", -3.0), ("\n<s>", -2.0), ("s", -5.0), (">", -5.0)]
    assert not {0, 1, 2} & set(vocabulary(*pieces).encode("\n<s>\n", bos=False))


def test_a_long_text_takes_no_time():
    assert len(TINY.encode("abc" * 20000, bos=False)) == 20001


def test_command_line_bytes_that_are_no_utf8_pass_through():
    assert TINY.encode("\udcff", bos=False) == [SPACE, 3 + 0xFF]
    assert TINY.encode("\ud800", bos=False) == TINY.encode("�", bos=False)


def test_without_byte_fallback_unknown_characters_are_unk():
    tokenizer = Tokenizer([*SPECIAL, b" ", b"a"], [0.0] * 5)
    assert not tokenizer.byte_fallback
    assert tokenizer.encode("aüa", bos=False) == [3, 4, 0, 4]


# Streaming ------------------------------------------------------------------------------------

def test_never_emits_half_a_character():
    decoder = Decoder(TINY)
    assert [decoder.feed(3 + byte) for byte in "é€🐕".encode()] == ["", "é", "", "", "€", "", "", "", "🐕"]


def test_replaces_what_is_no_character():
    decoder = Decoder(TINY)
    assert decoder.feed(3 + 0xFF) == "�"
    assert [decoder.feed(3 + 0xC3), decoder.feed(A)] == ["", "�a"]
    assert [decoder.feed(3 + 0xC3), decoder.finish(), decoder.finish()] == ["", "�", ""]


def test_strips_one_space_after_bos_only():
    decoder = Decoder(TINY, after_bos=False)
    assert [decoder.feed(id) for id in (SPACE_A, 1, SPACE_A, SPACE_A, 1, SPACE, SPACE, 2, SPACE_A)] == \
        [" a", "", "a", " a", "", "", " ", "", " a"]
    assert Decoder(TINY).feed(SPACE_A) == "a"
    assert Decoder(TINY).feed(3 + 0x20) == " "       # a space told as a byte was never put there by encode


@pytest.mark.parametrize("id", [-1, TINY.vocab_size])
def test_refuses_an_id_outside_the_vocabulary(id):
    with pytest.raises(TokenizerError, match=f"token {id} is not in the vocabulary"):
        TINY.decode([id])


# Files ----------------------------------------------------------------------------------------

@trained
def test_both_files_hold_the_same_vocabulary(name):
    binary, model = map(load_tokenizer, FILES[name])
    assert binary.pack() == FILES[name][0].read_bytes()
    if name == "default":
        assert model.pack() == binary.pack()
    assert model.vocab_size == 512 and [model.piece(id, False) for id in range(3, 512)] == \
        [binary.piece(id, False) for id in range(3, 512)]
    assert (binary.vocab_size, binary.bos_id, binary.eos_id, binary.byte_fallback) == (512, 1, 2, True)


def test_unpack_inverts_pack():
    again = unpack(TINY.pack())
    assert (again.pieces, again.scores) == (TINY.pieces, TINY.scores)


def refusal(tmp_path, data, vocab_size=None) -> str:
    path = tmp_path / "tokenizer.bin"
    path.write_bytes(data)
    with pytest.raises(TokenizerError) as refused:
        load_tokenizer(path, vocab_size)
    assert "\n" not in str(refused.value) and str(refused.value).startswith(str(path))
    return str(refused.value)


def test_refuses_a_tokenizer_of_another_size(tmp_path):
    assert f"has {TINY.vocab_size} entries, the model has 512" in refusal(tmp_path, TINY.pack(), 512)
    assert TINY.pack() == load_tokenizer(tmp_path / "tokenizer.bin", TINY.vocab_size).pack()


@pytest.mark.parametrize("data, message", [
    (b"", "no llama2.c tokenizer"),
    (b"\1\0", "no llama2.c tokenizer"),
    (struct.pack("<i", -1) + bytes(20), "longest piece of -1 bytes"),
    (struct.pack("<i", 1 << 20) + bytes(20), "no llama2.c tokenizer"),
    (TINY.pack()[:4], "0 entries"),
    (TINY.pack()[:-1], "truncated in entry 268: 1 bytes left, expected 2"),
    (TINY.pack()[:-5], "truncated in entry 268: 5 bytes left, expected 8"),
    (struct.pack("<ifi", 4, 0.0, 5) + b"12345", "entry 0 has 5 bytes, expected 0 to 4"),
    (struct.pack("<ifi", 4, 0.0, -1), "entry 0 has -1 bytes"),
    (struct.pack("<ifi", 4, float("nan"), 1) + b"1", "entry 0 has no number as its score"),
    (b"\n\x0e\n\x05<unk>\x15\0\0\0\0" + bytes(5), "damaged sentencepiece model"),
])
def test_refuses_a_damaged_file(tmp_path, data, message):
    assert message in refusal(tmp_path, data)


def test_refuses_a_path_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "absent.bin", tmp_path):
        with pytest.raises(TokenizerError, match="cannot be read"):
            load_tokenizer(path)


TRAINING = ["Once upon a time, there was a little girl named Lily.", "She said: \"No!\" and there was a time",
            "a little girl and a little time", "upon a little time there was a girl, named upon"] * 5


@pytest.fixture(scope="module")
def model_bytes(train):
    return train()


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    def train(**options):
        prefix = tmp_path_factory.mktemp("sentencepiece") / "trained"
        options = dict(model_type="bpe", vocab_size=300, byte_fallback=True, minloglevel=2,
                       normalization_rule_name="identity", remove_extra_whitespaces=False) | options
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TRAINING), model_prefix=str(prefix), **options)
        return prefix.with_suffix(".model").read_bytes()
    return train


def test_refuses_sentencepiece_models_that_are_not_llamas(tmp_path, train, model_bytes):
    load_tokenizer(write(tmp_path, model_bytes), 300)
    assert "a sentencepiece model of type unigram" in refusal(tmp_path, train(model_type="unigram", vocab_size=290))
    assert "a sentencepiece model of type char" in refusal(tmp_path, train(model_type="char", vocab_size=280))


SPEC_TEXTS = [*TEXTS, "ﬁne Ａ①", "e\u0301\u200b", " a  b ", "xyzzy æ ß", "<think>a</think>b", "a<s>b"]


@pytest.mark.parametrize("options", [
    {}, {"normalization_rule_name": "nmt_nfkc"}, {"normalization_rule_name": "nfkc", "remove_extra_whitespaces": True},
    {"add_dummy_prefix": False}, {"remove_extra_whitespaces": True}, {"byte_fallback": False, "vocab_size": 90},
    {"user_defined_symbols": ["<think>", "</think>", "b "]}, {"control_symbols": ["<|im_end|>"]},
    {"bos_id": 2, "eos_id": 1},
    {"bos_id": -1, "pad_id": 3}, {"unk_id": 5, "bos_id": 6, "eos_id": 7}, {"treat_whitespace_as_suffix": True}])
def test_sentencepiece_models_encode_as_their_package_whatever_their_settings(tmp_path, train, options):
    data = train(**options)
    package = sentencepiece.SentencePieceProcessor(model_proto=data)
    read = load_tokenizer(write(tmp_path, data), package.vocab_size())
    again = unpack(read.pack())
    assert (read.bos_id if read.bos_id is not None else -1, read.eos_id) == (package.bos_id(), package.eos_id())
    for text in SPEC_TEXTS:
        ids = package.encode(text)
        assert read.encode(text, bos=False) == again.encode(text, bos=False) == ids, text
        assert read.encode(text) == [package.bos_id()] * (package.bos_id() >= 0) + ids
        assert read.decode(ids) == package.decode(ids)


def test_a_padded_vocabulary_has_rows_without_pieces(tmp_path, train, model_bytes):
    for data in (model_bytes, train(normalization_rule_name="nmt_nfkc")):
        padded = load_tokenizer(write(tmp_path, data), 320)
        assert (padded.vocab_size == 320 and padded.encode("a b") ==
                load_tokenizer(write(tmp_path, data), 300).encode("a b"))
        assert padded.decode([*padded.encode("a b"), 319]) == "a b" and unpack(padded.pack()).vocab_size == 320
    assert "has 300 entries, the model has 32000" in refusal(tmp_path, model_bytes, 32000)
    assert "has 300 entries, the model has 299" in refusal(tmp_path, model_bytes, 299)


def test_early_files_hold_bytes_as_bare_characters(tmp_path):
    """As some ports of llama2.c have them: the same ids as those of the newer file."""
    newer = load_tokenizer(FILES["default"][0])
    early = list(newer.pieces)
    early[3:259] = [chr(byte).encode() for byte in range(256)]
    (tmp_path / "tokenizer.bin").write_bytes(Tokenizer(early, newer.scores).pack_pieces())
    read = load_tokenizer(tmp_path / "tokenizer.bin", 512)
    comma = newer.encode(",", bos=False)[-1]
    assert comma > 258 and read.encode(",", bos=False)[-1] == comma
    for text in TEXTS:
        assert read.encode(text) == newer.encode(text) and read.decode(read.encode(text)) == text
    assert read.pack() == newer.pack()


def test_the_first_files_without_scores_are_named(tmp_path):
    assert "without the scores that encoding needs" in refusal(tmp_path, b"".join(
        struct.pack("<i", len(piece)) + piece for piece in [b"<unk>", *TINY.pieces[1:]]))


def test_a_link_to_nothing_is_named(tmp_path):
    (tmp_path / "tokenizer.model").symlink_to(tmp_path / "gone")
    for path in (tmp_path, tmp_path / "tokenizer.model"):
        with pytest.raises(TokenizerError, match="is a link to nothing"):
            load_tokenizer(path)


def write(tmp_path, data) -> Path:
    (tmp_path / "tokenizer.model").write_bytes(data)
    return tmp_path / "tokenizer.model"


def test_a_refusal_ends_a_command():
    assert issubclass(TokenizerError, HostError) and issubclass(TokenizerError, ValueError)


@fuzz
@given(data=st.data())
def test_fuzz_damaged_tokenizer_bin(data):
    damaged = bytearray(TINY.pack())
    for _ in range(data.draw(st.integers(0, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    only_tokenizer_error(lambda: unpack(bytes(damaged[:data.draw(st.integers(0, len(damaged)))])))


@fuzz
@given(st.binary(max_size=300))
def test_fuzz_any_bytes(tmp_path, data):
    only_tokenizer_error(lambda: load_tokenizer(write(tmp_path, data)))


@fuzz
@given(data=st.data())
def test_fuzz_damaged_sentencepiece_models(tmp_path, model_bytes, data):
    model = bytearray(model_bytes)
    for _ in range(data.draw(st.integers(0, 3))):
        model[data.draw(st.integers(20, len(model) - 1))] = data.draw(st.integers(0, 255))
    model = bytes(model[:data.draw(st.integers(20, len(model)))])
    only_tokenizer_error(lambda: load_tokenizer(write(tmp_path, model)))


def only_tokenizer_error(load):
    try:
        tokenizer = load()
    except TokenizerError as error:
        assert "\n" not in str(error)
    else:
        tokenizer.decode(tokenizer.encode("a b\n"))
