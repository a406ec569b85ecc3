"""The annotations of arrays are checked in every test, and what a function refuses comes first."""

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from fairgrape_jax import losses, masks, metrics, scoring
from fairgrape_jax.scoring.assignment import block_starts
from fairgrape_jax.selection import descending, select_greedy
from fairgrape_jax.selection.greedy import group_totals


def test_an_array_of_another_rank_or_dtype_is_found():
    assert descending.__wrapped__.__name__ == "descending"
    for call in (
        lambda: block_starts(np.zeros((2, 2), int)),
        lambda: block_starts(np.zeros(2)),
        lambda: group_totals(np.ones((2, 2), int)),
        lambda: scoring.place_groups(np.ones((1, 2), int), 1),
        lambda: losses.masked_mean(jnp.ones(2), jnp.ones(2)),
        lambda: losses.predictions(jnp.ones(4), (2, 2)),
        lambda: losses.hint(jnp.ones((2, 3)), jnp.ones((1, 3))),
        lambda: metrics.rho_accuracy([np.ones((2, 2, 3))]),
        lambda: metrics.relative_changes(np.ones((3, 2)), np.ones((1, 2))),
    ):
        with pytest.raises(TypeCheckError):
            call()


def test_the_error_of_the_function_comes_first():
    with pytest.raises(ValueError, match="dtype bool is expected"):
        select_greedy(np.ones((2, 3)), np.ones(3), 1)


def test_a_tree_with_a_leaf_of_another_dtype_is_found():
    wrong = {"a": {"kernel": np.ones((2, 3), int)}, "b": {"kernel": None}}
    for call in (masks.density, masks.sparsity_table, lambda m: masks.apply_masks(m, m)):
        with pytest.raises(TypeCheckError):
            call(wrong)
