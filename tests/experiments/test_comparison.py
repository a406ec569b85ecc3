"""The tables of a study are those of the metrics; intervals hold for all rows together."""

import numpy as np
import pytest

from experiments import comparison, study
from experiments.recipes.recipes import MEASURED, STUDY
from fairgrape_jax import metrics
from fairgrape_jax.metrics.samples import Samples


def made(rows=3, seeds=4, samples=300):
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 3, samples)
    dense = rng.random((seeds, samples)) < 0.95
    right = rng.random((rows, seeds, samples)) < np.linspace(0.6, 0.9, rows)[:, None, None]
    return right, dense, groups


def test_the_values_are_those_of_the_metrics_and_the_spread_that_of_their_bootstrap():
    right, dense, groups = made()
    table = comparison.compare(right, dense[None], groups)
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


def test_each_row_is_compared_with_the_dense_network_that_it_came_from():
    right, dense, groups = made(rows=2)
    own = np.stack([dense, np.roll(dense, 1, axis=-1)])
    table = comparison.compare(right, own, groups)
    for number in range(2):
        alone = comparison.compare(right[number : number + 1], own[number : number + 1], groups)
        np.testing.assert_array_equal(table[:, number], alone[:, 0])
    assert (table[:, 1, 2:] != comparison.compare(right, dense[None], groups)[:, 1, 2:]).any()


def test_differences_hold_for_all_rows_together_and_are_zero_for_the_base():
    right, dense, groups = made(seeds=2, samples=200)
    right[1] = right[0]  # the same row again
    table = comparison.compare(right, dense[None], groups)
    compared = comparison.Compared(tuple(STUDY.rows)[:3], table[0], table[1:], 2, np.ones(3))
    base = compared.names[0]
    value, reach = comparison.against(compared, base)
    assert not value[:2].any()
    assert not reach[:2].any()
    draws = table[1:, 2] - table[1:, 0]
    alone = np.quantile(np.abs(draws - draws.mean(axis=0)), 0.95, axis=0)
    np.testing.assert_allclose(reach[2], alone, rtol=0.01)  # of one row that differs


def test_differences_of_pairs_have_one_interval_for_all_comparisons_together():
    right, dense, groups = made(rows=3, seeds=2, samples=120)
    names = ["fairgrape", "importance", "balanced"]
    done = {
        study.Cell(STUDY, name, 0.05, seed, "test"): {
            "dense": study.pack(dense[seed]),
            "pruned": {
                f"{d:g}": {"density": d, "right": study.pack(right[m, seed])} for d in MEASURED
            },
        }
        for m, name in enumerate(names)
        for seed in (0, 1)
    }
    chosen = {"pairs": [(names[2], base) for base in names[:2]], "densities": ("0.005", "0.002")}
    rows = comparison.differences(STUDY, done, 0.05, groups, **chosen).strip().split("\n")[2:]
    assert len(rows) == 1 * 2 * 2 * 2
    table = comparison.compare(right, dense[None], groups)
    order = [list(STUDY.rows).index(name) for name in names]
    assert order == sorted(order)  # as gather has them
    value = table[0, 2, 1] - table[0, 0, 1]
    assert f"| 0.5 % | worst group | balanced | fairgrape | {value:+.2f} ± " in rows[0]
    alone = 1.96 * (table[1:, 2, 1] - table[1:, 0, 1]).std(ddof=1)
    assert float(rows[0].split("±")[1].strip(" |*")) > alone
    assert "No seed" in comparison.differences(STUDY, {}, 0.05, groups, **chosen)


def test_the_tables_say_what_is_compared(monkeypatch):
    right, dense, _ = made(rows=2, seeds=2, samples=60)
    groups = np.arange(60) % 2
    names = [STUDY.base, "kd"]
    done = {
        study.Cell(STUDY, name, 0.05, seed): {
            "dense": study.pack(dense[seed]),
            "pruned": {
                f"{d:g}": {"density": d, "right": study.pack(right[m, seed])} for d in MEASURED
            },
        }
        for m, name in enumerate(names)
        for seed in (0, 1)
    }
    done |= {
        study.Cell(STUDY, "dro", 0.05, 0): done[study.Cell(STUDY, "kd", 0.05, 0)]
    }  # a seed is missing
    text = comparison.tables(STUDY, done, groups)
    assert text.count("### ") == len(MEASURED)
    assert "(2 seeds, 2 rows)" in text
    assert "| kd |" in text
    assert "| dro |" not in text
    alone = comparison.tables(
        STUDY, {cell: done[cell] for cell in done if cell.row == STUDY.base}, groups
    )
    assert "(2 seeds, 1 rows)" in alone
