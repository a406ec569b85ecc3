"""Scores of the methods against torch's autograd, and against their definitions."""

import zlib
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fairgrape_jax import losses, masks
from fairgrape_jax.methods import METHODS, Problem, fairprune, grasp
from fairgrape_jax.scoring.statistics import SQUARES, ScoredNetwork
from tests.helpers.datasets import GOLDEN_FILES

GOLDEN = np.load(GOLDEN_FILES / "scores_torch.npz")


class LeNet(nn.Module):
    """The network of the golden README, with torch's order of flattening."""

    dtype: type = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        for name, features, padding in (("conv1", 6, 2), ("conv2", 16, 0)):
            x = nn.Conv(features, (5, 5), padding=padding, dtype=self.dtype, name=name)(x)
            x = nn.avg_pool(nn.tanh(x), (2, 2), (2, 2))
        x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        x = nn.tanh(nn.Dense(40, dtype=self.dtype, name="fc1")(x))
        return nn.Dense(10, dtype=self.dtype, name="fc2")(x)


def from_torch(leaf):
    """A weight in torch's layout as a kernel."""
    return leaf.transpose(2, 3, 1, 0) if leaf.ndim == 4 else leaf.T


@cache
def params():
    """The weights of the golden recipe, seed 5."""
    shapes = {"conv1": (6, 1, 5, 5), "conv2": (16, 6, 5, 5), "fc1": (40, 400), "fc2": (10, 40)}
    found = {}
    for layer, shape in shapes.items():

        def drawn(kind, size, scale, layer=layer):
            key = zlib.crc32(f"{layer}.{kind}".encode())
            return np.random.default_rng([5, key]).normal(0, scale, size).astype(np.float32)

        found[layer] = {
            "kernel": from_torch(drawn("weight", shape, np.sqrt(2 / np.prod(shape[1:])))),
            "bias": drawn("bias", shape[:1], 0.1),
        }
    return found


def batches():
    """The golden samples in two halves."""
    rng = np.random.default_rng(5)
    images = rng.standard_normal((24, 1, 28, 28)).astype(np.float32).transpose(0, 2, 3, 1)
    labels = rng.integers(0, 10, 24)[:, None]
    return [
        {"images": images[i : i + 12], "labels": labels[i : i + 12], "valid": np.ones(12, bool)}
        for i in (0, 12)
    ]


def network(module):
    def logits(params, images):
        return module.apply({"params": params}, images)

    def loss(params, images, labels, valid):
        said = logits(params, images)
        return losses.masked_mean(losses.cross_entropy(said, labels, said.shape[1:]), valid)

    return ScoredNetwork(logits, loss, (10,))


def golden_problem():
    weights, alive = params(), masks.full_masks(params())

    def average(statistic, over="all", extra=None, params=None):
        net = network(LeNet())
        value = jax.jit(lambda batch: statistic(net, weights, alive, batch, extra))
        values = [value(batch) for batch in batches()]
        return jax.tree.map(lambda *v: jnp.stack(v).mean(axis=0)[None], *values)

    def importance(over):
        whole = {key: np.concatenate([b[key] for b in batches()]) for key in batches()[0]}
        net = network(LeNet())
        found = jax.jit(lambda batch: SQUARES(net, weights, alive, batch, None))(whole)
        return jax.tree.map(lambda leaf: leaf[None], found)

    how = {"module": LeNet(), "batch_stats": {}, "shape": (28, 28, 1)}
    return Problem(weights, alive, importance, average, **how)


@pytest.mark.parametrize(
    ("method", "golden", "factor"),
    [
        ("snip", "snip", 1),
        ("importance", "taylor", 1),
        # Means over the halves where the official code sums, once in g and once in Hg; and it
        # removes the largest of what it computes.
        ("grasp", "grasp", -4),
        ("synflow", "synflow", None),  # ours are scaled to a largest one of 1
    ],
)
def test_scores_are_those_of_torch(method, golden, factor):
    found = METHODS[method].score(golden_problem())
    layers = ("conv1", "conv2", "fc1", "fc2")
    if factor is None:
        factor = max(GOLDEN[f"{golden}.{layer}.weight"].max() for layer in layers)
    for layer in layers:
        expected = from_torch(GOLDEN[f"{golden}.{layer}.weight"].astype(np.float64))
        error = np.linalg.norm(factor * found[layer]["kernel"] - expected)
        assert error < 1e-4 * np.linalg.norm(expected), layer


class Linear(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, use_bias=False, name="fc")(x)


def linear_problem():
    """Six samples, five of them valid, of a linear network: everything about it can be written."""
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.standard_normal((6, 5)), jnp.float32)
    weights = {"fc": {"kernel": jnp.asarray(rng.standard_normal((5, 3)), jnp.float32)}}
    labels = jnp.asarray(rng.integers(0, 3, (6, 1)))
    return weights, {"images": images, "labels": labels, "valid": jnp.arange(6) < 5}


def test_grasp_is_the_hessian_of_the_weights_that_are_left():
    weights, batch = linear_problem()
    net = network(Linear())._replace(classes=(3,))
    keep = np.random.default_rng(1).random((5, 3)) < 0.6
    alive, weights = {"fc": {"kernel": keep}}, masks.apply_masks({"fc": {"kernel": keep}}, weights)

    def average(statistic, over, params, extra=None):
        found = jax.jit(lambda extra: statistic(net, weights, alive, batch, extra))(extra)
        return jax.tree.map(lambda leaf: leaf[None], found)

    found = grasp.score(Problem(weights, alive, None, average))["fc"]["kernel"]

    def loss(flat):
        return grasp.tempered_loss(net, {"fc": {"kernel": flat.reshape(5, 3)}}, batch)

    flat, left = weights["fc"]["kernel"].reshape(-1), keep.reshape(-1)
    gradient, hessian = jax.jit(jax.grad(loss))(flat) * left, jax.jit(jax.hessian(loss))(flat)
    expected = (flat * left * (hessian @ gradient)).reshape(5, 3)
    np.testing.assert_allclose(np.where(keep, found, 0), expected, rtol=1e-4, atol=1e-12)


def test_fisher_is_the_gauss_newton_diagonal_of_cross_entropy():
    """In expectation over the drawn labels, which is what FairPrune's reimplementations compute."""
    weights, batch = linear_problem()
    net = network(Linear())._replace(classes=(3,))

    def one(key):
        given = jax.random.key_data(key)
        alive = {"fc": {"kernel": np.ones((5, 3), bool)}}
        found = fairprune.FISHER(net, weights, alive, batch | {"number": 0}, given)
        return found["fc"]["kernel"]

    many = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 20_000)).mean(axis=0)
    x = batch["images"][:5]
    p = jax.nn.softmax(net.logits(weights, x))
    exact = jnp.einsum("ni,nc->ic", x**2, p * (1 - p)) / 5  # x_i^2 p_c (1 - p_c)
    np.testing.assert_allclose(many, exact, rtol=0.06)
