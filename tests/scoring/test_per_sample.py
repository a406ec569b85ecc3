"""Importance from a loss per sample: the definition, in whatever parts, forms and dtypes."""

import functools
import itertools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

from fairgrape_jax.masks import full_masks
from fairgrape_jax.scoring import adder
from fairgrape_jax.scoring.parts import parts, pieces
from fairgrape_jax.scoring.per_sample import average_importance, group_importance
from fairgrape_jax.scoring.sample_loss import split_network

GROUPS = 3
CLOSE = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-9)


def loss(params, batch):
    x, y = batch
    hidden = jnp.tanh(x @ params["a"]["kernel"] + params["a"]["bias"])
    log_probability = jax.nn.log_softmax(hidden @ params["b"]["w"])
    return -jnp.take_along_axis(log_probability, y[:, None], axis=1)[:, 0]


def network(dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    params = {
        "a": {"kernel": rng.normal(size=(5, 4)).astype(dtype), "bias": np.zeros(4, dtype)},
        "b": {"w": rng.normal(size=(4, 3)).astype(dtype)},
    }
    masks = full_masks(params)
    masks["a"]["kernel"][0, :3] = False
    return params, masks


def data(sizes=(40, 40, 17), seed=1, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return [
        (
            (rng.normal(size=(n, 5)).astype(dtype), rng.integers(0, 3, n)),
            rng.integers(-1, GROUPS, n),
        )
        for n in sizes
    ]


@jax.jit
@jax.grad
def gradient(params, batch, weight):
    """Of the mean loss of the samples of weight 1; compiled once, for parts of any size."""
    return (loss(params, batch) * weight).sum() / weight.sum()


def of_part(params, x, y, most=97):
    padded = (np.resize(x, (most, 5)), np.resize(y, most))  # repeats the samples, of weight 0
    return gradient(params, padded, (np.arange(most) < len(x)).astype(np.float32))


def definition(batches, formula, micro_batch=None):
    """In float64 from one gradient per micro-batch; {layer: (G, *w.shape)}."""
    params, masks = network()
    params["a"]["kernel"] *= masks["a"]["kernel"]
    weights = [np.asarray(params["a"]["kernel"], float), np.asarray(params["b"]["w"], float)]
    result = []
    for k in range(GROUPS):
        parts = [(x[g == k], y[g == k]) for (x, y), g in batches if (g == k).any()]
        if micro_batch:
            x, y = (np.concatenate(each) for each in zip(*parts, strict=True))
            cuts = range(0, len(x), micro_batch)
            parts = [(x[i : i + micro_batch], y[i : i + micro_batch]) for i in cuts]
        gradients = [of_part(params, *part) for part in parts]
        gradients = [
            (np.asarray(g["a"]["kernel"], float), np.asarray(g["b"]["w"], float)) for g in gradients
        ]
        if formula == "sum-of-squares":
            each = [[(w * g) ** 2 for w, g in zip(weights, gs, strict=True)] for gs in gradients]
            result.append([np.mean(layer, axis=0) for layer in zip(*each, strict=True)])
        else:
            counts = [len(x) for x, _ in parts]
            means = [
                np.average(layer, axis=0, weights=counts) for layer in zip(*gradients, strict=True)
            ]
            result.append([(w * g) ** 2 for w, g in zip(weights, means, strict=True)])
    return [np.stack(layer) for layer in zip(*result, strict=True)]


def layers(scores):
    assert scores["a"]["bias"] is None
    return [scores["a"]["kernel"], scores["b"]["w"]]


@pytest.mark.whole(but=2)
@pytest.mark.parametrize("formula", ["sum-of-squares", "square-of-mean"])
@pytest.mark.parametrize("micro_batch", [None, 7])
def test_every_form_on_any_number_of_devices_is_the_definition(formula, micro_batch):
    params, masks = network()
    expected = definition(data(), formula, micro_batch)
    for form, devices in itertools.product(("pure", "vmap"), ((), jax.devices()[:3])):
        scores = average_importance(
            loss,
            params,
            masks,
            iter(data()),
            num_groups=GROUPS,
            micro_batch=micro_batch,
            formula=formula,
            form=form,
            devices=devices,
        )
        jax.tree.map(CLOSE, layers(scores), expected)
    if micro_batch is None:
        inside = jax.jit(
            lambda params, masks, batches: average_importance(
                loss, params, masks, batches, num_groups=GROUPS, formula=formula
            )
        )
        jax.tree.map(CLOSE, layers(inside(params, masks, data())), expected)


def test_a_device_of_one_sample_counts():
    params, masks = network()
    ((batch, _),) = data((3,))
    one_of_each = [(batch, np.arange(GROUPS))]
    devices = jax.devices()[:3]
    scores = average_importance(
        loss, params, masks, one_of_each, num_groups=GROUPS, micro_batch=1, devices=devices
    )
    jax.tree.map(CLOSE, layers(scores), definition(one_of_each, "sum-of-squares", 1))


def test_membership_is_what_ids_are_and_may_overlap():
    params, masks = network()
    ((batch, ids),) = data((12,))
    by_ids = group_importance(loss, params, masks, batch, ids, num_groups=GROUPS)
    members = ids == np.arange(GROUPS)[:, None]
    by_members = group_importance(loss, params, masks, batch, members, num_groups=GROUPS)
    jax.tree.map(CLOSE, layers(by_members), layers(by_ids))
    jax.tree.map(CLOSE, layers(by_ids), definition([(batch, ids)], "sum-of-squares"))
    everyone = np.ones((2, 12), bool)
    both = group_importance(loss, params, masks, batch, everyone, num_groups=2)
    averaged = average_importance(loss, params, masks, [(batch, everyone)], num_groups=2)
    jax.tree.map(CLOSE, layers(averaged), layers(both))
    assert all((layer[0] == layer[1]).all() for layer in layers(both))


def test_a_micro_batch_over_the_devices_of_pmap_and_shard_map():
    params, masks = network()
    ((batch, ids),) = data((40,))
    expected = definition([(batch, ids)], "sum-of-squares")

    def scores(params, batch, ids):
        return group_importance(
            loss, params, masks, batch, ids, num_groups=GROUPS, axis_name="data"
        )

    devices = jax.devices()[:4]
    cut = jax.tree.map(lambda x: x.reshape(4, 10, *x.shape[1:]), (batch, ids))
    by_pmap = jax.pmap(scores, "data", in_axes=(None, 0, 0), devices=devices)(params, *cut)
    for device in range(4):
        jax.tree.map(CLOSE, [layer[device] for layer in layers(by_pmap)], expected)
    mesh = Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))
    for check in (True, False):
        by_shard_map = jax.jit(
            jax.shard_map(
                scores,
                mesh=mesh,
                in_specs=(P(), P("data"), P("data")),
                out_specs=P(),
                check_vma=check,
            )
        )
        jax.tree.map(CLOSE, layers(by_shard_map(params, batch, ids)), expected)


def test_sums_do_not_drift():
    """20,000 terms of one size: a plain sum in float32 is off by 1e-5 and more."""
    params, masks = {"w": np.full((1, 1), 0.1, np.float32)}, {"w": np.ones((1, 1), bool)}

    def linear(params, x):
        return params["w"][0, 0] * x

    x = np.random.default_rng(0).uniform(0.9, 1.1, 20_000).astype(np.float32)
    batches = [(x[i : i + 2000], np.zeros(2000, int)) for i in range(0, 20_000, 2000)]
    scores = average_importance(linear, params, masks, batches, num_groups=1, micro_batch=1)
    expected = np.mean((np.float64(np.float32(0.1)) * x.astype(float)) ** 2)
    np.testing.assert_allclose(scores["w"][0, 0, 0], expected, rtol=2e-7)


@pytest.mark.parametrize("limit", [1, GROUPS * 32 * 4, 2 * GROUPS * 32 * 4, 2**40])
def test_gradients_that_wait_for_each_other_are_all_added(limit, monkeypatch):
    """Of the 32 weights of 4 bytes one, one, two or four gradients wait, and no layer more."""
    monkeypatch.setattr(adder, "WAITING_BYTES", limit)
    params, masks = network()
    together = adder.Adder(None, split_network(loss, params, masks)[0], GROUPS, None).together
    assert together == {1: 1, GROUPS * 32 * 4: 1, 2 * GROUPS * 32 * 4: 2, 2**40: 4}[limit]
    scores = average_importance(
        loss, params, masks, data(), num_groups=GROUPS, micro_batch=7, devices=jax.devices()[:1]
    )
    jax.tree.map(CLOSE, layers(scores), definition(data(), "sum-of-squares", 7))


@pytest.mark.parametrize("groups", [2, 7, 14])
@pytest.mark.parametrize("batch", [16, 64, 112, 256, 1000])
def test_parts_pass_at_most_a_fifth_more_samples(groups, batch):
    """What a pass costs goes by the samples in it; and few programs are compiled."""
    rng = np.random.default_rng(batch)
    unit = max(1, batch // (8 * groups))
    passed, sizes, batches = 0, set(), 20
    for _ in range(batches):
        sizes_of_groups = np.bincount(rng.integers(0, groups, batch))
        for part in sizes_of_groups[sizes_of_groups > 0]:
            plan = pieces(int(part), unit)
            assert sum(plan) >= part
            assert len(plan) <= 2
            passed += sum(plan)
            sizes.update(plan)
    assert passed <= 1.2 * batch * batches
    assert len(sizes) <= 12


@pytest.mark.parametrize("micro_batch", [1, 5, 8])
def test_a_whole_micro_batch_is_one_part_of_its_size(micro_batch):
    """Whatever sizes there are for the last one of a group."""
    members = np.ones((1, 3 * micro_batch + 1), bool)
    batch = {"x": np.arange(members.shape[1])}
    whole = parts([(batch, members)], micro_batch, "pure", squares=True)
    assert [len(part.batch["x"]) for part in whole] == [micro_batch] * 3 + [
        max(1, micro_batch // 4)
    ]


@pytest.mark.parametrize(
    "dtype", [np.float16, jnp.bfloat16, np.float32, ">f4", np.float64, np.longdouble]
)
def test_every_float_type_and_layout(dtype):
    params, masks = network()
    other = jax.tree.map(lambda x: np.asfortranarray(x.astype(dtype)), params)
    for leaf in jax.tree.leaves((other, masks)):
        leaf.setflags(write=False)
    scores = average_importance(loss, other, masks, data(), num_groups=GROUPS)
    coarse = jnp.dtype(np.dtype(dtype).newbyteorder("=")).itemsize < 4
    for found, expected in zip(layers(scores), definition(data(), "sum-of-squares"), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0.1, atol=1e-2 if coarse else 1e-6)
        assert found.dtype == np.float32


@pytest.mark.whole(but=1)
@pytest.mark.parametrize(
    "flags",
    [
        {"JAX_ENABLE_X64": "1"},
        {"JAX_NUMPY_DTYPE_PROMOTION": "strict", "JAX_NUMPY_RANK_PROMOTION": "raise"},
        {"JAX_DEBUG_NANS": "1", "JAX_TRANSFER_GUARD": "disallow"},
    ],
    ids=lambda flags: next(iter(flags)),
)
def test_under_flags_of_jax(flags, monkeypatch):
    code = (
        "import numpy as np, fairgrape_jax.scoring.per_sample as s, jax\n"
        "def loss(p, x): return ((x @ p['kernel']) ** 2).sum(axis=1)\n"
        "p = {'kernel': np.ones((3, 2), np.float32), 'n': 3}\n"
        "m = {'kernel': np.ones((3, 2), bool), 'n': None}\n"
        "x, g = np.ones((8, 3), np.float32), np.arange(8) % 3 - 1\n"
        "for one in (s.group_importance(loss, p, m, x, g, num_groups=2),\n"
        "            s.average_importance(loss, p, m, [(x, g)] * 2, num_groups=2),\n"
        "            s.average_importance(loss, p, m, [(x, g)] * 2, num_groups=2,\n"
        "                                 micro_batch=3)):\n"
        "    print(jax.device_get(one['kernel']).tolist() == [[[36.0] * 2] * 3] * 2)\n"
    )
    for name, value in flags.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["True"] * 3, done.stderr[-2000:]


def refused(message, **change):
    params, masks = network()
    ((batch, ids),) = data((12,))
    options = {"loss_fn": loss, "params": params, "masks": masks, "batches": [(batch, ids)]}
    options = {"num_groups": GROUPS, **options, **change}
    with pytest.raises(ValueError, match=message):
        average_importance(**options)


def test_bad_input_is_named():
    params, masks = network()
    ((batch, ids),) = data((12,))
    refused("batches: are empty", batches=[])
    refused("no sample is in a group", batches=[(batch, np.full(12, -1))])
    refused("number 0 is no pair", batches=[batch[0]])
    refused("2 is not below num_groups, 2", num_groups=2)
    refused(r"groups \(3,\) int64: .* 12 samples", batches=[(batch, ids[:3])])
    refused(r"groups \(12, 3\) bool: \(3, 12\)", batches=[(batch, np.ones((12, 3), bool))])
    refused("same number of samples", batches=[((batch[0], batch[1][:5]), ids)])
    refused("loss_fn: gives .* before any mean", loss_fn=lambda p, b: loss(p, b).mean())
    refused("masks of layer b/w", masks={"a": masks["a"], "b": {"w": np.ones((2, 2), bool)}})
    refused("no layer is prunable", masks={"a": {"kernel": None, "bias": None}, "b": {"w": None}})
    refused("formula: 'mean'", formula="mean")
    refused("form: 'fast'", form="fast")
    refused("micro_batch: 0", micro_batch=0)
    params["b"]["w"][0, 0] = np.inf
    refused("importance of layer .* is not finite", params=params)


def test_the_same_function_is_compiled_once():
    params, masks = network()
    traces = []

    def counted(params, batch):
        traces.append(jax.tree.leaves(batch)[0].shape[0])
        return loss(params, batch)

    for seed in range(4):
        average_importance(
            counted, params, masks, data((40,), seed), num_groups=2 + 1, micro_batch=8
        )
    # The sizes of a group's last micro-batch are the quarters of a whole one.
    sizes = set(traces)
    assert 8 in sizes <= {2, 4, 6, 8}
    traces.clear()
    for seed in range(4):
        average_importance(
            counted, params, masks, data((40,), seed), num_groups=2 + 1, micro_batch=8
        )
    assert not traces
