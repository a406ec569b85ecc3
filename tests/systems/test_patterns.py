"""ClickTrain's marks, patterns, lasso and hard masks against values of the authors' code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairgrape_jax.methods import METHODS, Problem
from fairgrape_jax.systems import patterns
from tests.helpers.related import golden, to_ours

COUNTS = (4, 8, 12)


def masks(file, count):
    """Our masks of every layer: those of the patterns, those of the kernels, by name."""
    found = {}
    for name, percent in zip(file["layers"], file["ratio_percent"], strict=True):
        squares = np.square(to_ours(file[f"w.{name}"]) * to_ours(file[f"g.{name}"]))
        kernel = patterns.mark_kernels(patterns.kernel_importance(squares), percent)
        pattern = np.ones(squares.shape, bool)
        if squares.shape[:2] == (3, 3):
            pattern = patterns.pattern_masks(patterns.choose_patterns(squares, count))
        found[name] = pattern, kernel
    return found


def test_the_patterns_are_the_authors():
    np.testing.assert_array_equal(patterns.PATTERNS, golden("03_clicktrain")["patterns"])


@pytest.mark.parametrize("count", COUNTS)
def test_marks_and_patterns_are_those_of_the_authors_code(count):
    file = golden("03_clicktrain")
    for name, (pattern, kernel) in masks(file, count).items():
        np.testing.assert_array_equal(kernel.T, file[f"p{count}.kernel_kept.{name}"])
        assert (~kernel).sum() == file[f"p{count}.n_marked.{name}"]
        if pattern.shape[:2] == (3, 3):
            np.testing.assert_array_equal(pattern, to_ours(file[f"p{count}.pattern_mask.{name}"]))
        shape = file[f"w.{name}"].shape
        zero = np.unpackbits(file[f"p{count}.hard_w_zero.{name}"])[: np.prod(shape)].reshape(shape)
        np.testing.assert_array_equal(~(pattern & kernel), to_ours(zero).astype(bool))


@pytest.mark.parametrize("count", COUNTS)
def test_the_lasso_and_its_gradient_are_those_of_the_authors_code(count):
    file = golden("03_clicktrain")
    cut = jax.tree.map(jnp.asarray, masks(file, count))
    weights = {name: jnp.asarray(to_ours(file[f"w2.{name}"])) for name in cut}

    def lasso(weights):
        each = [patterns.group_lasso(weights[name], *cut[name]) for name in cut]
        return float(file["coefficient"]) * sum(each)

    value, gradient = jax.value_and_grad(lasso)(weights)
    np.testing.assert_allclose(value, file[f"p{count}.lasso_value"], rtol=1e-5)
    for name, leaf in gradient.items():
        expected = to_ours(file[f"p{count}.lasso_grad.{name}"])
        np.testing.assert_allclose(leaf, expected, rtol=1e-4, atol=1e-9)


def test_fair_patterns_are_the_best_for_the_group_that_keeps_least():
    rng = np.random.default_rng(0)
    importance = rng.lognormal(0, 2, (3, 3, 3, 4, 5))
    importance[2, ..., 0] = 0  # a group without importance in some kernels takes no part
    chosen = patterns.choose_fair_patterns(importance)
    for i in range(4):
        for o in range(5):
            kernel = importance[..., i, o]
            served = kernel[kernel.any(axis=(1, 2))]
            kept = [(served * p).sum((1, 2)) / served.sum((1, 2)) for p in patterns.PATTERNS]
            assert chosen[i, o] == np.argmax([part.min() for part in kept])
    assert (chosen != patterns.choose_patterns(importance.sum(axis=0))).any()


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", ["clicktrain", "clicktrain-fair"])
def test_the_rows_choose_from_the_first_patterns_alone(name, count):
    rng = np.random.default_rng(0)
    full = {"conv": {"kernel": np.ones((3, 3, 8, 16), bool)}}
    scores = {"conv": {"kernel": rng.exponential(size=(2, 3, 3, 8, 16))}}
    everybody = jax.tree.map(lambda leaf: leaf.sum(axis=0, keepdims=True), scores)
    problem = Problem(
        jax.tree.map(np.float32, full),
        full,
        importance=lambda over: scores if over == "groups" else everybody,
        kernel_patterns=count,
    )
    chosen = METHODS[name].choose(problem, 0.3)["conv"]["kernel"].reshape(3, 3, -1)
    places = np.moveaxis(chosen[..., chosen.sum(axis=(0, 1)) == 4], -1, 0)
    used = (places[:, None] == patterns.PATTERNS).all(axis=(2, 3))
    assert used.any(axis=1).all()
    assert set(np.flatnonzero(used.any(axis=0))) == set(range(count))
