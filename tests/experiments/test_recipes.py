"""The study of recipes: its cells are those of its recipes, and its tables those of the metrics."""

import json

import numpy as np
import pytest

from experiments.recipes import cells, tables
from experiments.recipes.recipes import BASE, DENSITIES, FRESH_SEEDS, MEASURED, RECIPES, experiment
from fairgrape_jax import config, metrics
from fairgrape_jax.metrics.samples import Samples


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_an_experiment(name):
    for share in (0.05, 0.01):
        config.check(experiment(RECIPES[name], share, 0))


def test_what_is_measured_comes_last():
    assert DENSITIES[-len(MEASURED) :] == MEASURED


def test_every_committed_cell_is_of_the_recipe_that_stands_in_the_table():
    planned = [*cells.cells(), *cells.cells(seeds=FRESH_SEEDS, split="test")]
    paths = {cell.path: cell for cell in planned}
    assert len(paths) == len(planned)
    for path in cells.FOLDER.glob("*.json"):
        cell = paths[path]
        content = cell.read()
        assert content is not None, f"{path.name}: of another recipe than that of this name"
        assert list(content["pruned"]) == [f"{value:g}" for value in MEASURED]
        samples = content["samples"]
        assert samples == (4000 if paths[path].split == "test" else 2000)
        for value in content["pruned"].values():
            assert len(cells.unpack(value["right"], samples)) == samples


def test_a_cell_of_another_recipe_of_that_name_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "FOLDER", tmp_path)
    cell = cells.Cell(BASE, 0.05, 0)
    assert cell.read() is None
    content = {"seconds": 7200.0, "experiment": cells.described(cell)}
    cell.path.write_text(json.dumps(content))
    assert cell.read() == content
    assert cells.planned_hours([cell]) == 2.0
    content["experiment"]["batch"] = 32
    cell.path.write_text(json.dumps(content))
    assert cell.read() is None


def made(recipes=3, seeds=4, samples=300):
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 3, samples)
    dense = rng.random((seeds, samples)) < 0.95
    right = rng.random((recipes, seeds, samples)) < np.linspace(0.6, 0.9, recipes)[:, None, None]
    return right, dense, groups


def test_the_values_are_those_of_the_metrics_and_the_spread_that_of_their_bootstrap():
    right, dense, groups = made()
    table = tables.compare(right, dense, groups)
    names = ("accuracy", "worst_group", "excess_gap", "rho_change")
    samples = Samples(np.ones((len(groups), 1), int), groups, [2], 3)
    for number, one in enumerate(right):
        pair = one[..., None].astype(int), dense[..., None].astype(int)
        for k, name in enumerate(names):
            statistic = metrics.each(getattr(metrics, name))
            value = statistic(*(samples.tally(each) for each in pair))
            np.testing.assert_allclose(table[0, number, k], value)
            draws = metrics.replicate(statistic, samples, *pair, replicates=2000, seed=1)
            spread = table[1:, number, k].std(ddof=1)
            assert spread == pytest.approx(draws.std(ddof=1), rel=0.12)


def test_differences_hold_for_all_recipes_together_and_are_zero_for_the_base():
    right, dense, groups = made(seeds=2, samples=200)
    right[1] = right[0]  # the same recipe again
    table = tables.compare(right, dense, groups)
    compared = tables.Compared(tuple(RECIPES)[:3], table[0], table[1:])
    base = compared.names[0]
    value, reach = tables.against(compared, base)
    assert not value[:2].any()
    assert not reach[:2].any()
    draws = table[1:, 2] - table[1:, 0]
    alone = np.quantile(np.abs(draws - draws.mean(axis=0)), 0.95, axis=0)
    np.testing.assert_allclose(reach[2], alone, rtol=0.01)  # of one recipe that differs


def test_the_confirmation_has_one_interval_for_all_comparisons_together():
    right, dense, groups = made(recipes=3, seeds=2, samples=120)
    names = ["fairgrape", "importance", "balanced"]
    done = {
        cells.Cell(name, 0.05, seed, "test"): {
            "dense": cells.pack(dense[seed]),
            "pruned": {f"{d:g}": {"right": cells.pack(right[m, seed])} for d in MEASURED},
        }
        for m, name in enumerate(names)
        for seed in (0, 1)
    }
    chosen = {"recipes": names[2:], "bases": names[:2], "densities": ("0.005", "0.002")}
    rows = tables.confirmation(done, 0.05, groups, **chosen).strip().split("\n")[2:]
    assert len(rows) == 1 * 2 * 2 * 2
    table = tables.compare(right, dense, groups)
    order = [list(RECIPES).index(name) for name in names]
    assert order == sorted(order)  # as gather has them
    value = table[0, 2, 1] - table[0, 0, 1]
    assert f"| 0.5 % | worst group | balanced | fairgrape | {value:+.2f} ± " in rows[0]
    alone = 1.96 * (table[1:, 2, 1] - table[1:, 0, 1]).std(ddof=1)
    assert float(rows[0].split("±")[1].strip(" |*")) > alone
    assert "No seed" in tables.confirmation({}, 0.05, groups, **chosen)


def test_the_tables_say_what_is_compared(monkeypatch):
    right, dense, _ = made(recipes=2, seeds=2, samples=60)
    groups = np.arange(60) % 2
    names = [BASE, "kd"]
    done = {
        cells.Cell(name, 0.05, seed): {
            "dense": cells.pack(dense[seed]),
            "pruned": {f"{d:g}": {"right": cells.pack(right[m, seed])} for d in MEASURED},
        }
        for m, name in enumerate(names)
        for seed in (0, 1)
    }
    done |= {cells.Cell("dro", 0.05, 0): done[cells.Cell("kd", 0.05, 0)]}  # a seed is missing
    text = tables.tables(done, groups)
    assert text.count("### ") == len(MEASURED)
    assert "(2 seeds, 2 recipes)" in text
    assert "| kd |" in text
    assert "| dro |" not in text
