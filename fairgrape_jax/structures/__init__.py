"""Coupled channels of any network, what they matter to each group, and smaller networks.

A structure is what can be pruned so that a dense network gets smaller: a channel with the kernels
that make it, the columns that read it, and all that is coupled with it.
"""

from fairgrape_jax.structures.coupling import Structures, find_structures
from fairgrape_jax.structures.groups import Group, Member
from fairgrape_jax.structures.importance import (
    alive_structures,
    gated,
    gated_loss,
    gates,
    sum_importance,
)
from fairgrape_jax.structures.shrinking import Small, remove, shrink, zero, zero_masks

__all__ = [
    "Group",
    "Member",
    "Small",
    "Structures",
    "alive_structures",
    "find_structures",
    "gated",
    "gated_loss",
    "gates",
    "remove",
    "shrink",
    "sum_importance",
    "zero",
    "zero_masks",
]
