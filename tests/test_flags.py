"""Selection, importance, methods and a training step under the flags that make JAX strict."""

import contextlib
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fairgrape_jax import losses, masks, parallel
from fairgrape_jax.data import load
from fairgrape_jax.methods import METHODS, Problem, fairprune, grasp, prune
from fairgrape_jax.scoring.importance import group_importance
from fairgrape_jax.scoring.statistics import GRADIENT, SQUARES, ScoredNetwork
from fairgrape_jax.selection import select_greedy, select_threshold, select_tree
from fairgrape_jax.selection.maxmin import maxmin_tree, select_maxmin
from fairgrape_jax.training import Carry
from tests.helpers.experiments import TINY, opened

FLAGS = {
    "x64": lambda: jax.enable_x64(True),
    "ranks": lambda: jax.numpy_rank_promotion("raise"),
    "dtypes": lambda: jax.numpy_dtype_promotion("strict"),
    "transfers": lambda: jax.transfer_guard("disallow"),
    "NaN": lambda: jax.debug_nans(True),
}
each_flag = pytest.mark.parametrize("flag", FLAGS.values(), ids=FLAGS)


@pytest.mark.whole(but=1)
@each_flag
def test_selection(flag):
    rng = np.random.default_rng(0)
    importance = rng.lognormal(0, 2, (2, 5000)).astype(np.float32)
    previous = rng.random(5000) < 0.8
    tree, mask = {"kernel": importance.reshape(2, 50, 100)}, {"kernel": previous.reshape(50, 100)}
    expected = select_greedy(importance, previous, 500)
    with flag():
        for select_layer in (select_greedy, select_threshold):
            np.testing.assert_array_equal(select_layer(importance, previous, 500), expected)
        chosen = select_tree(tree, mask, 0.1)
        np.testing.assert_array_equal(chosen["kernel"].reshape(-1), expected)
        assert select_maxmin(importance, previous, 500).sum() == 500
        assert maxmin_tree(tree, mask, 0.1)[0]["kernel"].sum() == 500
        on_device = jax.device_put((importance, previous, np.int32(500)))
        jitted = jax.device_get(jax.jit(select_threshold)(*on_device))
    np.testing.assert_array_equal(jitted, expected)


@each_flag
def test_masks(flag):
    params = {"kernel": np.ones((3, 2), np.float32), "bias": np.ones(2, np.float32)}
    with flag():
        full = masks.full_masks(params)
        full["kernel"][1, 0] = False
        alive = jax.device_put(full)
        zeroed = jax.device_get(masks.apply_masks(alive, jax.device_put(params)))
        np.testing.assert_array_equal(zeroed["kernel"], full["kernel"])
        again = jax.device_get(masks.apply_masks(full, params))
        np.testing.assert_array_equal(again["kernel"], full["kernel"])
        assert masks.density(alive) == pytest.approx(5 / 6)
        assert [row["alive"] for row in masks.sparsity_table(alive)] == [5]
        masks.check_nested(alive, masks.full_masks(params))


def linear_loss(params, images, labels, valid):
    logits = images @ params["kernel"]
    return losses.masked_mean(losses.cross_entropy(logits, labels, [4]), valid)


def batch_of(lead):
    rng = np.random.default_rng(0)
    return {
        "images": rng.normal(size=(*lead, 6)).astype(np.float32),
        "labels": rng.integers(0, 4, (*lead, 1)).astype(np.int32),
    }


PARAMS = {"kernel": np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)}


@each_flag
@pytest.mark.parametrize("form", ["pure", "mixed"])
def test_importance(flag, form):
    batch = batch_of((2, 5) if form == "pure" else (5,))
    batch["members"] = np.random.default_rng(1).random((2, 5)) < 0.6

    @jax.jit
    def importance(params, alive, batch):
        return group_importance(linear_loss, params, alive, **batch, form=form)

    arrays = PARAMS, masks.full_masks(PARAMS), batch
    expected = importance(*arrays)["kernel"]
    with flag():
        scores = jax.device_get(importance(*jax.device_put(arrays))["kernel"])
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert scores.dtype == np.float32


STATISTICS = {
    "squares": SQUARES,
    "gradient": GRADIENT,
    "fisher": fairprune.FISHER,
    "tempered": grasp.TEMPERED,
    "hessian": grasp.HESSIAN,
}


@pytest.mark.whole(but=5)
@each_flag
@pytest.mark.parametrize("name", STATISTICS)
def test_statistics(flag, name):
    network = ScoredNetwork(lambda params, x: x @ params["kernel"], linear_loss, (4,))
    batch = batch_of((5,)) | {"valid": np.arange(5) < 4, "number": np.int32(3)}
    extra = {"fisher": jax.random.key_data(jax.random.key(0)), "hessian": PARAMS}.get(name)
    arrays = jax.device_put((PARAMS, masks.full_masks(PARAMS), batch, extra))
    expected = STATISTICS[name](network, *arrays)["kernel"]
    with flag():
        value = jax.jit(lambda *arrays: STATISTICS[name](network, *arrays))
        scores = jax.device_get(value(*arrays)["kernel"])
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-12)
    assert scores.dtype == np.float32


def problem():
    """What a method sees, averages over samples drawn instead of computed."""
    rng = np.random.default_rng(0)
    params = {"kernel": rng.normal(size=(6, 4)).astype(np.float32), "bias": np.zeros(4, np.float32)}
    full = masks.full_masks(params)

    def rows(over):
        count = 3 if over == "groups" else 1
        return {"kernel": rng.lognormal(0, 1, (count, 6, 4)).astype(np.float32), "bias": None}

    return Problem(
        params,
        full,
        rows,
        lambda statistic, over="all", **options: rows(over),
        module=nn.Dense(4),
        batch_stats={},
        shape=(6,),
        key=jax.random.key(0),
        layers=("",),
        groups=3,
        minority=(1, 2),
        select="greedy",  # the fixed point is looked at above
    )


@pytest.mark.whole(but=3)
@each_flag
@pytest.mark.parametrize("official", [False, True])
def test_every_method(flag, official):
    for name, method in METHODS.items():
        given = problem()
        object.__setattr__(given, "official", official)
        with flag():
            chosen = prune(method, given, 0.5)
        assert chosen["kernel"].sum() in (12, 24), name  # "structured" keeps its only layer
        masks.check_nested(chosen, given.masks)


@cache
def stepped(flag=None):
    """The parameters after a training step, which is traced under a flag."""
    dataset = load(TINY.data)
    session, network = opened(TINY, dataset)
    step, devices = session.steps.train, session.devices
    batch = {"images": dataset.train.images[:32], "labels": dataset.train.labels[:32]}
    (batch,) = parallel.prefetch_to_devices([parallel.split_batch(batch, devices)], devices)
    rate, finite = parallel.replicate((np.float32(1e-2), np.True_), devices)
    with flag() if flag else contextlib.nullcontext():
        carry, _ = step(Carry(network.state, finite), network.masks, batch, rate)
    return jax.device_get(carry.state.params)


@pytest.mark.whole(but=2)
@each_flag
def test_a_training_step(flag):
    leaves = zip(*map(jax.tree.leaves, (stepped(flag), stepped())), strict=True)
    for found, expected in leaves:
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
