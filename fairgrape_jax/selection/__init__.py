"""Which weights stay: FairGRAPE's choice, greedy or as a fixed point, and the plain top-K.

greedy.py is the definition, one layer on the host; threshold.py finds the same as a fixed point on
the device, and tree.py for a whole network at once.
"""

from fairgrape_jax.selection.allocation import ALLOCATIONS, Allocation, AllocationName, allocate
from fairgrape_jax.selection.greedy import (
    Deficit,
    Select,
    check_layer,
    descending,
    select_first,
    select_greedy,
    select_top,
    shares,
)
from fairgrape_jax.selection.network import (
    select_threshold,
    select_tree,
    solve_threshold,
    solve_tree,
)

__all__ = [
    "ALLOCATIONS",
    "Allocation",
    "AllocationName",
    "Deficit",
    "Select",
    "allocate",
    "check_layer",
    "descending",
    "select_first",
    "select_greedy",
    "select_threshold",
    "select_top",
    "select_tree",
    "shares",
    "solve_threshold",
    "solve_tree",
]
