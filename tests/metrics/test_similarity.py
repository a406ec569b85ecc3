"""Similarities: what they must not depend on, and plain float64 NumPy on whole matrices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairgrape_jax import models
from fairgrape_jax.metrics import similarity
from fairgrape_jax.metrics.similarity import cka, linear_kernel, moments, rbf_kernel
from fairgrape_jax.models import activations


def pair(seed=0, n=200, dx=6, dy=8, noise=0.5):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, dx)) @ rng.normal(size=(dx, dx)) + rng.normal(size=dx)
    y = x @ rng.normal(size=(dx, dy)) + noise * rng.normal(size=(n, dy))
    return x, y


def orthogonal(d, seed=1):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]


def canonical(x, y):
    """Canonical correlations by QR: the singular values of Qx' Qy (Bjorck and Golub, 1973)."""
    qx, qy = (np.linalg.qr(z - z.mean(axis=0))[0] for z in (x, y))
    return np.linalg.svd(qx.T @ qy, compute_uv=False), qx, qy


def test_svcca_of_all_directions_is_the_mean_canonical_correlation():
    x, y = pair()
    expected = 1 - canonical(x, y)[0].mean()
    assert similarity.svcca_distance(moments(x, y), keep=1.0) == pytest.approx(expected, abs=1e-9)


def test_svcca_keeps_the_directions_of_most_variance():
    x, y = pair(1)

    def reduced(z, keep=0.9):
        z = z - z.mean(axis=0)
        u, s, _ = np.linalg.svd(z, full_matrices=False)
        count = np.searchsorted(np.cumsum(s**2) / np.sum(s**2), keep) + 1
        return u[:, :count] * s[:count]

    expected = 1 - canonical(reduced(x), reduced(y))[0].mean()
    assert similarity.svcca_distance(moments(x, y), 0.9) == pytest.approx(expected, abs=1e-9)


def test_svcca_keeps_99_percent_of_the_variance_by_default():
    x, y = pair(1, noise=2.0)
    x = x @ np.diag([1, 1, 1, 1, 1, 0.01])  # a direction of next to no variance
    found = similarity.svcca_distance(moments(x, y))
    assert found == similarity.svcca_distance(moments(x, y), 0.99)
    assert abs(found - similarity.svcca_distance(moments(x, y), 1.0)) > 1e-3


def test_pwcca_weighs_by_the_projections_of_the_units():
    x, y = pair(2)
    correlations, qx, qy = canonical(x, y)
    u = np.linalg.svd(qx.T @ qy)[0]
    weight = np.abs((qx @ u).T @ (x - x.mean(axis=0))).sum(axis=1)
    expected = 1 - (weight * correlations).sum() / weight.sum()
    assert similarity.pwcca_distance(moments(x, y)) == pytest.approx(expected, abs=1e-9)


DISTANCES = {
    "svcca": lambda x, y: similarity.svcca_distance(moments(x, y)),
    "pwcca": lambda x, y: similarity.pwcca_distance(moments(x, y)),
    "cka": cka,
    "cka unbiased": lambda x, y: cka(x, y, unbiased=True),
    "rbf": lambda x, y: cka(x, y, rbf_kernel),
    "rbf unbiased": lambda x, y: cka(x, y, rbf_kernel, unbiased=True),
}


@pytest.mark.parametrize("name", DISTANCES)
def test_rotations_shifts_and_scales_change_nothing(name):
    x, y = pair(3, noise=3.0)
    found = DISTANCES[name](x, y)
    assert 0.01 < found < 0.99
    rotated = [] if name == "pwcca" else [x @ orthogonal(6)]  # its weights are those of units
    for other in (*rotated, 7.5 * x, x + 3.0):
        assert DISTANCES[name](other, y) == pytest.approx(found, abs=1e-7)
    assert DISTANCES[name](x, y @ orthogonal(8)) == pytest.approx(found, abs=1e-7)
    same = 1.0 if "cka" in name or "rbf" in name else 0.0
    assert DISTANCES[name](x, -2 * x @ orthogonal(6)) == pytest.approx(same, abs=1e-7)


def test_linear_maps_change_cka_but_not_canonical_correlations():
    x, y = pair(4)
    bent = x @ np.diag([1, 2, 4, 8, 16, 32])
    keep = similarity.svcca_distance(moments(x, y), 1.0)
    assert similarity.svcca_distance(moments(bent, y), 1.0) == pytest.approx(keep, abs=1e-7)
    assert abs(cka(bent, y) - cka(x, y)) > 0.01


def test_linear_cka_is_that_of_the_features():
    """|Y'X|^2 / (|X'X| |Y'Y|) of centred features (Kornblith et al., 2019, Sec. 2.2)."""
    x, y = (z - z.mean(axis=0) for z in pair(5))
    norm = np.linalg.norm
    expected = norm(y.T @ x) ** 2 / (norm(x.T @ x) * norm(y.T @ y))
    assert cka(x, y) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("n", [4, 5, 7])
def test_hsic_by_its_definitions(n):
    rng = np.random.default_rng(6)
    k, l = (linear_kernel(rng.normal(size=(n, 3))) for _ in range(2))  # noqa: E741
    h = np.eye(n) - 1 / n
    assert similarity.hsic(k, l) == pytest.approx(np.trace(k @ h @ l @ h))
    # The U-statistic as a sum over distinct indices (Song et al., 2012, Eq. 4).
    i, j, q, r = np.meshgrid(*[range(n)] * 4, indexing="ij")
    distinct = (i != j) & (i != q) & (i != r) & (j != q) & (j != r) & (q != r)
    terms = k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q])
    assert similarity.hsic_unbiased(k, l) == pytest.approx(terms[distinct].mean())
    with pytest.raises(ValueError, match="4 samples or more, not 3"):
        similarity.hsic_unbiased(k[:3, :3], l[:3, :3])


def test_hsic_centres_rows_and_columns():
    rng = np.random.default_rng(7)
    k, m = rng.normal(size=(2, 6, 6))  # of no symmetry
    h = np.eye(6) - 1 / 6
    assert similarity.hsic(k, m) == pytest.approx(((h @ k @ h) * m).sum())


@pytest.mark.parametrize("width", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("n", [3, 6, 7])  # an odd number of pairs, of which one is the median
def test_the_rbf_kernel_is_that_of_distances_over_their_median(n, width):
    x = np.random.default_rng(n).normal(size=(n, 4))
    distances = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
    median = np.median(distances[np.triu_indices(n, 1)])
    expected = np.exp(-(distances**2) / (2 * (width * median) ** 2))
    np.testing.assert_allclose(rbf_kernel(x, width), expected, rtol=1e-9)
    if width == 1:
        np.testing.assert_array_equal(rbf_kernel(x), rbf_kernel(x, width))
    assert rbf_kernel(x + 1e7).max() <= 1  # squares that rounding makes negative


def test_where_most_samples_are_equal_distances_are_as_they_are():
    kernel = rbf_kernel(np.array([[0.0], [0.0], [0.0], [0.0], [3.0]]))
    np.testing.assert_allclose(kernel[:, 0], [1, 1, 1, 1, np.exp(-9 / 2)])


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_directions_without_variance_take_no_part(scale):
    """A unit twice, one that is constant, and one that moves by no more than rounding does."""
    x, y = pair(10)
    expected = 1 - canonical(x, y)[0].mean()
    more = np.column_stack([x, x[:, 0], np.full(len(x), 3.0)]) * scale
    assert similarity.svcca_distance(moments(more, y), 1.0) == pytest.approx(expected, abs=1e-6)
    assert similarity.svcca_distance(moments(x, y * scale), 1.0) == pytest.approx(expected)
    rng = np.random.default_rng(11)
    steep = rng.normal(size=(200, 3)) * np.array([1, 1e-3, 3e-7])  # of variance 1, 1e-6, 1e-13
    other = steep[:, 1:] / [1e-3, 3e-7] + rng.normal(size=(200, 2))
    expected = 1 - canonical(steep[:, :2], other)[0].mean()
    found = similarity.svcca_distance(moments(steep * scale, other), 1.0)
    assert found == pytest.approx(expected, abs=1e-3)


def test_directions_that_hold_exactly_what_is_kept_are_enough():
    a, b = np.array([1, 1, -1, -1.0]), np.array([1, -1, 1, -1.0])
    x = np.column_stack([np.sqrt(3) * a, b])  # 3 and 1 of a variance of 4
    for keep, expected in ((0.75, 1), (0.74, 1), (0.76, 0), (1.0, 0)):
        found = similarity.svcca_distance(moments(x, b[:, None]), keep)
        assert found == pytest.approx(expected, abs=1e-12)


def test_no_distance_is_below_zero():
    for seed in range(20):
        x, _ = pair(seed, n=40)
        assert similarity.svcca_distance(moments(x, x @ orthogonal(6))) >= 0
        assert similarity.pwcca_distance(moments(x, x @ orthogonal(6))) >= 0


def test_the_minibatch_form_does_not_depend_on_the_batch_and_the_biased_one_does():
    x, y = pair(7, n=2048, noise=8.0)
    whole = cka(x, y, unbiased=True)

    def batched(size, unbiased):
        parts = zip(np.split(x, 2048 // size), np.split(y, 2048 // size), strict=True)
        return similarity.minibatch_cka(parts, unbiased=unbiased)

    assert batched(16, True) == pytest.approx(whole, abs=0.02)
    assert batched(16, False) - whole > 0.04
    independent = np.random.default_rng(8).normal(size=(2048, 8))
    parts = zip(np.split(x, 128), np.split(independent, 128), strict=True)
    assert abs(similarity.minibatch_cka(parts)) < 0.02


def test_moments_add_up_over_batches():
    x, y = pair(9)
    parts = zip(np.split(x, 4), np.split(y, 4), strict=True)
    total, *others = [moments(a, b) for a, b in parts]
    for other in others:
        total = total + other
    expected = similarity.pwcca_distance(moments(x, y))
    assert similarity.pwcca_distance(total) == pytest.approx(expected, abs=1e-9)
    with pytest.raises(dataclasses.FrozenInstanceError):
        total.count = 0


def test_layers_of_two_networks():
    module = models.create("cnn", 3)
    images = np.random.default_rng(0).normal(size=(64, 8, 8, 1)).astype(np.float32)
    dense = module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    other = module.init(jax.random.key(1), jnp.zeros((1, 8, 8, 1)))
    names = models.FEATURES["cnn"]
    same = activations.compare_layers(module, dense, dense, np.split(images, 4), names)
    far = activations.compare_layers(module, dense, other, np.split(images, 4), names)
    assert list(same) == ["conv1", "conv2"]
    for name in names:
        assert same[name].svcca == pytest.approx(0, abs=1e-6)
        assert same[name].pwcca == pytest.approx(0, abs=1e-6)
        assert same[name].cka == pytest.approx(1)
        assert same[name].rbf_cka == pytest.approx(1)
        assert far[name].cka < 0.99
    # Nine pixels of one channel make both networks' first layer: linear maps of the same.
    assert far["conv1"].svcca == pytest.approx(0, abs=1e-6)
    assert far["conv2"].svcca > 0.05
    assert far["conv2"].pwcca > 0.05
    # Against the whole matrices at once: the places of all pictures are the samples.
    taken = [
        np.asarray(activations._features(module, tuple(names), v, images)["conv2"], np.float64)
        for v in (dense, other)
    ]
    x, y = (similarity.rows(z) for z in taken)
    expected = similarity.svcca_distance(moments(x, y))
    assert far["conv2"].svcca == pytest.approx(expected, abs=1e-7)


def test_activations_that_do_not_vary_are_refused():
    with pytest.raises(ValueError, match="do not vary"):
        similarity.svcca_distance(moments(np.ones((9, 2)), pair(n=9)[0]))
    assert np.isnan(cka(np.ones((9, 2)), pair(n=9)[0]))
