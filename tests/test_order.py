"""No order of a set reaches a result: it changes with PYTHONHASHSEED.

tests/reports compare the bytes of reports under several hash seeds; this is about all other code.
"""

import ast
from pathlib import Path

import pytest

import fairgrape_jax

PACKAGE = Path(fairgrape_jax.__file__).parent
ORDERED = ("list", "tuple", "enumerate", "iter", "zip")


def is_set(node):
    """Whether an expression is a set, as far as its text tells."""
    match node:
        case ast.Set() | ast.SetComp():
            return True
        case ast.Call(func=ast.Name(id="set" | "frozenset")):
            return True
        case ast.BinOp(left=left, op=ast.Sub() | ast.BitAnd() | ast.BitXor(), right=right):
            return any(is_set(side) or is_keys(side) for side in (left, right))
    return False


def is_keys(node):
    return isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "keys"


def in_set_order(text):
    """The expressions of a source that take the elements of a set one after the other."""
    taken = []
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.For(iter=source):
                taken.append(source)
            case ast.ListComp() | ast.GeneratorExp() | ast.DictComp():
                taken += [part.iter for part in node.generators]
            case ast.Call(func=ast.Name(id=name), args=args) if name in ORDERED:
                taken += args
            case ast.Call(func=ast.Attribute(attr="join"), args=args):
                taken += args
    return [ast.unparse(source) for source in taken if is_set(source)]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_nothing_goes_through_a_set_in_its_order(path):
    assert in_set_order(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text",
    ["for x in {1, 2}: pass", "list(set(a))", "', '.join({*a})", "[x for x in a.keys() - b]"],
)
def test_what_goes_through_a_set_is_noticed(text):
    assert len(in_set_order(text)) == 1
