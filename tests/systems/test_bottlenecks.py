"""AutoBot's steps on networks small enough to enumerate, and its rows in runs."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fairgrape_jax as fg
from fairgrape_jax import config, parallel
from fairgrape_jax.errors import UsageError
from fairgrape_jax.remedies import Batch, Made, Setting
from fairgrape_jax.systems import bottlenecks
from fairgrape_jax.systems.options import Approach
from tests.helpers.ingredient_runs import TINY

HIDDEN = 6
# Outputs of one hidden unit each, of which the first does nothing.
SIZES = np.array([0.0, 1.5, 0.4, 1.1, 0.7, 0.3], np.float32)


def apply(params, x):
    return jax.nn.relu(x @ params["a"]["kernel"]) @ params["b"]["kernel"]


def network(sizes=SIZES):
    """Hidden unit i gives its input times sizes[i] to output i: losses of units add up."""
    eye = np.eye(HIDDEN, dtype=np.float32)
    return {"a": {"kernel": eye}, "b": {"kernel": eye * sizes[:, None]}}


def setting(params, density, masks=None):
    structures = fg.find_structures(apply, params, np.ones((1, HIDDEN)))
    full = jax.tree.map(lambda leaf: np.ones(leaf.shape, bool), params)
    masks = full if masks is None else masks
    return Setting(
        num_groups=1,
        params=params,
        masks=masks,
        epoch=0,
        epochs=1,
        dense=None,
        current=None,
        density=density,
        structures=lambda: structures,
        counted="flops",
    )


def trained(options, params, density, masks=None, steps=None, x=None):
    """What is carried in the end, and after every step; the loss is the change of the outputs."""
    known = setting(params, density, masks)
    x = np.random.default_rng(0).random((32, HIDDEN)).astype(np.float32) if x is None else x
    carried = jax.tree.map(jnp.asarray, bottlenecks.start(options, known))

    def loss(params, carried):
        shown = bottlenecks.forward(options, carried, params)
        return jnp.square(apply(shown, x) - apply(known.params, x)).sum(axis=1).mean()

    @jax.jit
    def step(carried):
        value, gradient = jax.value_and_grad(loss)(params, carried)
        made = Made(params, known.masks, gradient, carried["steps"], 1, None)
        return bottlenecks.after_step(options, carried | {"loss": value}, made)

    history = []
    for _ in range(options.gate_steps if steps is None else steps):
        carried = step(carried)
        history.append(jax.device_get(carried))
    return history[-1], history


def loss_without(units):
    """Of a choice of units, by definition; inputs are uniform, and so alike."""
    x = np.random.default_rng(0).random((32, HIDDEN)).astype(np.float32)
    params = network()
    kept = np.isin(np.arange(HIDDEN), units).astype(np.float32)
    cut = params | {"a": {"kernel": params["a"]["kernel"] * kept}}
    return float(jnp.square(apply(cut, x) - apply(params, x)).sum(axis=1).mean())


@pytest.mark.whole
@pytest.mark.parametrize("rate", [0.1, 0.85])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_largest_gates_are_the_best_subset(count, rate):
    options = Approach(gate_rate=rate, gate_steps=100)
    carried, _ = trained(options, network(), count / HIDDEN)
    best = min(itertools.combinations(range(HIDDEN), count), key=loss_without)
    assert set(np.argsort(-carried["kept"])[:count]) == set(best)


def test_a_unit_that_does_nothing_gets_the_lowest_gate():
    carried, _ = trained(Approach(gate_rate=0.1, gate_steps=60), network(), 0.5)
    assert carried["kept"].argmin() == 0
    assert (carried["kept"][1:] > carried["kept"][0]).all()


def test_the_gates_come_to_the_target_and_to_0_or_1():
    options = Approach(gate_rate=0.1, gate_steps=300, gamma=1.0)
    carried, _ = trained(options, network(), 0.5)
    gates = jax.nn.sigmoid(carried["kept"])
    assert float(gates.mean()) == pytest.approx(0.5, abs=0.05)
    assert float(bottlenecks.binary_loss(gates, jnp.ones(HIDDEN))) < 0.05


@pytest.mark.parametrize(
    ("density", "alive"), [(0.5, [1, 1, 1, 1, 1, 1]), (0.2, [1, 0, 1, 1, 0, 1]), (0.9, [1] * 6)]
)
def test_the_gradient_is_that_of_differences(density, alive):
    """Of all that a step goes down, the loss and beta g + gamma h, in every bottleneck."""
    options = Approach(beta=1.3, gamma=0.7, gate_rate=1e-3)
    params, kept = network(), np.array(alive, bool)
    columns = np.tile(kept, (HIDDEN, 1))
    masks = {"a": {"kernel": columns}, "b": {"kernel": columns.T}}
    params = jax.tree.map(jnp.multiply, params, masks)
    carried = bottlenecks.start(options, setting(params, density, masks))
    x = np.random.default_rng(5).random((16, HIDDEN)).astype(np.float32)
    logits = np.random.default_rng(6).normal(size=HIDDEN)

    def objective(params, logits):
        with_logits = carried | {"logits": logits}
        outputs = apply(bottlenecks.forward(options, with_logits, params), x)
        return jnp.tanh(outputs).sum() + bottlenecks.penalty(options, with_logits, logits)

    def in_weights(params):
        shown = bottlenecks.forward(options, carried | {"logits": jnp.asarray(logits)}, params)
        return jnp.tanh(apply(shown, x)).sum()

    ways = np.concatenate([np.eye(HIDDEN), -np.eye(HIDDEN)]) * 1e-4
    with jax.enable_x64():
        wide = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, np.float64)), params)
        values = jax.jit(jax.vmap(functools.partial(objective, wide)))(jnp.asarray(logits + ways))
    differences = np.subtract(*np.split(np.asarray(values), 2)) / 2e-4
    logits = logits.astype(np.float32)
    made = Made(params, masks, jax.grad(in_weights)(params), 0, 1, None)
    after = bottlenecks.after_step(options, carried | {"logits": jnp.asarray(logits)}, made)
    gradient = np.asarray(after["adam"][0].mu) / 0.1  # the mean of Adam after its first step
    np.testing.assert_allclose(gradient, differences, rtol=1e-3, atol=1e-4)
    assert not gradient[~kept].any()


def test_the_bottlenecks_of_the_least_late_loss_are_kept_and_then_rest():
    options = Approach(gate_rate=0.85, gate_steps=10)
    _, history = trained(options, network(), 0.5, steps=14)
    early, late = history[5], history[6:10]
    np.testing.assert_array_equal(early["kept"], early["logits"])
    before = [early["logits"], *(each["logits"] for each in late)]
    values = [
        each["loss"] + float(bottlenecks.penalty(options, each, jnp.asarray(logits)))
        for each, logits in zip(late, before, strict=False)
    ]
    np.testing.assert_array_equal(history[9]["kept"], before[int(np.argmin(values))])
    for name in ("kept", "logits"):
        np.testing.assert_array_equal(history[9][name], history[13][name])


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_the_worst_group_counts_alone(devices):
    losses = jnp.array([1.0, 3.0, 2.0, 5.0, 0.5, 9.0, 4.0, 2.0])
    groups = jnp.array([0, 1, 0, 1, 0, -1, 1, 2])

    def each(values, ids):
        batch = Batch(None, None, None, None, None, ids, 4, values, values, 0)
        return bottlenecks.worst_group(batch)

    parts = losses.reshape(devices, -1), groups.reshape(devices, -1)
    weights, mean = jax.vmap(each, axis_name=parallel.AXIS)(*parts)
    np.testing.assert_allclose(mean, 4.0)
    expected = np.where(np.asarray(groups) == 1, 8 / 3, 0)
    np.testing.assert_allclose(weights.reshape(-1), expected, rtol=1e-6)


def test_single_weights_are_refused_before_a_run():
    with pytest.raises(UsageError, match="autobot chooses whole channels, not"):
        config.check(dataclasses.replace(TINY, methods=("autobot",)))
