"""The README's code runs, its commands exist, and imports go down the floors that it draws."""

import ast
import re
from pathlib import Path

import pytest
from test_methods import Odd, alive_in, pruned

import fairgrape_jax
from fairgrape_jax import models
from fairgrape_jax.cli import main
from fairgrape_jax.methods import METHODS, Method
from fairgrape_jax.selection.counts import counts

ROOT = Path(__file__).parents[1]
PACKAGE = Path(fairgrape_jax.__file__).parent
README = (ROOT / "README.md").read_text()
# From the highest floor down; a module may import what stands below it or beside it.
FLOORS = [
    {"__main__"},
    {"cli", "data_command"},
    {
        "rounds",
        "outcome",
        "space",
        "retention",
        "rollback",
        "repro",
        "fitting",
        "report",
        "plots",
        "preflight",
        "clusters",
        "resume",
        "layout",
        "audit",
        "sections",
        "recorded",
    },
    {"pruning"},
    {"measure"},
    {"stages", "steps"},
    {"protocols"},
    {"config"},
    {"train", "evaluate", "checkpoint"},
    {"passes"},
    {"progress"},
    {"comparison", "tables", "document", "charts"},
    {"methods"},
    {"scoring", "maxmin"},
    {"statistic"},
    {"importance"},
    {"selection", "schedules", "losses", "metrics", "similarity"},
    {"models", "data"},
    {
        "masks",
        "parallel",
        "hosts",
        "lock",
        "integrity",
        "storage",
        "memory",
        "finite",
        "errors",
        "compiled",
        "words",
        "forms",
        "preemption",
    },
]


EXTENDING = (ROOT / "docs" / "extending.md").read_text()


def blocks(language, text=README):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_first_example_runs():
    names = {}
    exec(blocks("python")[0], names)
    assert names["mask"].sum() == len(names["layer"]) // 10


@pytest.mark.parametrize("code", blocks("python", EXTENDING), ids=["groups", "statistic"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_the_methods_of_the_guide_keep_what_a_method_promises(code, scope, monkeypatch):
    assert len(code.splitlines()) <= 20
    names = {}
    exec(code, names)
    monkeypatch.setitem(METHODS, "new", Method("a new one", names["score"]))
    monkeypatch.setitem(models.MODELS, "odd", Odd)
    chosen = pruned("new", 0.3, scope=scope)
    for layer, wanted in counts(chosen, 0.3, scope, 1).items():
        found = alive_in(chosen)
        assert (sum(found.values()) if scope == "global" else found[layer]) == wanted
    assert "everybody" not in METHODS  # else the guide should show another one


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"(?:experiments|docs)/[\w/]+\.\w+", README)))
)
def test_files_that_the_readme_names_exist(path):
    assert (ROOT / path).is_file()


def test_overrides_in_the_readme_are_known():
    command = next(text for text in blocks("") if "--data.limit" in text)
    words = command.replace("\\\n", " ").split()[2:]
    path, *overrides = words
    flags = {word for word in overrides if word.startswith("--")} - {"--out"}
    values = main.load(ROOT / path)
    for flag in flags:
        value = values
        for name in flag[2:].replace("-", "_").split("."):
            assert hasattr(value, name), flag
            value = getattr(value, name)


def test_make_targets_in_the_readme_exist():
    targets = set(re.findall(r"^make ([\w-]+)", README, re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text()
    assert targets
    assert all(f"\n{target}:" in makefile for target in targets)


def floor(module):
    """How many floors lie above a module of the package."""
    top = module.split(".")[0]
    return next(i for i, names in enumerate(FLOORS) if top in names)


@pytest.mark.parametrize(
    "path",
    sorted(PACKAGE.rglob("*.py")),
    ids=lambda p: f"{p.parent.name}.{p.stem}",
)
def test_imports_go_down(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if parts == ("__init__",):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if not (
            isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fairgrape_jax")
        ):
            continue
        inside = node.module.removeprefix("fairgrape_jax").removeprefix(".")
        imported = [inside] if inside else [alias.name for alias in node.names]
        for module in imported:
            assert floor(module) >= floor(parts[0]), f"{'.'.join(parts)} imports {module}"
