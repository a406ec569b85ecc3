"""The scoring of a run: its definition, on any number of devices, by every execution and layout."""

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fairgrape_jax import losses, models, scoring
from fairgrape_jax.config import Execution, Experiment, Scoring
from fairgrape_jax.data import batches, load, source
from fairgrape_jax.methods import METHODS, Problem, prune
from fairgrape_jax.models.resnet import conv_norm
from fairgrape_jax.rounds import score, steps
from fairgrape_jax.rounds.session import Network, Session
from tests.helpers.experiments import opened

FORMULAS = ["sum-of-squares", "square-of-mean"]
# Partial last micro-batches of 16, a group smaller than one, and a group that nobody belongs to.
SIZES = (101, 47, 9, 0, 33)
SEED, SIZE = 5, 16


class Tiny(nn.Module):
    """Batch norm and dropout, as far as a test needs them."""

    num_classes: int
    axis_name: str | None = None
    dtype: type = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        layer = partial(conv_norm, train=train, axis_name=self.axis_name, dtype=self.dtype)
        x = nn.relu(layer(x, ("conv", "norm"), 6, 3))
        x = nn.Dropout(0.5, deterministic=not train)(x.mean((1, 2)))
        return nn.Dense(self.num_classes, name="head")(x)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setitem(models.MODELS, "tiny", Tiny)


@cache
def dataset():
    """Synthetic pictures in groups of SIZES."""
    found = load(source("synthetic", samples=600, groups=3, size=8, seed=1))
    part = dataclasses.replace(
        found.train.take(np.arange(sum(SIZES))),
        groups=np.repeat(np.arange(5, dtype=np.int32), SIZES),
    )
    return dataclasses.replace(found, train=part, groups=tuple("abcde"))


def test_calls_are_taken_up_where_they_were_left():
    split = dataset().train
    plan = batches.group_batches(split, 1.0, SIZE, 5, 0)
    schedule = scoring.assign_micro_batches(plan.group, 5, 2, 1)

    def numbers(*begin):
        each = scoring.micro_batches(split, plan, schedule, (0, 1), *begin)
        return [batch["number"].tolist() for batch in each]

    everything = [order.tolist() for order in schedule.order]
    assert len(everything) > 3
    assert (numbers(), numbers(0), numbers(2)) == (everything, everything, everything[2:])


@cache
def scored(devices, model="cnn", over="groups", **fields):
    """Importance of a small network by the steps of a run, with its compiled steps and state."""
    execution = {name: fields[name] for name in fields.keys() & {"micro_batches", "shard_groups"}}
    options = {name: fields[name] for name in fields.keys() - execution.keys()}
    experiment = Experiment(
        data=source("synthetic"),
        model=model,
        scoring=Scoring(fraction=0.5, micro_batch=SIZE, **options),
        execution=Execution(**execution),
    )
    session, network = opened(experiment, dataset(), devices)
    tree = score.importance(session, network, over=over, seed=SEED)
    return tree, session.steps, network.state, network.masks


def distances(found, expected):
    """Norm of the difference over norm, of each layer and group that has importance."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    errors = []
    for a, b in pairs:
        a, b = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (a, b))
        norm = np.linalg.norm(b, axis=1)
        np.testing.assert_array_equal(a[norm == 0], 0)
        errors.append(np.linalg.norm(a - b, axis=1)[norm > 0] / norm[norm > 0])
    return np.concatenate(errors)


def chosen(tree, params, alive, density):
    """FairGRAPE's masks from these importances."""
    importance = {"importance": lambda over: tree, "select": "greedy"}
    problem = Problem(jax.device_get(params), jax.device_get(alive), **importance)
    return prune(METHODS["fairgrape"], problem, density)


def assert_same(found, expected, state, alive):
    """The promise over numbers of devices: 1e-6 relative, and masks but for ties of rounding."""
    assert distances(found, expected).max() < 1e-6
    for density in (0.5, 0.1):
        both = (chosen(tree, state.params, alive, density) for tree in (found, expected))
        for a, b in zip(*map(jax.tree.leaves, both), strict=True):
            assert np.sum(a != b) <= max(2, 1e-5 * a.size)


@pytest.mark.parametrize("formula", FORMULAS)
def test_the_scoring_of_a_run_is_the_definition(formula):
    tree, compiled, state, _ = scored(1, formula=formula)
    data = dataset()
    plan = batches.group_batches(data.train, 0.5, SIZE, 5, SEED)

    def mean_loss(params, images, labels):
        images = (images / 255.0 - np.float32(data.mean)) / np.float32(data.std)
        logits = compiled.module.apply({"params": params}, images)
        return losses.cross_entropy(logits, labels, data.classes).mean()

    gradient = jax.jit(jax.grad(mean_loss))
    for k, size in enumerate(SIZES):
        rows = np.flatnonzero(plan.group == k)
        picked = [plan.indices[row][plan.valid[row]] for row in rows]
        assert sum(map(len, picked)) == -(-size // 2)
        if formula == "square-of-mean" and size:
            picked = [np.concatenate(picked)]
        terms = []
        for samples in picked:
            part = data.train.take(samples)
            g = gradient(state.params, part.images.astype(np.float32), part.labels)
            terms.append(jax.tree.map(lambda w, g: np.square(w * g), state.params, g))
        for name in ("conv1", "conv2", "fc1", "fc2"):
            found = tree[name]["kernel"][k]
            expected = np.mean([t[name]["kernel"] for t in terms], axis=0) if terms else 0 * found
            assert np.linalg.norm(found - expected) <= 1e-4 * np.linalg.norm(expected), (name, k)


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("devices", [2, 4, 8])
def test_importance_and_masks_are_the_same_on_any_number_of_devices(devices, formula):
    expected, _, state, alive = scored(1, formula=formula)
    assert_same(scored(devices, formula=formula)[0], expected, state, alive)


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("devices", [2, 4, 8])
def test_groups_sharded_over_devices_give_the_same(devices, formula):
    expected, _, state, alive = scored(1, formula=formula)
    found = scored(devices, formula=formula, shard_groups=True)[0]
    assert_same(found, expected, state, alive)


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("execution", ["vmap", "unroll", "scan"])
def test_every_execution_gives_the_same(execution, formula):
    expected = scored(1, formula=formula)[0]
    found, compiled, *_ = scored(2, formula=formula, micro_batches=execution)
    assert compiled.slots == 5
    assert distances(found, expected).max() < 3e-6  # convolutions batched otherwise


def test_by_default_one_micro_batch_at_a_time_on_every_platform():
    for platform in ("cpu", "gpu", "tpu"):
        experiment = Experiment(source("synthetic"), "cnn")
        assert steps.batching(platform, 3, experiment) == ("unroll", 1)
        at_once = dataclasses.replace(experiment, execution=Execution(micro_batches="vmap"))
        assert steps.batching(platform, 3, at_once) == ("vmap", 3)


@pytest.mark.parametrize("shard", [False, True])
def test_without_groups_there_is_one_row(shard):
    found = scored(2, over="all", shard_groups=shard)[0]
    assert {leaf.shape[0] for leaf in jax.tree.leaves(found)} == {1}
    assert distances(found, scored(1, over="all")[0]).max() < 1e-6


@pytest.mark.parametrize("formula", FORMULAS)
def test_the_mixed_form_is_a_batch_with_its_own_statistics_and_a_gradient_for_each_group(formula):
    """Expected without any of our masks: cut to the valid samples, all G passes one by one."""
    tree, _, state, _ = scored(1, model="tiny", form="mixed", formula=formula)
    data, module = dataset(), Tiny(sum(dataset().classes))
    plan = batches.group_batches(data.train, 0.5, SIZE, 5, SEED, over="all")
    assert not plan.valid.all()  # the last one is partial
    sums, counts = {}, np.zeros(5)

    def mean_loss(params, images, labels, member):
        images = (images / 255.0 - np.float32(data.mean)) / np.float32(data.std)
        logits = module.apply(
            {"params": params, "batch_stats": state.batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
        )[0]
        each = losses.cross_entropy(logits, labels, data.classes)
        return (each * member).sum() / member.sum()

    gradient = jax.jit(jax.grad(mean_loss))
    for row in range(len(plan.group)):
        part = data.train.take(plan.indices[row][plan.valid[row]])
        for k in np.unique(part.groups):
            member = part.groups == k
            with nn.intercept_methods(without_dropout):
                g = gradient(state.params, part.images.astype(np.float32), part.labels, member)
            for name in ("conv", "head"):
                w, slope = (np.asarray(x[name]["kernel"], np.float64) for x in (state.params, g))
                squares = formula == "sum-of-squares"
                term = (w * slope) ** 2 if squares else slope * member.sum()
                sums[name, k] = sums.get((name, k), 0) + term
            counts[k] += 1 if squares else member.sum()
    for (name, k), total in sums.items():
        mean = total / counts[k]
        if formula == "square-of-mean":
            mean = (np.asarray(state.params[name]["kernel"]) * mean) ** 2
        found = tree[name]["kernel"][k]
        assert np.linalg.norm(found - mean) < 1e-4 * np.linalg.norm(mean), (name, k)
    assert counts[3] == 0
    assert not np.any(tree["conv"]["kernel"][3])


def without_dropout(call, args, kwargs, context):
    return args[0] if isinstance(context.module, nn.Dropout) else call(*args, **kwargs)


@pytest.mark.parametrize("options", [(4, "auto"), (2, "vmap"), (1, "scan")])
def test_the_mixed_form_on_more_devices_and_by_every_execution(options):
    devices, execution = options
    expected, _, state, alive = scored(1, model="tiny", form="mixed")
    found = scored(devices, model="tiny", form="mixed", micro_batches=execution)[0]
    assert_same(found, expected, state, alive)


def test_the_mixed_form_without_groups_is_one_gradient_of_the_whole_batch():
    """With one group in all, both kinds of scoring look at the same batches and samples."""
    one = dataclasses.replace(
        dataset(), train=dataclasses.replace(dataset().train, groups=np.zeros(190, np.int32))
    )
    found, compiled, *network = scored(1, model="tiny", form="mixed", over="all")
    experiment = Experiment(source("synthetic"), "tiny", scoring=Scoring(0.5, SIZE, form="mixed"))
    session = Session(experiment, one, compiled)
    by = [
        score.importance(session, Network(*network), over=over, seed=SEED)
        for over in ("groups", "all")
    ]
    first = jax.tree.map(lambda leaf: leaf[:1], by[0])
    assert distances(first, by[1]).max() < 1e-6
    assert found["conv"]["kernel"].shape[0] == 1
