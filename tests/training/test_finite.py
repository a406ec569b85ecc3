"""Numbers that are not finite: found in the step that made them, named, and not made."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairgrape_jax import losses, models, parallel, training
from fairgrape_jax.data import batches
from fairgrape_jax.rounds.session import copy_on_devices
from fairgrape_jax.training import Carry, finite
from fairgrape_jax.training.finite import NotFiniteError
from tests.helpers.networks import Normed
from tests.helpers.not_finite import built, plain, times, with_kernel


@pytest.fixture(autouse=True)
def normed(monkeypatch):
    monkeypatch.setitem(models.MODELS, "normed", Normed)


def root_of_nothing(logits, labels, classes):
    """Cross-entropy with a gradient of NaN: that of the root at 0, times 0."""
    return plain(logits, labels, classes) + jnp.sqrt(0 * logits.sum(axis=1))


# What is done to a step: (loss function, scale of the first kernel, rate, fields), and what
# is then said to be the first part that is not finite.
SOURCES = {
    "loss": ((None, 1, 0.1, {}), "loss"),
    "gradient": ((root_of_nothing, 1, 0.1, {}), "gradient of head/"),
    "batch statistics": ((None, 1e30, 0.1, {}), "batch statistics of norm/var"),
    "parameters": ((times(1e3), 1, 3e38, {"optimizer": "sgd"}), "parameters of "),
    "moments": ((times(1e25), 1, 1e-30, {"optimizer": "adam"}), "moments of the optimizer"),
}


EVERYWHERE = [(kind, *how) for kind in SOURCES for how in (("pmap", 4), ("shard_map", 2))]


@pytest.mark.parametrize(
    ("kind", "how", "devices"),
    [(kind, "pmap", 1) for kind in SOURCES]
    + [EVERYWHERE[0], EVERYWHERE[3]]
    + [pytest.param(*each, marks=pytest.mark.slow) for each in (*EVERYWHERE[1:3], *EVERYWHERE[4:])],
)
def test_each_source_is_named_and_the_step_is_not_made(kind, how, devices, monkeypatch):
    (loss, scale, rate, fields), expected = SOURCES[kind]
    monkeypatch.setattr(losses, "cross_entropy", loss or plain)
    session, network, batch = built(lift=how, devices=devices, **fields)
    state = with_kernel(network.state, "conv", np.float32(scale))
    if kind == "loss":
        state = with_kernel(state, "head", np.float32(np.inf))
    state = parallel.replicate(state, session.devices)
    before, step = finite.to_host(state), session.steps.train
    carry, report = step(Carry(state), network.masks, batch, np.float32(rate))
    assert np.isnan(report.loss)
    for _ in range(2):  # the steps that were begun before anybody looked
        assert not carry.finite
        for a, b in zip(*map(jax.tree.leaves, (before, carry.state)), strict=True):
            np.testing.assert_array_equal(a, b)
        carry, later = step(carry, network.masks, batch, np.float32(0.0))
        assert np.isnan(later.loss)
    bad = finite.bad_parts(before, np.asarray(report.finite), session.steps.parameters)
    assert bad[0].startswith(expected), bad


def test_a_finite_step_is_what_it_was_without_looking(monkeypatch):
    """Up to the rounding of another order of operations in the compiled program."""
    found = []

    def blind(carry, new, loss, gradients, **options):
        return Carry(new, carry.finite), finite.StepReport(loss, loss[None])

    for accept in (finite.accept, blind):
        monkeypatch.setattr(finite, "accept", accept)
        session, network, batch = built()
        carry = Carry(network.state)
        for _ in range(3):
            carry, report = session.steps.train(carry, network.masks, batch, np.float32(1e-2))
        found.append(jax.device_get((carry.state, report.loss)))
    assert found[0][0].step == 3
    for a, b in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


LEAVES = {
    "of one name": {"gradient": {"w": (3, 4)}, "new": {"w": (3, 4)}, "loss": ()},
    "of other shapes": {"gradient": {"w": (3, 4)}, "new": {"w": (4, 3), "v": (5,)}, "loss": ()},
    "nine of one name": {str(i): {"w": (2, 3)} for i in range(9)},
    "moments": {"new": {"w": {"b": (7,)}}, "optimizer": ({"w": {"b": (7,)}}, [{"w": {"b": (7,)}}])},
    "three hundred": {"new": {str(i): (1,) for i in range(300)}},
}


@pytest.mark.parametrize("name", LEAVES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_flags_of_one_pass_are_those_of_each_leaf(name, bad):
    tree = jax.tree.map(lambda s: np.zeros(s, np.float32), LEAVES[name], is_leaf=_is_shape)
    leaves, structure = jax.tree.flatten(tree)
    one_pass = jax.jit(finite.flags_by_name)
    assert one_pass(tree).tolist() == [True] * len(leaves)
    for place in range(0, len(leaves), max(1, len(leaves) // 10)):
        broken = [leaf.copy() for leaf in leaves]
        broken[place].ravel()[-1] = bad
        expected = [i != place for i in range(len(leaves))]
        broken = jax.tree.unflatten(structure, broken)
        assert one_pass(broken).tolist() == expected == finite.flags(broken).tolist()


def _is_shape(node):
    return isinstance(node, tuple) and all(isinstance(side, int) for side in node)


TREES = (
    {
        "float": jnp.full((3, 2), jnp.nan),
        "int": jnp.arange(4),
        "bool": jnp.array(True),
        "none": None,
    },
    {"float": jnp.ones((3, 2)), "int": jnp.arange(4) + 7, "bool": jnp.array(False), "none": None},
)


@pytest.mark.parametrize("condition", [True, False])
def test_the_choice_is_the_whole_of_one_tree(condition):
    expected = TREES[0 if condition else 1]
    for choose in (finite.choose, jax.jit(finite.choose)):
        chosen = choose(jnp.array(condition), *TREES)
        jax.tree.map(np.testing.assert_array_equal, chosen, expected)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), TREES)
    conditions = jnp.array([condition, not condition])
    each = jax.vmap(finite.choose)(conditions, *stacked)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[0], y), each, expected)


@pytest.mark.parametrize(("platform", "branches"), [("cpu", True), ("cuda", False), ("tpu", False)])
def test_the_choice_is_one_branch_on_a_cpu_and_stays_on_the_device_elsewhere(platform, branches):
    lowered = jax.jit(finite.choose).trace(jnp.array(True), *TREES)
    text = lowered.lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.select" in text) != branches


@pytest.mark.parametrize("bad", [0, pytest.param(4, marks=pytest.mark.slow), 9])
def test_the_error_of_an_epoch_holds_the_state_before_and_the_samples(bad):
    """One step is given a rate of NaN; the state is that of an epoch stopped just before it."""
    session, network, _ = built()
    dataset, begun = session.dataset, []

    def step(carry, masks, batch, rate):
        begun.append(batch["ids"].ravel().tolist())
        rate = np.float32(np.nan) if failing() else rate
        return session.steps.train(carry, masks, batch, rate)

    def failing():
        return len(begun) - 1 == bad

    def epoch(state, step):
        return training.train_epoch(
            step,
            state,
            network.masks,
            dataset.train,
            devices=session.devices,
            batch=session.experiment.batch,
            rate=1e-2,
            seed=0,
        )

    expected = Carry(copy_on_devices(network).state)
    for samples in list(batches.train_batches(dataset.train, 32, 0, 0))[:bad]:
        batch = parallel.split_batch(samples, session.devices)
        expected, _ = session.steps.train(expected, network.masks, batch, np.float32(1e-2))
    with pytest.raises(NotFiniteError, match=f"^parameters of .* not finite at step {bad}:") as e:
        epoch(network.state, step)
    record = e.value.record
    for a, b in zip(*map(jax.tree.leaves, (expected.state, record.state)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert record.details["ids"] == begun[bad]
    assert record.details["step_in_epoch"] == bad
    assert len(begun) == min(bad + 2, 10)
