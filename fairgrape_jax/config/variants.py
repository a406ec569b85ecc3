"""Methods once more by other names, with an allocation or a retraining of their own."""

from __future__ import annotations

import dataclasses

from fairgrape_jax.remedies import Remedy
from fairgrape_jax.selection import AllocationName

# A name, or the density of some layers, or of all.
Allocation = AllocationName | dict[str, float]


@dataclasses.dataclass(frozen=True)
class Variant:
    """A method as a run has it once more, under another name; the rest is as in the experiment."""

    method: str
    """A row of the table of methods."""
    allocation: Allocation | None = None
    """How many weights each layer keeps; none for the experiment's."""
    remedy: Remedy | None = None
    """The loss of retraining, and what takes part in it; none for the experiment's."""


# By the name that stands among the methods of an experiment.
Variants = dict[str, Variant] | None
