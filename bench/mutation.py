"""Makes one-line mutants of Python sources: a swapped operator, a changed constant, a dropped assignment, each at one
place; the rest of the source stays as it is.

Ref: DeMillo, Lipton, Sayward 1978, Hints on Test Data Selection.
"""
import ast
import copy
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

SWAPS = {ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr, ast.Add: ast.Sub, ast.Sub: ast.Add,
         ast.LShift: ast.RShift, ast.RShift: ast.LShift,
         ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
#: Calls whose arguments give a name or a width, and no behaviour.
UNTOUCHED = {"Signal", "super", "Module", "Array", "Memory", "ValueError", "TypeError", "range", "getattr", "enumerate",
             "delay"}
#: Calls whose numbers are widths, in all Python: a wider one does the same.
WIDTHS = {"In", "Out", "signed", "unsigned", "StructLayout", "Signature", "__init__"}


@dataclass(frozen=True)
class Mutant:
    """One change: the ``line`` in the source, the text before and after, and the whole changed source.

    ``scope`` is the function that it is in, with its class.
    """
    line: int
    before: str
    after: str
    source: str
    scope: str = ""

    @property
    def change(self) -> str:
        """The text before and after, without the place in the file."""
        return f"{self.before} -> {self.after}"

    def __str__(self):
        return f"line {self.line}: {self.change}"


@dataclass(frozen=True)
class _Site:
    """A change that may be made: ``node``'s text becomes ``text``; a person reads that ``shown`` becomes ``after``."""
    node: ast.AST
    text: str
    shown: ast.AST
    after: str
    scope: str


class _Sites(ast.NodeVisitor):
    """Finds every change that may be made to hardware, in the order of the source."""
    def __init__(self):
        self.found, self._scopes = [], []

    def change(self, node, alter):
        """``alter`` changes a copy of ``node`` in place."""
        twin = copy.deepcopy(node)
        alter(twin)
        self.replace(node, ast.unparse(ast.fix_missing_locations(twin)))

    def replace(self, node, after):
        """An expression becomes another; in brackets, since its surroundings may bind tighter."""
        self.found.append(_Site(node, f"({after})", node, after, ".".join(self._scopes)))

    def drop(self, node, shown, text):
        self.found.append(_Site(node, text, shown, "(dropped)", ".".join(self._scopes)))

    def within(self, node, parts):
        self._scopes.append(node.name)
        for part in parts:
            self.visit(part)
        self._scopes.pop()

    def visit_BinOp(self, node):
        if type(node.op) in SWAPS:
            self.change(node, lambda n: setattr(n, "op", SWAPS[type(n.op)]()))
        self.generic_visit(node)

    def visit_Compare(self, node):
        if type(node.ops[0]) in SWAPS:
            self.change(node, lambda n: n.ops.__setitem__(0, SWAPS[type(n.ops[0])]()))
        self.generic_visit(node)

    def visit_UnaryOp(self, node):
        if isinstance(node.op, ast.Invert):
            self.change(node, lambda n: setattr(n, "op", ast.UAdd()))
        self.generic_visit(node)

    def visit_Subscript(self, node):
        self.visit(node.value)              # bounds of slices are widths: a wrong one seldom elaborates

    def visit_JoinedStr(self, node):
        pass                                # a message, and Python 3.11 does not know the places of its parts

    def visit_FunctionDef(self, node):
        self.within(node, node.body)        # neither decorators nor defaults

    def visit_ClassDef(self, node):
        self.within(node, [part for part in node.body if getattr(part, "name", "") != "__init__"])

    def visit_Call(self, node):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name in UNTOUCHED:
            return
        if name == "Mux":
            self.change(node, lambda n: n.args.__setitem__(slice(1, 3), n.args[2:0:-1]))
        if name == "eq":
            if isinstance(node.args[0], ast.Constant) and type(node.args[0].value) is int:
                self.change(node, lambda n: n.args.__setitem__(0, ast.Constant(int(not n.args[0].value))))
            self.visit(node.args[0])
        else:
            self.generic_visit(node)

    def visit_AugAssign(self, node):
        """``m.d.sync += [...]``: each assignment of the list is dropped once."""
        if isinstance(node.value, ast.List):
            for each in node.value.elts:
                if _is_assignment(each):
                    self.drop(each, each, "*()")
        elif _is_assignment(node.value):
            self.drop(node.value, node, "[]")
        self.visit(node.value)


def _is_assignment(node):
    return isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "eq"


class Everywhere(_Sites):
    """Finds what may be changed in any Python, too: constants, conditions, and statements that are dropped."""
    def __init__(self):
        super().__init__()
        self._above = [None]

    def visit(self, node):
        self._above.append(node)
        super().visit(node)
        self._above.pop()

    def visit_ClassDef(self, node):
        methods = [part for part in node.body if isinstance(part, (ast.FunctionDef, ast.ClassDef))]
        self.within(node, [part for part in methods if part.name != "__init__" or not _is_unit(node)])

    def visit_Constant(self, node):
        """The next integer; a person reads it within the expression, or the statement, that it is a part of."""
        if type(node.value) is int:
            shown, value = self._above[-2], node.value
            node.value += 1
            after = ast.unparse(shown)
            node.value = value
            self.found.append(_Site(node, str(value + 1), shown, after, ".".join(self._scopes)))

    def visit_Call(self, node):
        if getattr(node.func, "attr", getattr(node.func, "id", "")) in WIDTHS:
            return
        super().visit_Call(node)
        if getattr(node.func, "attr", "") in ("If", "Elif"):        # with m.If(...):
            self.replace(node.args[0], f"({ast.unparse(node.args[0])}) == 0")

    def visit_BoolOp(self, node):
        self.change(node, lambda n: setattr(n, "op", ast.Or() if isinstance(n.op, ast.And) else ast.And()))
        self.generic_visit(node)

    def visit_UnaryOp(self, node):
        if isinstance(node.op, ast.Not):
            self.replace(node, ast.unparse(node.operand))
        super().visit_UnaryOp(node)

    def visit_If(self, node):
        self._negate(node.test)
        self.generic_visit(node)

    visit_While = visit_IfExp = visit_If

    def _negate(self, test):
        if not (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)):
            self.replace(test, f"not ({ast.unparse(test)})")

    def visit_Expr(self, node):
        if isinstance(node.value, ast.Call):
            self.drop(node, node, "pass")
        if not isinstance(node.value, ast.Constant):                # a docstring
            self.visit(node.value)

    def visit_Raise(self, node):
        self.drop(node, node, "pass")

    def visit_AugAssign(self, node):
        if isinstance(node.target, ast.Name):                       # no domain of a module
            self.drop(node, node, "pass")
        super().visit_AugAssign(node)


def _is_unit(node):
    """Whether a class is hardware: what its ``__init__`` gives is a signature, which is names and widths."""
    return any(getattr(part, "name", "") == "elaborate" for part in node.body)


def mutants(source: str, *, only: str | None = None, steps: tuple[str, ...] = (),
            kinds: type[_Sites] = _Sites) -> Iterator[Mutant]:
    """Every mutant of a module's source, in its order; of one class or function of it with ``only``, of those of its
    methods that are named in ``steps``.

    Raises ValueError for a step that there is not.
    """
    body = [node for node in ast.parse(source).body
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and only in (None, node.name)]
    names = {getattr(statement, "name", "") for node in body for statement in node.body}
    if unknown := sorted(set(steps) - names):
        raise ValueError(f"{only or 'the module'} has no step {', '.join(unknown)}")
    sites = kinds()
    for node in body:
        sites.visit(node)
    text = source.encode()                                          # ast counts bytes
    begins = list(accumulate(map(len, text.splitlines(keepends=True)), initial=0))
    for site in sites.found:
        if steps and not set(steps) & set(site.scope.split(".")):
            continue
        node = site.node
        begin = begins[node.lineno - 1] + node.col_offset
        end = begins[node.end_lineno - 1] + node.end_col_offset
        yield Mutant(site.shown.lineno, ast.unparse(site.shown), site.after,
                     (text[:begin] + site.text.encode() + text[end:]).decode(), site.scope)


def mutated_classes(unit: type, *, steps: tuple[str, ...] = (), **constants) -> Iterator[tuple[Mutant, type]]:
    """Mutants of one class of a module, or of its ``steps``, each with the class that it defines; ``constants`` replace
    the module's own."""
    module = sys.modules[unit.__module__]
    for mutant in mutants(inspect.getsource(module), only=unit.__name__, steps=steps):
        yield mutant, _defined(mutant.source, unit, constants)


def with_constants(unit: type, **constants) -> type:
    """The class as its module defines it with other constants."""
    return _defined(inspect.getsource(sys.modules[unit.__module__]), unit, constants)


def _defined(source: str, unit: type, constants: dict):
    module = sys.modules[unit.__module__]
    namespace = dict(vars(module))
    exec(compile(source, f"<mutant of {module.__name__}>", "exec"), namespace)
    unknown = constants.keys() - namespace.keys()
    if unknown:
        raise ValueError(f"{module.__name__} has no {', '.join(sorted(unknown))}")
    namespace.update(constants)
    return namespace[unit.__name__]
