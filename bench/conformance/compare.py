"""Compares an answer of the product with its reference's, cell by cell; what may differ is listed with its reason."""
from collections.abc import Iterator
from dataclasses import dataclass

from bench.conformance.cases import Case
from llama2_host.tokenizer import ends

NAMED = "a special token ends a text by its name, as in llama.cpp; transformers ends at what the " \
        "configuration says only"
STREAMED = "what was printed stays: characters before bytes that are none; transformers takes those back that " \
           "are told in bytes, too"
PRINTED = ("a .model file that a tokenizer.bin can say is printed as llama2.c prints it: a space less behind BOS only, "
           "and one sign for several bytes that are no character")
#: why a cell may differ, as docs/checkpoints.md has it
REASONS = (NAMED, STREAMED, PRINTED)


@dataclass(frozen=True)
class Cell:
    """One comparison."""
    case: str
    axis: str
    what: str               #: ids, text, stream, ends, template or chat
    equal: bool
    reason: str = ""        #: of a difference that is listed
    ours: object = None
    theirs: object = None

    @property
    def good(self) -> bool:
        return self.equal or bool(self.reason)


def cells(case: Case, ours: dict, theirs: dict) -> Iterator[Cell]:
    """Every cell of a case."""
    def cell(what, mine, other, reason=""):
        return Cell(case.name, case.axis, what, mine == other, "" if mine == other else reason, mine, other)

    printed = PRINTED if case.name == ".model: LLaMA-2's" else ""
    yield from (cell("ids", mine, other) for mine, other in zip(ours["ids"], theirs["ids"], strict=True))
    yield from (cell("text", mine, other, printed) for mine, other in zip(ours["texts"], theirs["texts"], strict=True))
    yield from (cell("stream", mine, other, STREAMED if "\N{REPLACEMENT CHARACTER}" in other else printed)
                for mine, other in zip(ours["streams"], theirs["texts"], strict=True))
    if case.reference != "sentencepiece":       # the package knows no ends
        more = set(ours["ends"]) - set(theirs["ends"])
        named = (case.reference == "transformers" and set(theirs["ends"]) <= set(ours["ends"])
                 and more <= set(_named(ours)))
        yield cell("ends", ours["ends"], theirs["ends"], NAMED if named else "")
    for mine, other in zip(ours.get("chats", []), theirs.get("chats", []), strict=True):
        yield cell("template", mine["text"], other["text"])
        yield cell("chat", mine["ids"], other["ids"])


def _named(ours: dict) -> list[int]:
    """Ids of the case's special tokens whose names end a text."""
    return ends.named(ours["specials"])
