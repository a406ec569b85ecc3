"""docs/library.md: its code runs, and its tables are those of the package."""

import re
from pathlib import Path

import optax
import pytest

import fairgrape_jax as fg
from fairgrape_jax.masks import density
from fairgrape_jax.methods import METHODS

PAGE = (Path(__file__).parents[1] / "docs" / "library.md").read_text()
CODE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
# None where nothing is pruned.
DENSITIES = {
    "nnx": 0.1,
    "function": 0.4,
    "loop": 0.1,
    "structures": None,
    "int8": 0.2,
    "audit": None,
    "run": 0.1,
}


@pytest.mark.whole(but=2)
@pytest.mark.parametrize(
    ("code", "expected"), [*zip(CODE, DENSITIES.values(), strict=True)], ids=[*DENSITIES]
)
def test_the_code_runs_and_prunes(code, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    if "small" in names:
        assert 0.4 < names["info"]["flops"] <= 0.5
        assert (
            names["smaller"]["params"]["fc"]["kernel"].shape[1]
            == names["info"]["groups"]["params/fc"]
        )
        return
    if "trained" in names:
        assert names["network"].bytes < names["x"].nbytes
        assert density(names["masks"]) == pytest.approx(expected, abs=0.01)
        held = names["trained"].params["int8"]["hidden/w"]
        assert not held[~names["masks"]["hidden"]["w"]].any()
        return
    if expected is None:
        assert "the loss is largest for a" in (tmp_path / "audits/mine/report.md").read_text()
        return
    assert density(names["masks"]) == pytest.approx(expected, abs=0.01)
    assert names["info"]["density"] == density(names["masks"])


def test_the_loop_of_the_readme_runs():
    """On the network of the tutorials: what the README leaves to the reader is filled in here."""
    names = {}
    exec(CODE[0], names)
    params, masks = names["params"], fg.full_masks(names["params"])
    names["state"] = fg.masked(optax.adam(1e-3), masks).init(params)
    names["batches"] = [(batch, groups) for batch, groups in names["batches"]]
    names["train"] = lambda params, state: (fg.apply_masks(state.masks, params), state)
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    exec(re.findall(r"```python\n(.*?)```", readme, re.DOTALL)[0], names)
    assert density(names["masks"]) == pytest.approx(0.02, abs=0.01)
    assert density(names["state"].masks) == density(names["masks"])


def test_the_first_tutorial_is_short():
    lines = [line for line in CODE[0].splitlines() if line.strip()]
    assert len(lines) <= 25


def test_the_table_of_needs_is_that_of_the_methods():
    table = re.search(r"\| method \| needs \|\n\|---\|---\|\n((?:\|.*\n)+)", PAGE).group(1)
    words = {"a loss": "loss_fn=", "a module": "module=", "a key": "key=", "a run": "a run"}
    words |= {"scores": "scores=", "a minority": "minority="}
    listed = set()
    for row in table.splitlines():
        names, needs = (cell.strip() for cell in row.strip("|").split("|"))
        for name in re.findall(r"`([\w-]+)`", names):
            listed.add(name)
            for need, word in words.items():
                assert (word in needs) == (need in METHODS[name].needs), name
    assert listed == set(METHODS)


def test_every_name_is_on_the_page():
    assert [name for name in fg.__all__ if f"fg.{name}" not in PAGE and name[0].islower()] == []


def test_every_name_on_the_page_is_there():
    for name in set(re.findall(r"`fg\.(\w+)", PAGE)) | set(re.findall(r"\bfg\.(\w+)\(", PAGE)):
        assert hasattr(fg, name), name
