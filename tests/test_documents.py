"""The README: its code runs, its commands exist, and the folders that it draws are there."""

import re
from pathlib import Path

import pytest

import fairgrape_jax
from fairgrape_jax import models
from fairgrape_jax.cli.run import load
from fairgrape_jax.methods import METHODS, Method
from fairgrape_jax.selection import allocate
from tests.helpers.odd_network import Odd, alive_in, pruned

ROOT = Path(__file__).parents[1]
PACKAGE = Path(fairgrape_jax.__file__).parent
README = (ROOT / "README.md").read_text()
EXTENDING = (ROOT / "docs" / "extending.md").read_text()


def blocks(language, text=README):
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [code for name, code in fenced if name == language]


def test_the_example_of_a_layer_runs():
    names = {}
    exec(blocks("python")[1], names)
    assert names["mask"].sum() == names["layer"].shape[1] // 10


@pytest.mark.parametrize("code", blocks("python", EXTENDING), ids=["groups", "statistic"])
@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_the_methods_of_the_guide_keep_what_a_method_promises(code, allocation, monkeypatch):
    assert len(code.splitlines()) <= 20
    names = {}
    exec(code, names)
    monkeypatch.setitem(METHODS, "new", Method("a new one", names["score"]))
    monkeypatch.setitem(models.MODELS, "odd", Odd)
    chosen = pruned("new", 0.3, allocation=allocation)
    for layer, wanted in allocate(chosen, 0.3, allocation, minimum=1).items():
        found = alive_in(chosen)
        assert (sum(found.values()) if allocation == "global" else found[layer]) == wanted
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
    values = load(ROOT / path)
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


def test_the_folders_that_the_readme_draws_are_those_of_the_package():
    inside = README.partition("\nfairgrape_jax/\n")[2].partition("```")[0]
    drawn = set(re.findall(r"(?<=[ (])([a-z_]+)/(?= |,|\n|$)", inside))
    there = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert there <= drawn
