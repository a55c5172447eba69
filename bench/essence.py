"""Reduces a source file to what matters to a machine: it drops comments, docstrings and blank lines."""
import ast
import io
import re
import tokenize
from functools import cache
from pathlib import Path


@cache
def essence(path: Path) -> bytes:
    """The content of a file without comments, docstrings and blank lines."""
    if path.suffix == ".py":
        return bare_python(path.read_text()).encode()
    if path.suffix in (".c", ".h", ".cpp", ".v"):
        return bare_c(path.read_text()).encode()
    if path.suffix == ".mk" or path.name == "Makefile":
        return bare_make(path.read_text()).encode()
    return path.read_bytes()


def bare_python(text: str) -> str:
    """Python without comments, docstrings, blank lines and spaces at the ends of lines."""
    lines = text.splitlines(keepends=True)
    cuts  = [(token.start, token.end) for token in tokenize.generate_tokens(io.StringIO(text).readline)
             if token.type == tokenize.COMMENT]
    cuts += [((node.lineno, _characters(lines, node.lineno, node.col_offset)),
              (node.end_lineno, _characters(lines, node.end_lineno, node.end_col_offset)))
             for node in _docstrings(ast.parse(text))]
    for (top, left), (bottom, right) in sorted(cuts, reverse=True):
        lines[top - 1:bottom] = [lines[top - 1][:left] + lines[bottom - 1][right:]]
    return _without_blanks("".join(lines))


def _docstrings(tree):
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and body:
            first = body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value,
                                                                                                     str):
                yield first


def _characters(lines, row, offset):
    """Column in characters; ast counts bytes."""
    return len(lines[row - 1].encode()[:offset].decode())


def bare_c(text: str) -> str:
    """C or Verilog without comments and blank lines; what looks like a comment within quotes stays."""
    pieces = re.compile(r'"(?:\\.|[^"\\\n])*"|/\*.*?\*/|//[^\n]*', re.DOTALL)
    return _without_blanks(pieces.sub(lambda found: found[0] if found[0][0] == '"' else " ", text))


def bare_make(text: str) -> str:
    """A makefile without lines that are comments, and without blank lines."""
    return _without_blanks("".join(line for line in text.splitlines(keepends=True) if not line.startswith("#")))


def _without_blanks(text):
    return "".join(line.rstrip() + "\n" for line in text.splitlines() if line.strip())
