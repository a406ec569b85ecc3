"""Names and docstrings of the package: plain words, and what a documentation tool renders."""

import ast
import functools
import logging
import re
from pathlib import Path

import griffe
import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fairgrape_jax"

# Participles and riddles that name no thing of the field, and what they hid.
BANNED = set(
    """
    ahead aside asked beside checked_types extended found from_first given how in_a_line looked
    meant mine ours own replacing said seen spoken taught theirs told told_apart wanted
    """.split()  # noqa: SIM905 (a list of them fills the page)
)


def files(parts, root=PACKAGE):
    """The Python files of folders and of single files."""
    paths = [root / part for part in parts]
    return [p for path in paths for p in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]


def names(tree):
    """Names that a file gives: of variables, arguments, fields, functions, classes, imports."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name


def banned(text):
    return sorted({name for name in names(ast.parse(text)) if name.strip("_") in BANNED})


@pytest.mark.parametrize("path", files(["fairgrape_jax", "tools", "experiments"], ROOT), ids=str)
def test_no_name_is_a_riddle(path):
    assert banned(path.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        "found = 1",
        "def told(): pass",
        "def _told(): pass",
        "class given: pass",
        "def f(a, *, how): pass",
        "lambda own: own",
        "for mine in []: pass",
        "self.asked = 1",
        "a, (b, said) = 1",
        "[wanted for wanted in []]",
        "import numpy as beside",
        "try: pass\nexcept ValueError as found: pass",
        "with f() as looked: pass",
        "if (seen := 1): pass",
        "class A:\n    spoken: int = 0",
    ],
)
def test_the_rule_above_finds_what_it_is_for(text):
    assert banned(text) != []
    assert banned("x = found\nf(how=1)\ny = a.told") == []  # what others are called


@functools.cache
def package():
    """The package as griffe reads it, without an import."""
    return griffe.load("fairgrape_jax", search_paths=[str(ROOT)], allow_inspection=False)


def public(module):
    """The public classes and functions that a module defines, and methods of such classes."""
    for member in module.members.values():
        if member.is_alias or member.is_module or member.name.startswith("_"):
            continue
        if member.is_class:
            yield member
            yield from public(member)
        elif member.is_function:
            yield member


def parameters(member):
    """Of a function its parameters without self; of a class its fields and attributes."""
    if member.is_class:
        fields = {name for name, part in member.members.items() if part.is_attribute}
        return fields | set(re.findall(r"\bself\.(\w+)", member.source))
    listed = [parameter.name for parameter in member.parameters]
    method = member.parent.is_class and "staticmethod" not in member.labels
    return set(listed[1:] if method else listed)


def faults(member):
    """What is wrong with the docstring of a function or class of griffe."""
    if member.docstring is None:
        return [f"{member.path}: no docstring"] if not property_or_overload(member) else []
    records = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: records.append(record.getMessage())
    logger = logging.getLogger("griffe")
    logger.addHandler(handler)
    try:
        sections = member.docstring.parse("google")
    finally:
        logger.removeHandler(handler)
    wrong = [f"{member.path}: {record}" for record in records]
    listed = {
        item.name
        for section in sections
        if section.kind.value in ("parameters", "attributes")
        for item in section.value
    }
    expected = parameters(member)
    if member.is_class:
        wrong += [f"{member.path}: no attribute {name}" for name in sorted(listed - expected)]
    elif listed != expected:
        wrong.append(f"{member.path}: Args are {sorted(listed)}, parameters {sorted(expected)}")
    return wrong


def property_or_overload(member):
    return bool({"property", "overload"} & set(member.labels))


@pytest.mark.parametrize("path", files(["."]), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_documented_args_are_the_parameters_and_every_section_is_rendered(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    module = package()
    for part in parts[:-1] if parts[-1] == "__init__" else parts:
        module = module.members[part]
    assert [fault for member in public(module) for fault in faults(member)] == []


@pytest.mark.parametrize(
    ("signature", "sections", "expected"),
    [
        ("f(a, b): pass", "Args:\n        a: one.", "Args are ['a'], parameters ['a', 'b']"),
        ("f(a): pass", "Args:\n        b: one.", "Args are ['b'], parameters ['a']"),
        ("f(a: int, b: int): pass", "Args:\n        a, b: both.", "Args are"),
        ("f(a: int): pass", "Args:\n        one of them\n", "Failed to get 'name: description'"),
        ("f() -> int: pass", "Raises:\n        nothing much\n", "Failed to get 'exception"),
        ("f(): pass", "Returns:\n        A number.\n", "No type or annotation for returned"),
        ("f(a): pass", "", "Args are [], parameters ['a']"),
        ("f(a: int, *b: int, **c: int): pass", "Args:\n        a: 1.\n        b: 2.\n", "Args are"),
    ],
)
def test_the_rule_about_docstrings_finds_what_it_is_for(signature, sections, expected):
    head, _, body = signature.rpartition(": ")
    text = f'def {head}:\n    """A line.\n\n    {sections}\n    """\n    {body}\n'
    with griffe.temporary_visited_module(text) as module:
        wrong = faults(module["f"])
    assert any(expected in fault for fault in wrong), wrong
