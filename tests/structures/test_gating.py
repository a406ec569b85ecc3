"""Gates of structures: at 0 and 1 the small network, in between its activations multiplied."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fairgrape_jax as fg
from fairgrape_jax.structures.cost import Counter
from fairgrape_jax.structures.gating import find_readers, gate, soft_cost, sum_read
from tests.helpers.small_networks import NETWORKS, OUTPUT, Network, arrays


def single_head():
    """A product of two activations, whose channels no weight reads."""

    def apply(p, x):
        q, k = (x @ p[name]["kernel"] + p[name]["bias"] for name in ("q", "k"))
        return jax.nn.softmax(q @ k.swapaxes(1, 2)) @ (x @ p["v"]["kernel"])

    names = ("q", "k", "v")
    params = {name: arrays(kernel=(3, 4), bias=(4,)) for name in names}
    groups = {("q/kernel[1]", "q/bias[0]", "k/kernel[1]", "k/bias[0]"): 4}
    return Network(apply, params, arrays(x=(2, 5, 3))["x"], groups, {"v": OUTPUT})


CASES = {name: build for name, build in NETWORKS.items() if build().groups}
CASES["single_head"] = single_head


@cache
def case(name):
    network = CASES[name]()
    return network, fg.find_structures(network.apply, network.params, network.x)


def drawn(structures, seed):
    """Masks of about two thirds of the structures, and the same as gates."""
    rng = np.random.default_rng(seed)
    masks = {g.name: rng.random(g.size) < 0.6 for g in structures.groups}
    for mask in masks.values():
        mask[rng.integers(mask.size)] = True
    return masks, np.concatenate([*masks.values()]).astype(np.float32)


@pytest.mark.parametrize("name", CASES)
def test_gates_of_0_and_1_are_the_network_without_the_structures(name):
    network, structures = case(name)
    owners = find_readers(structures)
    masks, gates = drawn(structures, seed=1)
    found = jax.jit(lambda p, z: network.apply(gate(owners, p, z), network.x))(
        network.params, gates
    )
    small = fg.shrink(structures, network.params, masks)
    left = small.apply(small.params, network.x)
    for a, b in zip(*map(jax.tree.leaves, (found, left)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_the_soft_cost_of_gates_of_0_and_1_is_the_counters(name):
    _, structures = case(name)
    counter = Counter(structures)
    masks, gates = drawn(structures, seed=2)
    for of in ("flops", "weights"):
        exact = getattr(counter(masks), of) / getattr(counter(structures.full_masks()), of)
        part = jax.jit(lambda cost, z: cost.part(z))(soft_cost(structures, of), gates)
        assert float(part) == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("name", ["depthwise", "flattened", "residual", "attention"])
def test_the_gradient_of_the_soft_cost_is_that_of_differences(name):
    _, structures = case(name)
    rng = np.random.default_rng(3)
    shape = drawn(structures, seed=0)[1].shape
    between, way = rng.uniform(0.1, 0.9, shape), rng.normal(size=shape)
    with jax.enable_x64():
        cost = jax.tree.map(jnp.asarray, soft_cost(structures, "flops"))
        slope = jax.jit(jax.grad(cost.part))(jnp.asarray(between)) @ way
        part = jax.jit(cost.part)
        sides = [part(jnp.asarray(between + e * way)) for e in (1e-4, -1e-4)]
    assert float(slope) == pytest.approx(float(sides[0] - sides[1]) / 2e-4, rel=1e-5)


@pytest.mark.parametrize("name", ["depthwise", "flattened", "residual", "attention"])
def test_what_is_summed_over_readers_is_the_gradient_in_the_gates(name):
    """dL/dz by autograd is sum w dL/dw / z, each weight having one gate here."""
    network, structures = case(name)
    owners = find_readers(structures)
    gates = jnp.asarray(np.random.default_rng(4).uniform(0.2, 1, drawn(structures, 0)[1].shape))
    gates = gates.astype(jnp.float32)

    def loss(params, gates):
        return jnp.square(network.apply(gate(owners, params, gates), network.x)).sum()

    of_params, expected = jax.jit(jax.grad(loss, (0, 1)))(network.params, gates)
    products = jax.tree.map(jnp.multiply, network.params, of_params)
    found = sum_read(owners, products, gates.size) / gates
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_a_gate_multiplies_what_comes_after_the_norm_and_the_activation():
    """A depthwise convolution and clipping lie between what makes a channel and what reads it."""
    network, structures = case("depthwise")
    gates = jnp.asarray([0.1, 0.3, 0.5, 0.7, 0.9, 1.0], jnp.float32)
    found = network.apply(gate(find_readers(structures), network.params, gates), network.x)
    by_hand = network.params | {"down": network.params["down"] * np.asarray(gates)[:, None]}
    np.testing.assert_allclose(found, network.apply(by_hand, network.x), rtol=1e-6)
