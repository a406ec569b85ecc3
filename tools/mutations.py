"""What a mutant changes: one operator, number, condition, call or return value of a module."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator

FULL, SAMPLE = "in full", "sample"
COMPARISONS = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
NAMES = [("min", "max"), ("any", "all"), ("floor", "ceil"), ("minimum", "maximum")]
NAMES += [("argmin", "argmax"), ("zeros", "ones"), ("zeros_like", "ones_like")]
SWAPS = dict(NAMES) | {b: a for a, b in NAMES}


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One change. path: of the module, below the package; before, after: the line."""

    path: str
    line: int
    before: str
    after: str
    source: str = dataclasses.field(repr=False)
    part: str = FULL

    @property
    def key(self) -> tuple[str, str, str]:
        """What names it in the list of equivalent ones, wherever the line has moved to."""
        return self.path, self.before, self.after

    def __str__(self) -> str:
        return f"{self.path}:{self.line}\n  - {self.before}\n  + {self.after}"


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """Every node that may stand in the place of `node`, a mutant each."""
    match node:
        case ast.Compare(left, ops, comparators):
            for i, op in enumerate(ops):
                for other in COMPARISONS[type(op)]:
                    yield ast.Compare(left, [*ops[:i], other(), *ops[i + 1 :]], comparators)
        case ast.BinOp(left, op, right) if type(op) in OPERATORS:
            yield ast.BinOp(left, OPERATORS[type(op)](), right)
        case ast.AugAssign(target, op, value):
            yield ast.AugAssign(target, OPERATORS[type(op)](), value)
            yield ast.Pass()
        case ast.UnaryOp(_, operand):
            yield operand
        case ast.BoolOp(op, values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.Constant(bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(int(value) | float(value)):
            yield from (ast.Constant(value + 1), ast.Constant(value - 1))
        case ast.Return(value) if value is not None:
            if not isinstance(value, ast.Constant) or value.value is not None:
                yield ast.Return(ast.Constant(None))
        case ast.If(_, body, orelse):
            yield from (ast.If(ast.Constant(value), body, orelse) for value in (True, False))
        case ast.IfExp(_, body, orelse):
            yield from (body, orelse)
        case ast.comprehension(target, iter_, ifs, is_async) if ifs:
            yield ast.comprehension(target, iter_, [], is_async)
        case ast.For(target, _, body, orelse):
            yield ast.For(target, ast.List([], ast.Load()), body, orelse)
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()
        case ast.Expr(ast.Call()):
            yield ast.Pass()
        case ast.ExceptHandler(_, name, body):
            yield ast.ExceptHandler(ast.Name("NotImplementedError", ast.Load()), name, body)
        case ast.Name(name, ctx) if name in SWAPS:
            yield ast.Name(SWAPS[name], ctx)
        case ast.Attribute(value, name, ctx) if name in SWAPS:
            yield ast.Attribute(value, SWAPS[name], ctx)


def places(tree: ast.AST) -> Iterator[tuple[ast.AST, str, int | None]]:
    """Parent, field and index of every node that is computed: no annotation, no pattern."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "type_params", "ctx", "op", "ops", "pattern"):
            continue
        for i, child in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(child, ast.AST):
                yield tree, name, i if isinstance(value, list) else None
                yield from places(child)


def get(parent: ast.AST, name: str, index: int | None) -> ast.AST:
    """The node at a place."""
    return getattr(parent, name) if index is None else getattr(parent, name)[index]


def mutants(path: str, text: str, part: str) -> list[Mutant]:
    """All mutants of a module.

    >>> [m.after for m in mutants("a.py", "def f(x):\\n    return x < 1", FULL)]
    ['return None', 'return x <= 1', 'return x > 1', 'return x < 2', 'return x < 0']
    """
    tree, all_mutants = ast.parse(text), []
    parts = [ast.unparse(statement) for statement in tree.body]
    for number, statement in enumerate(tree.body):
        holder = ast.Module([statement], [])
        for parent, name, index in list(places(holder)):
            node = get(parent, name, index)
            for change in changes(node):
                put(parent, name, index, ast.copy_location(change, node))
                changed = ast.unparse(holder)
                put(parent, name, index, node)
                before, after = first_difference(parts[number], changed)
                source = "\n".join([*parts[:number], changed, *parts[number + 1 :]])
                line = getattr(node, "lineno", getattr(parent, "lineno", 0))
                all_mutants.append(Mutant(path, line, before, after, source, part))
    return list({m.source: m for m in all_mutants if m.before != m.after}.values())


def put(parent: ast.AST, name: str, index: int | None, node: ast.AST) -> None:
    """Have a node at a place."""
    if index is None:
        setattr(parent, name, node)
    else:
        getattr(parent, name)[index] = node


def first_difference(a: str, b: str) -> tuple[str, str]:
    """The first line in which they differ, in each."""
    for one, other in zip(a.splitlines(), b.splitlines(), strict=False):
        if one != other:
            return one.strip(), other.strip()
    return "", ""
