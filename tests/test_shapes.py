"""The annotations of arrays are checked in every test, and what a function refuses comes first."""

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from fairgrape_jax import scoring
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
    ):
        with pytest.raises(TypeCheckError):
            call()


def test_the_error_of_the_function_comes_first():
    with pytest.raises(ValueError, match="dtype bool is expected"):
        select_greedy(np.ones((2, 3)), np.ones(3), 1)
