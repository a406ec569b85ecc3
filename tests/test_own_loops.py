"""Training loops of one's own with the front door: under jit, pmap, shard_map, flags, any dtype."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

import fairgrape_jax as fg
from fairgrape_jax.masks import native

GROUPS, BATCH, ROUNDS = 3, 32, (0.5, 0.2)
rng = np.random.default_rng(0)
X = rng.normal(size=(BATCH, 6)).astype(np.float32)
Y = rng.integers(0, 3, BATCH).astype(np.int32)
IDS = rng.integers(-1, GROUPS, BATCH)


def coarse(values):
    """Numbers that every float type holds."""
    return np.asarray(jnp.asarray(values, jnp.bfloat16).astype(np.float32))


NETWORK = [
    {"w": coarse(rng.normal(size=(6, 16))), "b": np.zeros(16, np.float32)},
    {"w": coarse(rng.normal(size=(16, 3))), "b": np.zeros(3, np.float32)},
]


def network():
    return jax.tree.map(np.copy, NETWORK)


def loss_fn(params, batch):
    first, second = params
    hidden = jnp.tanh(batch[0].astype(first["w"].dtype) @ first["w"] + first["b"][None])
    logits = (hidden @ second["w"] + second["b"][None]).astype(jnp.float32)
    chosen = jax.nn.one_hot(batch[1], 3, dtype=jnp.float32)
    return -(jax.nn.log_softmax(logits) * chosen).sum(axis=1)


def make_step(optimizer, traces, axis_name=None):
    def step(params, state, batch):
        traces.append(1)
        gradients = jax.grad(lambda p: loss_fn(p, batch).mean())(params)
        if axis_name:
            gradients = jax.lax.pmean(gradients, axis_name)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return step


def average(params, masks):
    return fg.average_importance(loss_fn, params, masks, [((X, Y), IDS)], num_groups=GROUPS)


def over_devices(params, batch, ids, masks):
    return fg.group_importance(
        loss_fn, params, masks, batch, ids, num_groups=GROUPS, axis_name="data"
    )


def by_jit(optimizer, traces):
    step = jax.jit(make_step(optimizer, traces))
    batch = jax.device_put((X, Y))
    return {
        "put": jax.device_put,
        "get": jax.device_get,
        "step": lambda params, state: step(params, state, batch),
        "scores": average,
    }


def by_pmap(optimizer, traces):
    devices = jax.devices()
    mesh = Mesh(np.array(devices), ("d",), axis_types=(AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, P("d"))
    step = jax.pmap(make_step(optimizer, traces, "data"), "data", devices=devices)
    score = jax.pmap(over_devices, "data", in_axes=(0, 0, 0, None), devices=devices)
    cut = jax.tree.map(lambda x: x.reshape(8, -1, *x.shape[1:]), (X, Y, IDS))
    x, y, ids = jax.device_put(cut, rows)

    def put(tree):
        return jax.device_put(jax.tree.map(lambda leaf: np.stack([leaf] * 8), tree), rows)

    def get(tree):
        return jax.tree.map(lambda leaf: leaf[0], jax.device_get(tree))

    return {
        "put": put,
        "get": get,
        "step": lambda params, state: step(params, state, (x, y)),
        "scores": lambda params, masks: get(score(params, (x, y), ids, masks)),
    }


def by_shard_map(optimizer, traces):
    mesh = Mesh(np.array(jax.devices()), ("data",), axis_types=(AxisType.Auto,))
    one, rows = (jax.sharding.NamedSharding(mesh, spec) for spec in (P(), P("data")))
    lift = functools.partial(jax.shard_map, mesh=mesh, out_specs=P())
    step = jax.jit(
        lift(make_step(optimizer, traces, "data"), in_specs=(P(), P(), P("data")), check_vma=False)
    )
    score = jax.jit(lift(over_devices, in_specs=(P(), P("data"), P("data"), P())))
    x, y, ids = jax.device_put((X, Y, IDS), rows)
    return {
        "put": lambda tree: jax.device_put(tree, one),
        "get": jax.device_get,
        "step": lambda params, state: step(params, state, (x, y)),
        "scores": lambda params, masks: score(params, (x, y), ids, jax.device_put(masks, one)),
    }


def loop(make):
    """Score, prune, set the masks, train, two rounds; masks, parameters, times it was traced."""
    params, masks, traces = network(), fg.full_masks(network()), []
    optimizer = fg.masked(optax.sgd(0.05, momentum=0.9), masks)
    own, counts = make(optimizer, traces), []
    state = own["put"](jax.device_get(jax.jit(optimizer.init)(jax.device_put(params))))
    params, chosen = own["put"](params), []
    for density in ROUNDS:
        scores = own["scores"](params, masks)
        masks, info = fg.prune(own["get"](params), masks, density, scores=scores, minimum=1)
        assert info["density"] == pytest.approx(density, abs=0.02)
        chosen.append(masks)
        state = fg.set_masks(state, masks)
        for _ in range(3):
            params, state = own["step"](params, state)
            counts.append(len(traces))
    return chosen, own["get"](params), counts


@pytest.fixture(scope="module")
def expected():
    return loop(by_jit)


def test_the_loop_trains_what_is_left(expected):
    (_, last), params, traces = expected
    assert traces == [1] * 6
    for layer, first, mask in zip(params, network(), last, strict=True):
        assert (layer["w"][~mask["w"]] == 0).all()
        assert (layer["w"][mask["w"]] != first["w"][mask["w"]]).all()


@pytest.mark.parametrize("make", [by_pmap, by_shard_map])
def test_eight_devices_give_the_same_masks_and_weights(make, expected):
    chosen, params, traces = loop(make)
    jax.tree.map(np.testing.assert_array_equal, chosen, expected[0])
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, params, expected[1])
    assert len(set(traces[1:])) == 1  # the first step's arrays are placed otherwise than pmap's


FLAGS = {
    "x64": lambda: jax.enable_x64(True),
    "dtypes": lambda: jax.numpy_dtype_promotion("strict"),
    "ranks": lambda: jax.numpy_rank_promotion("raise"),
    "NaN": lambda: jax.debug_nans(True),
    "transfers": lambda: jax.transfer_guard("disallow"),
}


@pytest.mark.whole(but=1)
@pytest.mark.parametrize("flag", FLAGS.values(), ids=FLAGS)
def test_the_loop_under_flags(flag, expected):
    with flag():
        chosen, params, _ = loop(by_jit)
    jax.tree.map(np.testing.assert_array_equal, chosen, expected[0])
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, params, expected[1])


@pytest.mark.whole(but=1)
@pytest.mark.parametrize("flag", FLAGS.values(), ids=FLAGS)
def test_every_allocation_and_the_metrics_under_flags(flag):
    params, masks = network(), fg.full_masks(network())
    scores = average(params, masks)
    predictions, key = jnp.asarray(Y).at[:9].set(0), jax.random.key(0)
    ours = {}
    for outside in (True, False):
        with jax.enable_x64(False) if outside else flag():
            on_device = jax.device_put(scores)
            for allocation in ("uniform", "uniform+", "erk", "lamp", "global"):
                chosen, _ = fg.prune(params, masks, 0.8, scores=on_device, allocation=allocation)
                ours[allocation, outside] = chosen
            for method in ("magnitude", "random"):
                chosen, _ = fg.prune(params, masks, 0.3, method=method, key=key)
                ours[method, outside] = chosen
            ours["apply", outside] = jax.device_get(fg.apply_masks(chosen, params))
            result = fg.group_metrics(Y, predictions, IDS, replicates=5)
            ours["metrics", outside] = result.by_group
            audited = fg.audit(Y, Y, {"p": predictions}, IDS, replicates=5)
            ours["audit", outside] = audited.metrics["sets"]["p"]["statistics"]
    for name in {name for name, _ in ours} - {"metrics", "audit"}:
        jax.tree.map(np.testing.assert_array_equal, ours[name, True], ours[name, False])
    for name in ("metrics", "audit"):
        assert str(ours[name, True]) == str(ours[name, False])


# -- dtypes and layouts ---------------------------------------------------------------------------
LAYOUTS = {
    "half": lambda x: x.astype(np.float16),
    "bfloat16": lambda x: x.astype(jnp.bfloat16),
    "double": lambda x: x.astype(np.float64),
    "long double": lambda x: x.astype(np.longdouble),
    "big-endian": lambda x: x.astype(">f4"),
    "big-endian double": lambda x: x.astype(">f8"),
    "Fortran": np.asfortranarray,
    "reversed": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
    "jax": jnp.asarray,
    "jax bfloat16": lambda x: jnp.asarray(x, jnp.bfloat16),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_float_type_order_and_byte_order_gives_the_same_masks(layout):
    params = jax.tree.map(LAYOUTS[layout], network())
    masks = fg.full_masks(params)
    assert [mask.shape for mask in jax.tree.leaves(masks)] == [(6, 16), (16, 3)]
    exact = average(network(), masks)
    for method, scores in (("magnitude", None), ("fairgrape", exact), ("importance", exact)):
        converted = (
            None if scores is None else jax.tree.map(LAYOUTS[layout], jax.device_get(scores))
        )
        rounded = None if scores is None else jax.tree.map(np.float32, converted)
        chosen, _ = fg.prune(params, masks, 0.3, method=method, scores=converted)
        expected, _ = fg.prune(network(), masks, 0.3, method=method, scores=rounded)
        jax.tree.map(np.testing.assert_array_equal, chosen, expected)
    close = functools.partial(np.testing.assert_allclose, rtol=0.1, atol=0.02)
    jax.tree.map(close, average(params, masks), exact)
    pruned = fg.apply_masks(chosen, params)
    for one, other in zip(pruned, fg.apply_masks(chosen, network()), strict=True):
        np.testing.assert_array_equal(np.float32(one["w"]), other["w"])
    frozen = jax.tree.map(
        lambda mask: np.frombuffer(mask.tobytes(), bool).reshape(mask.shape), masks
    )
    again, _ = fg.prune(params, frozen, 0.3, method="magnitude")
    jax.tree.map(
        np.testing.assert_array_equal, again, fg.prune(params, masks, 0.3, method="magnitude")[0]
    )
    biases = jax.tree.map(lambda leaf: native(leaf) if leaf.ndim == 1 else leaf, pruned)
    on_device = jax.tree.map(jnp.asarray, biases)
    optimizer = fg.masked(optax.sgd(0.1), chosen)
    step = jax.jit(make_step(optimizer, []))
    after, _ = step(on_device, optimizer.init(on_device), (X, Y))
    for layer, before, mask in zip(after, on_device, chosen, strict=True):
        assert layer["w"].dtype == before["w"].dtype
        assert (np.asarray(layer["w"])[~mask["w"]] == 0).all()


def test_layers_and_batches_without_anything_in_them():
    params = [*network(), {"w": np.zeros((0, 4), np.float32), "b": np.zeros(4, np.float32)}]

    def loss(params, batch):
        return loss_fn(params[:2], batch)

    masks = fg.full_masks(params)
    empty = ((X[:0], Y[:0]), IDS[:0])
    scores = fg.average_importance(
        loss, params, masks, [empty, ((X, Y), IDS), empty], num_groups=GROUPS
    )
    assert scores[2]["w"].shape == (GROUPS, 0, 4)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5),
        scores[:2],
        average(network(), masks[:2]),
    )
    for allocation in ("uniform", "erk", "lamp", "global"):
        chosen, info = fg.prune(params, masks, 0.3, scores=scores, allocation=allocation)
        assert info["layers"][2]["alive"] == 0
        assert chosen[2]["w"].shape == (0, 4)
    assert fg.apply_masks(chosen, params)[2]["w"].shape == (0, 4)
    none = fg.group_importance(loss, params, masks, (X[:0], Y[:0]), IDS[:0], num_groups=GROUPS)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(none))
    with pytest.raises(ValueError, match="batches: are empty, or no sample"):
        fg.average_importance(loss, params, masks, [empty], num_groups=GROUPS)
