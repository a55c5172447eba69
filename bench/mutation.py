"""Makes one-line mutants of Python sources: a swapped operator, a changed constant, a dropped assignment, each at one
place.

Ref: DeMillo, Lipton, Sayward 1978, Hints on Test Data Selection.
"""
import ast
import copy
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass

SWAPS = {ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr, ast.Add: ast.Sub, ast.Sub: ast.Add,
         ast.LShift: ast.RShift, ast.RShift: ast.LShift,
         ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
#: Calls whose arguments give a name or a width, and no behaviour.
UNTOUCHED = {"Signal", "super", "Module", "Array", "Memory", "ValueError", "TypeError", "range", "getattr", "enumerate",
             "delay"}


@dataclass
class Mutant:
    """One change: the ``line`` in the source, the text before and after, and the whole changed source."""
    line: int
    before: str
    after: str
    source: str

    @property
    def change(self) -> str:
        """The text before and after, without the place in the file."""
        return f"{self.before} -> {self.after}"

    def __str__(self):
        return f"line {self.line}: {self.change}"


class _Sites(ast.NodeVisitor):
    """Finds (node, field or index, replacement) for every change that may be made, in the order of the source."""
    def __init__(self):
        self.found = []

    def visit_BinOp(self, node):
        if type(node.op) in SWAPS:
            self.found.append((node, lambda n: setattr(n, "op", SWAPS[type(n.op)]())))
        self.generic_visit(node)

    def visit_Compare(self, node):
        if type(node.ops[0]) in SWAPS:
            self.found.append((node, lambda n: n.ops.__setitem__(0, SWAPS[type(n.ops[0])]())))
        self.generic_visit(node)

    def visit_UnaryOp(self, node):
        if isinstance(node.op, ast.Invert):
            self.found.append((node, lambda n: setattr(n, "op", ast.UAdd())))
        self.generic_visit(node)

    def visit_Subscript(self, node):
        self.visit(node.value)              # bounds of slices are widths: a wrong one seldom elaborates

    def visit_FunctionDef(self, node):
        for statement in node.body:         # neither decorators nor defaults
            self.visit(statement)

    def visit_Call(self, node):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name in UNTOUCHED:
            return
        if name == "Mux":
            self.found.append((node, lambda n: n.args.__setitem__(slice(1, 3), n.args[2:0:-1])))
        if name == "eq":
            if isinstance(node.args[0], ast.Constant) and type(node.args[0].value) is int:
                self.found.append((node, lambda n: n.args.__setitem__(0, ast.Constant(int(not n.args[0].value)))))
            self.visit(node.args[0])
        else:
            self.generic_visit(node)

    def visit_AugAssign(self, node):
        """``m.d.sync += [...]``: each assignment of the list is dropped once."""
        if isinstance(node.value, ast.List):
            for i in range(len(node.value.elts)):
                if _is_assignment(node.value.elts[i]):
                    self.found.append((node.value.elts[i], node, lambda n, i=i: n.value.elts.pop(i)))
        elif _is_assignment(node.value):
            self.found.append((node, lambda n: setattr(n, "value", ast.List(elts=[], ctx=ast.Load()))))
        self.visit(node.value)


def _is_assignment(node):
    return isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "eq"


def mutants(source: str, *, only: str | None = None, steps: tuple[str, ...] = ()) -> Iterator[Mutant]:
    """Every mutant of a module's source, in its order; of one class or function of it with ``only``, of those of its
    methods that are named in ``steps``.

    Raises ValueError for a step that there is not.
    """
    tree = ast.parse(source)
    body = [node for node in tree.body if only is None or getattr(node, "name", None) == only]
    names = {getattr(statement, "name", "") for node in body for statement in getattr(node, "body", ())}
    if unknown := sorted(set(steps) - names):
        raise ValueError(f"{only or 'the module'} has no step {', '.join(unknown)}")
    sites = _Sites()
    for node in body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            for statement in node.body:
                name = getattr(statement, "name", "")
                if name != "__init__" and (not steps or name in steps):
                    sites.visit(statement)
    for shown, *rest in sites.found:
        target = rest[0] if len(rest) == 2 else shown
        before = ast.unparse(shown)
        changed = copy.deepcopy(tree)
        twin = next(other for node, other in zip(ast.walk(tree), ast.walk(changed)) if node is target)
        rest[-1](twin)
        after = "(dropped)" if len(rest) == 2 or isinstance(shown, ast.AugAssign) else ast.unparse(twin)
        yield Mutant(shown.lineno, before, after, ast.unparse(ast.fix_missing_locations(changed)))


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
