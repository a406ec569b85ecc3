"""The remedies of retraining: their loss, and the table of ingredients that take part in training.

A new ingredient is one file with a row of plain functions (`base.Ingredient`), a field of
`options.Remedy` that turns it on, and its line in INGREDIENTS.
"""

from __future__ import annotations

from fairgrape_jax.remedies import balanced, duals, group_dro, transplant
from fairgrape_jax.remedies.base import (
    Active,
    Batch,
    HeldOut,
    Ingredient,
    Made,
    Measured,
    Setting,
    batch_size,
    gather,
    group_means,
    members,
    sample_weights,
)
from fairgrape_jax.remedies.duals import Duals
from fairgrape_jax.remedies.loss import label_losses, retraining_loss
from fairgrape_jax.remedies.options import REMEDIES, Remedy

INGREDIENTS: dict[str, Ingredient] = {
    "balanced": balanced.ROW,
    "dro": group_dro.ROW,
    "duals": duals.ROW,
    "transplant": transplant.ROW,
}


def active(remedy: Remedy) -> tuple[Active, ...]:
    """The ingredients that a remedy turns on, in the order of the table.

    Args:
        remedy: the options.

    Example:
        >>> [one.name for one in active(Remedy(dro=0.01, balanced=True))]
        ['balanced', 'dro']
    """
    pairs = ((name, row, row.options(remedy)) for name, row in INGREDIENTS.items())
    return tuple(Active(name, row, options) for name, row, options in pairs if options is not None)


__all__ = [
    "INGREDIENTS",
    "REMEDIES",
    "Active",
    "Batch",
    "Duals",
    "HeldOut",
    "Ingredient",
    "Made",
    "Measured",
    "Remedy",
    "Setting",
    "active",
    "batch_size",
    "gather",
    "group_means",
    "label_losses",
    "members",
    "retraining_loss",
    "sample_weights",
]
