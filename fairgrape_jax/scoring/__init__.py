"""Scores of weights: per-group importance and other averages over a sample, on all devices."""

from fairgrape_jax.scoring.accumulate import (
    Sums,
    divisors,
    empty_sums,
    gather_means,
    make_accumulate,
    make_accumulate_mixed,
    micro_batches,
    reduce_to_means,
)
from fairgrape_jax.scoring.assignment import (
    BLOCK,
    Schedule,
    assign_micro_batches,
    block_starts,
    place_groups,
)

__all__ = [
    "BLOCK",
    "Schedule",
    "Sums",
    "assign_micro_batches",
    "block_starts",
    "divisors",
    "empty_sums",
    "gather_means",
    "make_accumulate",
    "make_accumulate_mixed",
    "micro_batches",
    "place_groups",
    "reduce_to_means",
]
