"""The study of departures: its variants are single switches, its tables those of its cells."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from experiments import study
from experiments.departures import cells, tables, variants
from experiments.departures.cells import Cell
from experiments.departures.variants import DENSITIES, GROUPINGS, MEASURED, PAPER, VARIANTS
from experiments.study import pack
from fairgrape_jax import config
from fairgrape_jax.data import load
from tests.helpers.experiments import TINY

ROOT = Path(__file__).parents[2]


def test_every_variant_is_the_papers_own_with_its_switches_alone():
    for grouping in GROUPINGS:
        paper = variants.experiment(grouping, PAPER)
        assert (paper.scoring.deficit, paper.scoring.advances) == ("relative", 1)
        for name, switches in VARIANTS.items():
            one = variants.experiment(grouping, name)
            config.check(one)
            changed = {
                field.name
                for field in dataclasses.fields(one.scoring)
                if getattr(one.scoring, field.name) != getattr(paper.scoring, field.name)
            }
            assert changed == set(switches)
            assert dataclasses.replace(one, scoring=paper.scoring) == paper
    alone = [switches for switches in VARIANTS.values() if len(switches) == 1]
    assert {name for switches in alone for name in switches} == set(VARIANTS["all four"])


def test_the_digits_are_the_groups_of_the_same_samples():
    digits, writers = (load(variants.data_of(grouping)) for grouping in reversed(GROUPINGS))
    for split in ("validation", "test"):
        one, other = getattr(digits, split), getattr(writers, split)
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.groups, one.labels[:, 0])
        np.testing.assert_array_equal(one.images, other.images)


@pytest.mark.whole
def test_committed_cells_are_of_these_experiments_and_the_document_has_their_tables():
    planned = {cell.path: cell for cell in cells.cells()}
    done = {}
    for path in cells.FOLDER.glob("*.json"):
        content = planned[path].read()
        assert content is not None, f"{path.name}: of another experiment"
        done[planned[path]] = content
    groups = {grouping: load(variants.data_of(grouping)).test.groups for grouping in GROUPINGS}
    text = (ROOT / "docs" / "results" / "departures.md").read_text()
    ordered = {cell: done[cell] for cell in cells.cells() if cell in done}
    for part in tables.tables(ordered, groups).strip().split("\n\n"):
        assert part in text


@pytest.mark.whole
def test_a_cell_is_run_gone_on_with_and_compared_with_the_papers(tmp_path, monkeypatch):
    """Two variants of an experiment of seconds: the absolute deficit of three groups differs."""
    plain = dataclasses.replace(TINY, methods=("fairgrape",), densities=MEASURED, seeds=(0,))

    def experiment(grouping, variant):
        scoring = dataclasses.replace(TINY.scoring, **VARIANTS[variant])
        return dataclasses.replace(plain, scoring=scoring)

    monkeypatch.setattr(cells, "experiment", experiment)
    monkeypatch.setattr(cells, "FOLDER", tmp_path / "cells")
    assert cells.planned_seconds(2) == 2 * study.TYPICAL
    for variant in (PAPER, variants.ACCUMULATED):
        cell = Cell("digits", variant)
        assert cell.read() is None
        cells.run_cell(cell, tmp_path / "runs")
        content = cell.read()
        (seed,) = content["seeds"].values()
        assert list(seed["pruned"]) == [f"{density:g}" for density in MEASURED]
        for other, kept in seed["other"]:
            assert (other > 0) == (variant != PAPER)
            assert other < kept
    content["experiment"]["batch"] = 7
    cell.path.write_text(json.dumps(content))
    assert cell.read() is None


def test_the_tables_say_what_differs_and_that_nothing_does():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 3, 200)
    right = rng.random((2, 200)) < 0.9

    def content(flipped):
        changed = right.copy()
        changed[:, :flipped] = ~changed[:, :flipped]
        one = {
            str(seed): {
                "dense": pack(right[seed]),
                "pruned": {f"{d:g}": pack(changed[seed]) for d in MEASURED},
                "other": [[flipped, 1000], [2 * flipped, 100]],
            }
            for seed in (0, 1)
        }
        return {"seeds": one}

    done = {
        Cell("digits", PAPER): content(0),
        Cell("digits", variants.DIVIDED): content(0),
        Cell("digits", variants.ABSOLUTE): content(40),
        Cell("writers", variants.ABSOLUTE): content(40),  # without the paper's own: left out
    }
    text = tables.tables(done, {"digits": groups, "writers": groups})
    assert text.count("### ") == 1
    assert "| absolute deficit | 4.00 % | 80.00 % |" in text
    assert f"{100 * DENSITIES[0]:g} %" in text
    rows = [line for line in text.splitlines() if line.startswith("| last group divided")]
    assert rows[0].endswith("| 0.00 % | 0.00 % |")
    assert all(row.count("(none)") == 4 for row in rows[1:])
    accuracy = next(row for row in text.splitlines() if row.startswith("| absolute") and "±" in row)
    difference = (40 - 2 * right[:, :40].sum(axis=1)).mean() / 2
    assert f"({difference:+.2f} ± " in accuracy
    assert "*" in accuracy
