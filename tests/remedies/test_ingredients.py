"""Every ingredient of retraining: the same on any number of devices, gone on with to the same bits;
and the closed forms of those that have one.
"""

import dataclasses
import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from fairgrape_jax import config, losses, parallel, remedies
from fairgrape_jax.errors import UsageError
from fairgrape_jax.remedies import INGREDIENTS, Duals, Ingredient, Remedy, balanced
from tests.helpers.ingredient_runs import TINY, StoppedError, begun, one_step, only, trained

# A remedy that turns on each row of the table, and no other; variants of a row after a slash.
REMEDIES = {
    "balanced": Remedy(balanced=True),
    "dro": Remedy(dro=0.5),
    "dro/kd": Remedy(dro=0.5, kd=1.0),
    "duals": Remedy(duals=Duals(rate=2.0, tolerance=0.0, buffer=5)),
    "duals/batch": Remedy(duals=Duals(rate=2.0, buffer=0, constraint="equal-loss")),
    "duals/held out": Remedy(duals=Duals(rate=2.0, buffer=5, held_out=True, every=2)),
    "duals/absolute": Remedy(duals=Duals(rate=2.0, constraint="equal-loss-absolute")),
    "transplant": Remedy(transplant=1.0),
    "transplant/kd": Remedy(transplant=1.0, kd=1.0, ce=0.0),
}


def test_every_row_is_tested():
    names = {name.split("/")[0]: remedy for name, remedy in REMEDIES.items()}
    assert set(names) == set(INGREDIENTS)
    for name, remedy in REMEDIES.items():
        assert [one.name for one in remedies.active(remedy)] == [name.split("/")[0]]
    assert remedies.active(Remedy()) == ()


@pytest.mark.whole(but=2)
@pytest.mark.parametrize("name", REMEDIES)
def test_a_step_is_the_same_on_one_device_and_on_eight(name):
    assert_alike(*(one_step(REMEDIES[name], count) for count in (1, 8)))


@pytest.mark.whole(but=1)
@pytest.mark.parametrize("name", REMEDIES)
def test_a_training_that_was_stopped_goes_on_to_the_same_bits(name, tmp_path):
    assert_goes_on(REMEDIES[name], tmp_path)


def guide():
    """The row that docs/extending.md shows."""
    text = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
    names = {}
    exec(re.search(r"## An ingredient.*?```python\n(.*?)```", text, re.DOTALL)[1], names)
    return names["ROW"]


def all_hooks():
    """A row that uses what the guide's does not: a forward pass, weights, validation, epochs."""

    def start(options, setting):
        dense = setting.dense("validation")
        return {"scale": jnp.float32(0.5), "seen": jnp.zeros(3), "dense": jnp.zeros(())} | {
            "dense": jnp.float32(dense.losses.mean())
        }

    def forward(options, carried, params):
        return jax.tree.map(lambda w: carried["scale"] * w, params)

    def weigh(options, carried, batch):
        belongs = remedies.members(batch.groups, batch.num_groups)
        means, _ = remedies.group_means(batch.correct, belongs)
        return carried, 1 + belongs @ means

    def after_step(options, carried, made):
        held = made.held_out(made.params)
        belongs = remedies.members(held.groups, made.num_groups)
        means, _ = remedies.group_means(held.losses, belongs)
        return carried | {"seen": carried["seen"] + means}

    def after_epoch(options, carried, setting):
        better = np.float32(setting.current("validation").losses.mean() < carried["dense"])
        return carried | {"scale": np.float32(0.5 + 0.25 * setting.epoch + better)}

    def finish(options, carried, params):
        return forward(options, carried, params)

    return Ingredient(
        "all",
        options=lambda remedy: None,
        start=start,
        forward=forward,
        weigh=weigh,
        after_step=after_step,
        after_epoch=after_epoch,
        finish=finish,
        frozen=lambda options, names: names[:1],
        held_out=lambda options: True,
    )


def assert_alike(one, other):
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    for a, b in zip(*map(jax.tree.leaves, (one[1], other[1])), strict=True):
        assert np.linalg.norm(a - b) <= 1e-4 * np.linalg.norm(a) + 1e-7
    for a, b in zip(*map(jax.tree.leaves, (one[2], other[2])), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def assert_goes_on(remedy, directory):
    """Stopped in the second epoch, and whole: the same bits."""
    state, history = trained(remedy, directory / "whole")
    with pytest.raises(StoppedError):
        trained(remedy, directory / "parts", stop_after=8)
    again, others = trained(remedy, directory / "parts")
    assert history == others
    for a, b in zip(*map(jax.tree.leaves, (state, again)), strict=True):
        np.testing.assert_array_equal(a, b)
    return state


@pytest.mark.whole(but=1)
@pytest.mark.parametrize("row", [guide, all_hooks])
def test_a_new_row_takes_part_wherever_it_may(row, tmp_path):
    """That of the guide, and one with every other hook; what freezes a parameter freezes it."""
    with only(row(), 0.1):
        one, eight = one_step(Remedy(), 1), one_step(Remedy(), 8)
        assert_alike(one, eight)
        still = [name for name, leaf in flatten_dict(one[1], sep="/").items() if not leaf.any()]
        session, _, _ = begun(Remedy(), 1)
        assert still == ([session.steps.parameters[0]] if row is all_hooks else [])
        state, carried = assert_goes_on(Remedy(), tmp_path)
    if row is guide:
        for a, b in zip(*map(jax.tree.leaves, (state.params, carried["new"])), strict=True):
            np.testing.assert_array_equal(a, b)
    else:
        assert carried["new"]["scale"] in (1.0, 2.0)
        assert (carried["new"]["seen"] > 0).all()


def test_group_dro_is_the_loss_of_the_weighted_groups():
    """By its own formulas, from the step's plain cross-entropies."""
    remedy = Remedy(dro=0.5)
    loss, _, carried = one_step(remedy, 1)
    plain, _, _ = one_step(Remedy(dro=1e-30), 1)  # all groups weigh alike
    q = np.asarray(carried["dro"], np.float64)
    assert q.shape == (3,)
    assert q.sum() == pytest.approx(1)
    # log q differs by the step times the losses: what the groups' losses are follows from it.
    differences = (np.log(q) - np.log(q)[0]) / 0.5
    first = plain - differences.mean()
    assert loss == pytest.approx(float(q @ (first + differences)), rel=1e-4)
    assert loss > plain


@pytest.mark.parametrize(
    "sizes", [(9, 1), (1, 1), (5, 0, 3), (7, 7, 7), (1,), (4, 2, 0, 1), (100, 3)]
)
def test_balanced_epochs_meet_each_group_alike(sizes):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    groups = np.random.default_rng(0).permutation(np.append(groups, [-1, -1]))
    present = np.flatnonzero(sizes)
    met = np.zeros(len(groups), int)
    for epoch in range(12):
        places = balanced.order(groups, len(sizes), 5, epoch)
        assert len(places) == len(groups)
        counts = np.bincount(groups[places], minlength=len(sizes))
        assert np.ptp(counts[present]) <= 1
        assert counts.sum() == len(groups)
        np.testing.assert_array_equal(places, balanced.order(groups, len(sizes), 5, epoch))
        met += np.bincount(places, minlength=len(groups))
    for group in present:  # the samples of a group take turns
        assert np.ptp(met[groups == group]) <= 13
    assert not met[groups == -1].any()
    other = balanced.order(groups, len(sizes), 6, 0)
    assert len(sizes) == 1 or not np.array_equal(other, balanced.order(groups, len(sizes), 5, 0))


def test_the_transplanted_head_stays_and_the_features_are_matched_alike_for_every_group():
    _, moved, _ = one_step(REMEDIES["transplant"], 1)
    still = {name for name, leaf in flatten_dict(moved, sep="/").items() if not leaf.any()}
    assert still == {"fc2/bias", "fc2/kernel"}
    # The term by its words, of features of one value a sample.
    pruned, dense = np.array([1.0, 2.0, 4.0, 0.0]), np.array([0.0, 0.0, 1.0, 0.0])
    outputs = [losses.Outputs(None, {"f": jnp.asarray(x)[:, None]}) for x in (pruned, dense)]
    batch = remedies.Batch(
        params=None,
        masks=None,
        outputs=outputs[0],
        teacher=outputs[1],
        labels=None,
        groups=jnp.array([0, 0, 2, -1]),
        num_groups=3,
        losses=None,
        correct=None,
        step=None,
    )
    term = functools.partial(INGREDIENTS["transplant"].term, 2.0, ())
    value = jax.vmap(lambda _: term(batch), axis_name=parallel.AXIS)(jnp.zeros(1))[0]
    assert float(value) == pytest.approx(2.0 * ((1 + 4) / 2 + 9) / 2)


@pytest.mark.parametrize("message", ["remedy.dro: -1.0 is negative", "mixup: .*its group"])
def test_what_cannot_be_is_refused(message):
    bad = {"dro": -1.0} if "negative" in message else {"dro": 0.1}
    experiment = dataclasses.replace(TINY, remedy=Remedy(**bad), mixup=0.2)
    with pytest.raises(UsageError, match=message):
        config.check(experiment)
