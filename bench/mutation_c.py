"""Makes one-line mutants of C sources, token by token: a swapped operator, a changed constant, a negated condition, a
dropped statement, each at one place within a function.

It knows C's tokens and no more of its grammar, so some mutants don't compile: whoever uses them tells those apart.
"""
import re
from collections.abc import Iterator
from dataclasses import dataclass

from bench.mutation import Mutant

SWAPS = {"==": "!=", "!=": "==", "<": "<=", "<=": "<", ">": ">=", ">=": ">", "&&": "||", "||": "&&", "<<": ">>",
         ">>": "<<", "+=": "-=", "-=": "+=", "|=": "&=", "&=": "|=", "++": "--", "--": "++", "^": "|"}
#: Those that have another meaning where no value stands before them.
BINARY = {"+": "-", "-": "+", "&": "|", "|": "&"}
TOKEN = re.compile(r"""
    (?P<nothing>\s+ | //[^\n]* | /\*.*?\*/ | (?:(?<=\n)|\A)[ \t]*\#(?:\\\n|[^\n])*)
  | (?P<text>"(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*')
  | (?P<name>[A-Za-z_]\w*)
  | (?P<number>(?:0[xX][0-9a-fA-F]+|\d+)[uUlL]*)
  | (?P<sign><<=|>>=|->|\+\+|--|&&|\|\||<<|>>|[-+*/%&|^=!<>]=|[^\s\w])
""", re.VERBOSE | re.DOTALL)
#: A statement that begins with one of these is no expression, or changes where the program goes.
OTHER = {"if", "else", "for", "while", "do", "switch", "case", "default", "return", "break", "continue", "goto"}
#: The second token of an assignment or a call.
ACTS = {"(", "=", "->", ".", "[", "++", "--", "+=", "-=", "|=", "&=", "^=", "<<=", ">>=", "*=", "/=", "%="}


@dataclass(frozen=True)
class Token:
    kind: str
    text: str
    begin: int
    end: int


def tokens(source: str) -> list[Token]:
    """A source's tokens, without comments, blanks and the preprocessor's lines."""
    return [Token(found.lastgroup, found[0], found.start(), found.end()) for found in TOKEN.finditer(source)
            if found.lastgroup != "nothing"]


def functions(found: list[Token]) -> Iterator[tuple[str, int, int]]:
    """Each function's name, and the tokens from the one after its first brace to its last brace."""
    depth, name, begin = 0, "", None
    for i, token in enumerate(found):
        if token.text == "{":
            if depth == 0 and i and found[i - 1].text == ")":
                name, begin = _called(found, i - 1), i + 1
            depth += 1
        elif token.text == "}":
            depth -= 1
            if depth == 0 and begin is not None:
                yield name, begin, i
                begin = None


def _called(found, close):
    """The name before the bracket that ``close`` closes."""
    return found[_opening(found, close) - 1].text


def _opening(found, close):
    depth = 0
    for i in range(close, -1, -1):
        depth += {")": 1, "(": -1}.get(found[i].text, 0)
        if depth == 0:
            return i
    raise ValueError(f"nothing opens the bracket at byte {found[close].begin}")


def _closing(found, opening):
    depth = 0
    for i in range(opening, len(found)):
        depth += {"(": 1, ")": -1}.get(found[i].text, 0)
        if depth == 0:
            return i
    raise ValueError(f"nothing closes the bracket at byte {found[opening].begin}")


def _is_value(token):
    return token.kind in ("name", "number") and token.text not in OTHER or token.text in (")", "]")


def _changes(found, begin, end):
    """Each change in a function: where it begins and ends in the source, and its new text."""
    depth = 0                                       # of brackets: a for's head holds no statements
    for i in range(begin, end):
        token, before = found[i], found[i - 1]
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if token.text in SWAPS:
            yield token.begin, token.end, SWAPS[token.text]
        elif token.text in BINARY and _is_value(before) and not _is_cast(found, i - 1):
            yield token.begin, token.end, BINARY[token.text]
        elif token.text == "!":
            yield token.begin, token.end, ""
        elif token.kind == "number":
            yield token.begin, token.end, _next_number(token.text)
        elif token.text in ("if", "while"):
            yield found[i + 1].end, found[i + 1].end, "!("
        elif depth == 0 and _begins_statement(found, i):
            last = next(j for j in range(i, end) if found[j].text == ";")
            yield token.begin, found[last].end, ";"


def _is_cast(found, i):
    return found[i].text == ")" and found[i - 1].text.endswith("_t") and found[i - 2].text == "("


def _next_number(text):
    digits = text.rstrip("uUlL")
    return f"{int(digits, 0) + 1}{text[len(digits):]}"


def _begins_statement(found, i):
    """Whether an assignment or a call begins here; a declaration has a name as its second token, or a star."""
    first = found[i - 1].text in (";", "{", "}", "else") or _closes_condition(found, i - 1)
    return first and found[i].kind == "name" and found[i].text not in OTHER and found[i + 1].text in ACTS


def _closes_condition(found, i):
    return found[i].text == ")" and found[_opening(found, i) - 1].text in ("if", "for", "while")


def mutants(source: str) -> Iterator[Mutant]:
    """Every mutant of a C source, in its order; each shows its line, or the whole statement that it drops."""
    found = tokens(source)
    for name, first, end in functions(found):
        for begin, stop, text in _changes(found, first, end):
            changed = source[:begin] + text + source[stop:]
            if text == "!(":
                opening = next(i for i, token in enumerate(found) if token.end == begin)
                close = found[_closing(found, opening)].begin
                changed = f"{source[:begin]}!({source[begin:close]}){source[close:]}"
                stop = close
            yield _shown(source, changed, begin, stop, name)


def _shown(source, changed, begin, stop, name):
    first = source.rfind("\n", 0, begin) + 1
    last = source.find("\n", stop)
    tail = len(source) - last
    before, after = (" ".join(text.split()) for text in (source[first:last], changed[first:len(changed) - tail]))
    return Mutant(source.count("\n", 0, begin) + 1, before, after, changed, name)
