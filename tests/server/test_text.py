"""What of an answer is shown, and when: whole characters, nothing of a stop string."""
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama2_host.server.text import TextStream
from llama2_host.tokenizer.base import Decoder
from tests.host.tiny import TOKENIZER


def show(pieces: list[bytes], stops: list[str]) -> list[str]:
    """The texts that come out for tokens of these bytes, one by one."""
    stream, shown = TextStream(Decoder(TOKENIZER, after_bos=False), stops), []
    for piece in pieces:
        text = ""
        for byte in piece:
            text += stream.feed(3 + byte).text
        shown.append(text)
    return [*shown, stream.finish().text]


def expected(text: str, stops: list[str]) -> str:
    """The definition: the stop string that is complete first, the longest of them, ends the text."""
    for end in range(1, len(text) + 1):
        if found := [stop for stop in stops if text[:end].endswith(stop)]:
            return text[:end - max(map(len, found))]
    return text


@given(st.text("abé", max_size=12), st.lists(st.text("abé", min_size=1, max_size=4), max_size=3))
def test_text_is_cut_where_the_first_stop_string_ends(text, stops):
    shown = show([text.encode()], stops)
    assert "".join(shown) == expected(text, stops)


@given(st.text("ab", max_size=10), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_nothing_is_shown_that_a_stop_string_may_take_back(text, stops):
    # Whatever follows, what was shown so far is a beginning of the whole.
    for end in range(len(text) + 1):
        early = "".join(show([text[:end].encode()], stops)[:-1])
        assert all(expected(text[:end] + more, stops).startswith(early) for more in ["", *stops, "a", "b", text[end:]])


def test_what_cannot_become_a_stop_string_is_shown_at_once():
    assert show([b"a", b"E", b"N", b"x", b"E", b"N", b"D", b"z"], ["END"]) == ["a", "", "", "ENx", "", "", "", "", ""]


def test_half_a_stop_string_at_the_end_is_text():
    assert show([b"a", b"E", b"N"], ["END"]) == ["a", "", "", "EN"]


def test_characters_are_never_split():
    assert show([bytes([byte]) for byte in "é€😀".encode()], []) == ["", "é", "", "", "€", "", "", "", "😀", ""]


def test_a_broken_character_is_replaced():
    assert "".join(show([b"a\xf0\x9f", b"b"], [])) == "a�b"


@pytest.mark.parametrize("stops, texts", [(["cd"], ["a", "b"]), ([], ["a", "b", "c", "d"])])
def test_tokens_go_with_the_text_they_begin_in(stops, texts):
    stream, went = TextStream(Decoder(TOKENIZER, after_bos=False), stops), []
    for char in "abcd":
        went += stream.feed(3 + ord(char), char).tokens
    assert went + stream.finish().tokens == texts


def test_a_token_of_half_a_character_goes_with_the_whole():
    stream = TextStream(Decoder(TOKENIZER, after_bos=False))
    first, second = (stream.feed(3 + byte, byte) for byte in "é".encode())
    assert (first.text, first.tokens) == ("", []) and (second.text, len(second.tokens)) == ("é", 2)
