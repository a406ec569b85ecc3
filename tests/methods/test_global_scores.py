"""Scores meant for one count of the network: fair-LAMP, the group in need, undecayed, Fisher."""

from pathlib import Path

import jax
import numpy as np
import pytest

from fairgrape_jax.methods import METHODS, Problem, fair_lamp, fairgrape_min, prune, undecayed

GOLDEN = Path(__file__).parents[1] / "golden"
LAYERS = ("conv1", "conv2", "dw", "conv3", "conv4", "fc")


def test_fair_lamp_of_one_group_is_lamp():
    """Against the masks that the code of LAMP's authors gives."""
    golden = np.load(GOLDEN / "allocations.npz")
    weights = {layer: {"kernel": golden[f"w.{layer}"]} for layer in LAYERS}
    squares = jax.tree.map(lambda w: np.square(w.astype(np.float64))[None], weights)
    alive = jax.tree.map(lambda w: np.ones(w.shape, bool), weights)
    problem = Problem(weights, alive, importance=lambda over: squares, allocation="global")
    for kept in ("0.5", "0.2", "0.05"):
        count = int(golden[f"lamp.keep{kept}.counts"].sum())
        size = sum(leaf.size for leaf in jax.tree.leaves(alive))
        for name in ("fair-lamp", "fair-lamp-mean"):
            chosen = prune(METHODS[name], problem, (count + 0.5) / size)
            for layer in LAYERS:
                packed = golden[f"lamp.keep{kept}.mask.{layer}"]
                shape = golden[f"w.{layer}"].shape
                expected = np.unpackbits(packed)[: np.prod(shape)].reshape(shape).astype(bool)
                np.testing.assert_array_equal(chosen[layer]["kernel"], expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_fair_lamp_is_its_formula_at_every_scale(dtype, scale):
    rng = np.random.default_rng(0)
    rows = np.round(rng.random((3, 4, 5)), 1)  # many ties, and zeros
    rows[1] = 0
    info = np.finfo(dtype)
    values = (rows * np.clip(scale, 16 * float(info.tiny), float(info.max) / 2)).astype(dtype)
    exact = values.astype(np.longdouble).reshape(3, -1)
    expected = np.zeros_like(exact)
    for k, row in enumerate(exact):
        for w, value in enumerate(row):
            total = row[row >= value].sum()
            expected[k, w] = value / total if total else 0
    np.testing.assert_allclose(fair_lamp.layer_adaptive(values).reshape(3, -1), expected, rtol=1e-5)


def test_no_group_and_no_layer_is_wiped_out_by_fair_lamp():
    rng = np.random.default_rng(1)
    scale = {"a": 1e-12, "b": 1.0, "c": 1e12}
    scores = {
        name: {"kernel": (s * rng.lognormal(0, 3, (4, 10, 10))).astype(np.float32)}
        for name, s in scale.items()
    }
    alive = {name: {"kernel": np.ones((10, 10), bool)} for name in scale}
    problem = Problem(None, alive, importance=lambda over: scores, allocation="global")
    chosen = prune(METHODS["fair-lamp"], problem, 12 / 300)
    for name, layer in scores.items():
        flat = layer["kernel"].reshape(4, -1)
        assert chosen[name]["kernel"].reshape(-1)[flat.argmax(axis=1)].all()


@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_the_group_in_need_is_the_one_that_a_weight_serves_least(allocation):
    rng = np.random.default_rng(2)
    scores = {name: {"kernel": rng.random((3, 6, 4))} for name in ("a", "b")}
    scores["a"]["kernel"][1] = 0  # group 1 has no importance in the first layer
    alive = jax.tree.map(lambda x: np.ones(x.shape[1:], bool), scores)
    problem = Problem(None, alive, importance=lambda over: scores, allocation=allocation)
    parts = fairgrape_min.score(problem)
    rows = {name: layer["kernel"].reshape(3, -1) for name, layer in scores.items()}
    totals = {name: row.sum(axis=1) for name, row in rows.items()}
    if allocation == "global":
        totals = dict.fromkeys(totals, totals["a"] + totals["b"])
    for name, row in rows.items():
        some = totals[name] > 0
        expected = (row[some] / totals[name][some, None]).min(axis=0)
        np.testing.assert_allclose(parts[name]["kernel"].reshape(-1), expected, rtol=1e-5)


def test_undecayed_scores_are_those_of_the_released_code():
    """Their masks have one weight fewer than the fraction says; ours are exact."""
    golden = np.load(GOLDEN / "undecayed.npz")
    names = ("conv1", "conv2", "fc1", "fc2")
    weights = {name: {"kernel": golden[f"param.{name}.weight"]} for name in names}
    alive = jax.tree.map(lambda w: np.ones(w.shape, bool), weights)
    size = sum(leaf.size for leaf in jax.tree.leaves(alive))
    for step in ("iter1", "iter2", "iter3"):
        gradient = {name: {"kernel": golden[f"{step}.grad.{name}.weight"][None]} for name in names}
        live = jax.tree.map(lambda w, m: w * m, weights, alive)
        problem = Problem(
            live, alive, average=lambda statistic, rows=gradient: rows, allocation="global"
        )
        score = undecayed.score(problem)
        for name in names:
            mask = alive[name]["kernel"]
            np.testing.assert_allclose(
                score[name]["kernel"][mask],
                golden[f"{step}.score.{name}.weight"][mask],
                rtol=1e-4,
                atol=1e-9,
            )
        kept = int(golden[f"{step}.kept"])
        alive = prune(METHODS["undecayed"], problem, (kept + 0.5) / size)
        for name in names:
            packed = golden[f"{step}.mask.{name}.weight"]
            shape = weights[name]["kernel"].shape
            expected = np.unpackbits(packed)[: np.prod(shape)].reshape(shape).astype(bool)
            np.testing.assert_array_equal(alive[name]["kernel"], expected)


def test_fisher_shares_are_chosen_as_fairgrape_chooses_importance():
    rng = np.random.default_rng(3)
    weights = {"a": {"kernel": rng.standard_normal((8, 8))}}
    fisher = {"a": {"kernel": rng.random((3, 8, 8))}}
    importance = {"a": {"kernel": weights["a"]["kernel"] ** 2 * fisher["a"]["kernel"]}}
    alive = {"a": {"kernel": np.ones((8, 8), bool)}}
    by_fisher = Problem(
        weights, alive, average=lambda *options, **more: fisher, key=jax.random.key(0)
    )
    by_importance = Problem(weights, alive, importance=lambda over: importance)
    for density in (0.1, 0.5):
        chosen = prune(METHODS["fairgrape-fisher"], by_fisher, density)
        expected = prune(METHODS["fairgrape"], by_importance, density)
        np.testing.assert_array_equal(chosen["a"]["kernel"], expected["a"]["kernel"])
