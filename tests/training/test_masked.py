"""Optimizers of optax with masks in their state: zero stays zero, and masks are data."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fairgrape_jax.masks import full_masks
from fairgrape_jax.training.masked import masked, set_masks

OPTIMIZERS = {
    "momentum": optax.sgd(0.1, momentum=0.9),
    "adamw": optax.adamw(0.1, weight_decay=0.1),
    "chain": optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1)),
    "schedule": optax.inject_hyperparams(optax.sgd)(optax.linear_schedule(0.1, 0.0, 10)),
}


def problem(dtype=np.float32):
    rng = np.random.default_rng(0)
    params = {"kernel": rng.normal(size=(6, 4)).astype(dtype), "bias": np.ones(4, dtype)}
    masks = full_masks(params)
    masks["kernel"][::2] = False
    return jax.tree.map(jnp.asarray, params), masks


def make_step(optimizer, traces):
    def step(params, state):
        traces.append(1)
        gradients = jax.grad(lambda p: ((p["kernel"].sum(0) + p["bias"] - 3) ** 2).sum())(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return step


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_pruned_weights_are_zero_and_the_others_train_as_alone(name, dtype):
    params, masks = problem(dtype)
    optimizer, traces = masked(OPTIMIZERS[name], masks), []
    state, step = optimizer.init(params), jax.jit(make_step(optimizer, traces))
    for _ in range(3):
        params, state = step(params, state)
        assert (params["kernel"][::2] == 0).all()
    assert (params["kernel"][1::2] != 0).all()
    moments = [x for x in jax.tree.leaves(state.inner) if jnp.shape(x) == (6, 4)]
    assert all((x[::2] == 0).all() for x in moments)


def test_other_masks_are_not_traced_again():
    params, masks = problem()
    optimizer, traces = optax.chain(masked(optax.adam(0.1), masks)), []
    state, step = optimizer.init(params), jax.jit(make_step(optimizer, traces))
    params, state = step(params, state)
    for row in (1, 3, 5):
        masks["kernel"][row] = False
        state = set_masks(state, masks)
        params, state = step(params, state)
        assert (params["kernel"][row] == 0).all()
        assert (params["kernel"][row + 2 :: 2] != 0).all()
    assert len(traces) == 1


def test_under_pmap_all_devices_get_the_masks():
    params, masks = problem()
    optimizer, traces = masked(optax.sgd(0.1), masks), []
    devices = jax.devices()[:2]
    both = (params, optimizer.init(params))
    params, state = jax.tree.map(lambda x: jnp.stack([x] * 2), both)
    step = jax.pmap(make_step(optimizer, traces), devices=devices)
    for _ in range(2):
        params, state = step(params, state)
    before = len(traces)
    masks["kernel"][1] = False
    params, state = step(params, set_masks(state, masks))
    assert (params["kernel"][:, :2] == 0).all()
    assert len(traces) == before


def test_bad_input_is_named():
    params, masks = problem()
    optimizer = masked(optax.sgd(0.1), masks)
    state = optimizer.init(params)
    with pytest.raises(ValueError, match="give the parameters"):
        optimizer.update(params, state)
    with pytest.raises(ValueError, match="holds no masks"):
        set_masks(optax.sgd(0.1).init(params), masks)
    with pytest.raises(ValueError, match="masks: of the structure"):
        set_masks(state, {"kernel": masks["kernel"]} | {"bias": np.ones(4, bool)})
    with pytest.raises(ValueError, match=r"bool \(6, 4\)"):
        set_masks(state, {"kernel": np.ones((4, 6), bool), "bias": None})
    with pytest.raises(ValueError, match=r"masks of layer .*float32"):
        masked(optax.sgd(0.1), {"kernel": np.ones((6, 4), np.float32), "bias": None}).init(params)
