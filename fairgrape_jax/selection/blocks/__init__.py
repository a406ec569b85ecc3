"""Many layers as one array of blocks: sums, order statistics and gathers that know the layer.

The weights of all segments (a segment is what a count is kept in: a layer, or the whole network)
lie one after the other in blocks of BLOCK weights, so one program serves layers of any sizes. Every
function runs on the blocks of one device; where these are cut over the devices of a mapped axis,
sums and counts meet in a collective, and no device sees another's weights.

Results do not depend on how many devices there are: counts are integers, and importances are added
as fixed-point integers above the level of a block, which no order of addition changes.
"""

from __future__ import annotations

from fairgrape_jax.selection.blocks.gather import Gathered, gather, scatter
from fairgrape_jax.selection.blocks.keys import NORMAL, keys_of, ordered, values
from fairgrape_jax.selection.blocks.layout import (
    BLOCK,
    CUT,
    Arrays,
    Blocks,
    over_chunks,
    pack,
    unpack,
)
from fairgrape_jax.selection.blocks.order import nth_largest, select_down_to, select_largest
from fairgrape_jax.selection.blocks.sums import (
    HIGH,
    Fixed,
    add_floats,
    add_integers,
    count_flags,
    power_above,
    to_float,
)

__all__ = [
    "BLOCK",
    "CUT",
    "HIGH",
    "NORMAL",
    "Arrays",
    "Blocks",
    "Fixed",
    "Gathered",
    "add_floats",
    "add_integers",
    "count_flags",
    "gather",
    "keys_of",
    "nth_largest",
    "ordered",
    "over_chunks",
    "pack",
    "power_above",
    "scatter",
    "select_down_to",
    "select_largest",
    "to_float",
    "unpack",
    "values",
]
