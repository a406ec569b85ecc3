"""Multipliers of constraints on groups, against the traces of the code of CEAG's authors."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fairgrape_jax import config, parallel
from fairgrape_jax.config.scoring import Clusters
from fairgrape_jax.errors import UsageError
from fairgrape_jax.remedies import Duals, Remedy, duals
from tests.helpers.ingredient_runs import TINY

GOLDEN = dict(np.load(Path(__file__).parents[1] / "golden" / "ceag.npz"))
EXCESS = Duals(rate=0.05, tolerance=0.01, buffer=40)
EQUAL = Duals(rate=0.05, buffer=0, constraint="equal-loss")
CASES = {
    "ceag": EXCESS,
    "ceag_nobuffer": dataclasses.replace(EXCESS, buffer=0),
    "ceag_detach": dataclasses.replace(EXCESS, detach=True),
    "ceag_2x3": EXCESS,
    "ceag_2plus3": EXCESS,
    "el": EQUAL,
    "el_buffer": dataclasses.replace(EQUAL, buffer=40),
    "el_abs": dataclasses.replace(EQUAL, constraint="equal-loss-absolute"),
}


def belonging(case):
    """(60, 24, G): which sample is in which group."""
    pairs = GOLDEN["attributes2"]
    if case.endswith("2x3"):
        return np.eye(6)[3 * pairs[..., 0] + pairs[..., 1]]
    if case.endswith("2plus3"):
        return np.concatenate([np.eye(2)[pairs[..., 0]], np.eye(3)[pairs[..., 1]]], axis=-1)
    return np.eye(5)[GOLDEN["group"]]


def of_case(case, name):
    return GOLDEN.get(f"{case}.{name}", GOLDEN[name])


@pytest.mark.whole(but=4)
@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("case", CASES)
def test_multipliers_and_lagrangians_are_those_of_the_authors_code(case, devices):
    """Sixty steps; gradients with respect to the logits at two of them; on several devices."""
    options, inside = CASES[case], belonging(case)
    excess = options.constraint == "excess-gap"
    known = ("accuracy", "loss") if excess else ("loss", "loss")
    reference = duals.Reference(
        jnp.asarray(of_case(case, f"dense_group_{known[0]}")),
        jnp.asarray(GOLDEN[f"dense_{known[0]}"]),
    )
    count = inside.shape[-1]
    state = duals.State(
        jnp.zeros(count),
        jnp.zeros((count, max(options.buffer, 1))),
        jnp.zeros(count, jnp.int32),
        reference,
    )

    def step(state, logits, labels, right, belongs):
        """On one device of several: the new state, the weights' loss and its gradient."""

        def loss(logits):
            each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            frozen = jax.lax.stop_gradient(each)
            values = right if excess else frozen
            gathered = jax.tree.map(lambda x: jax.lax.all_gather(x, parallel.AXIS, tiled=True),
                                    (values, belongs))  # fmt: skip
            new = duals.ascend(options, state, *gathered)
            weights = duals.sample_weights(options, new.multipliers, frozen, belongs)
            return (jax.lax.stop_gradient(weights) * each).mean(), new

        (value, new), gradient = jax.value_and_grad(loss, has_aux=True)(logits)
        return new, jax.lax.pmean(value, parallel.AXIS), gradient / devices

    lifted = jax.jit(jax.vmap(step, (None, 0, 0, 0, 0), axis_name=parallel.AXIS))

    def cut(array):
        return jnp.asarray(array, jnp.float32).reshape(devices, -1, *array.shape[1:])

    for number in range(60):
        new, value, gradient = lifted(
            state,
            cut(GOLDEN["logits"][number]),
            cut(GOLDEN["labels"][number]).astype(int),
            cut(GOLDEN["sample_correct"][number]),
            cut(inside[number]),
        )
        for leaf in jax.tree.leaves(new):
            np.testing.assert_array_equal(leaf[:1].repeat(devices, 0), leaf)  # alike on all
        state = jax.tree.map(lambda leaf: leaf[0], new)
        multipliers = np.asarray(state.multipliers, np.float64)
        np.testing.assert_allclose(
            multipliers, GOLDEN[f"{case}.multipliers"][number], rtol=1e-4, atol=1e-6
        )
        expected = GOLDEN[f"{case}.lagrangian"][number]
        present = inside[number].any(axis=0)
        if excess:  # terms of the dense network, which have no gradient
            apart = of_case(case, "dense_group_loss") - GOLDEN["dense_loss"]
            expected += multipliers[present] @ apart[present]
        if options.detach:
            expected += multipliers[present].sum() * GOLDEN[f"{case}.loss"][number]
        np.testing.assert_allclose(value[0], expected, rtol=2e-5)
        if number in (30, 59):
            name = "mid" if number == 30 else "last"
            found = gradient.reshape(24, -1)
            np.testing.assert_allclose(
                found, GOLDEN[f"{case}.logit_grad_{name}"], rtol=1e-4, atol=1e-6
            )


@pytest.mark.parametrize("size", [1, 2, 5, 7])
def test_a_ring_holds_the_last_values_of_each_group(size):
    """Against lists, with batches smaller and larger than a ring, and samples in no group."""
    rng = np.random.default_rng(0)
    ring, pushed, lists = jnp.zeros((3, size)), jnp.zeros(3, jnp.int32), [[], [], []]
    for _ in range(12):
        values = rng.normal(size=6).astype(np.float32)
        groups = rng.integers(-1, 3, 6)
        belongs = (groups[:, None] == np.arange(3)).astype(np.float32)
        ring, pushed = duals.push(ring, pushed, jnp.asarray(values), jnp.asarray(belongs))
        for value, group in zip(values, groups, strict=True):
            if group >= 0:
                lists[group].append(value)
        assert pushed.tolist() == [len(values) for values in lists]
        for row, kept in zip(np.asarray(ring), lists, strict=True):
            assert sorted(kept[-size:] + [0.0] * (size - len(kept))) == sorted(row.tolist())
    means, overall, full = duals.ring_means(ring, pushed)
    assert full.tolist() == [len(values) >= size for values in lists]
    np.testing.assert_allclose(overall, np.asarray(means)[np.asarray(full)].mean(), rtol=1e-6)


@pytest.mark.parametrize("field", ["rate", "tolerance", "buffer", "every"])
def test_what_cannot_be_is_refused(field):
    options = dataclasses.replace(Duals(rate=0.1), **{field: -1})
    with pytest.raises(UsageError, match=f"remedy.duals.{field}: -1"):
        config.check(dataclasses.replace(TINY, remedy=Remedy(duals=options)))


def test_clusters_have_no_validation_split():
    scoring = dataclasses.replace(TINY.scoring, groups=Clusters(2))
    remedy = Remedy(duals=Duals(rate=0.1, held_out=True))
    with pytest.raises(UsageError, match=r"remedy.duals.held_out: the clusters"):
        config.check(dataclasses.replace(TINY, scoring=scoring, remedy=remedy))
