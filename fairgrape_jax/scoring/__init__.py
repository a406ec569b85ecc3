"""Scores of weights: per-group importance and other averages over a sample, on all devices."""

from fairgrape_jax.scoring.accumulate import (
    Sums,
    at,
    counts,
    empty_sums,
    gathered,
    make_accumulate,
    make_accumulate_mixed,
    micro_batches,
    reduce,
    weighted,
)
from fairgrape_jax.scoring.assignment import BLOCK, Schedule, placed, schedule, starts

__all__ = [
    "BLOCK",
    "Schedule",
    "Sums",
    "at",
    "counts",
    "empty_sums",
    "gathered",
    "make_accumulate",
    "make_accumulate_mixed",
    "micro_batches",
    "placed",
    "reduce",
    "schedule",
    "starts",
    "weighted",
]
