"""Bits of floats as whole numbers: keys that order as importances do, and powers of two apart."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float32, Int32, Shaped, UInt32

LARGEST_KEY = 0x7F7FFFFF  # that of the largest finite float32
NORMAL = 1 << 23  # the key of the least float32 that is no subnormal; an octave is as long
# A group is shifted if its largest importance is not between these powers of two: below 2^91 the
# sum of 2^31 weights is a float32, and above 2^-80 so are the parts of it that matter.
SMALL, LARGE = -80, 90


def keys_of(importance: Shaped[jax.Array, "*n"]) -> Int32[jax.Array, "*n"]:
    """The bits of importances as float32, which order as they do; not negative.

    Args:
        importance: of any shape. Negative ones and NaN count as 0, infinite ones as the largest.

    Example:
        >>> keys = keys_of(jnp.array([0.5, 2.0, -1.0, jnp.nan, jnp.inf]))
        >>> values(keys).tolist()
        [0.5, 2.0, 0.0, 0.0, 3.4028234663852886e+38]
    """
    bits = lax.bitcast_convert_type(importance.astype(jnp.float32), jnp.int32)
    number = (bits >= 0) & (bits <= LARGEST_KEY + 1)
    return jnp.where(number, jnp.minimum(bits, LARGEST_KEY), 0)


def values(keys: Int32[jax.Array, "*n"]) -> Float32[jax.Array, "*n"]:
    """The importances that keys stand for, 0 for the dead (-1).

    Args:
        keys: of importances, -1 for the dead.
    """
    return lax.bitcast_convert_type(jnp.maximum(keys, 0), jnp.float32)


def ordered(scores: Float32[jax.Array, "*n"]) -> UInt32[jax.Array, "*n"]:
    """Whole numbers that order as scores of any sign do; none is below 2^22.

    Args:
        scores: floats of any sign.

    Example:
        >>> numbers = ordered(jnp.array([-2.0, 0.0, 1.0]))
        >>> bool(numbers[0] < numbers[1] < numbers[2])
        True
    """
    bits = lax.bitcast_convert_type(scores, jnp.int32)
    return lax.bitcast_convert_type(bits ^ ((bits >> 31) | jnp.int32(-(2**31))), jnp.uint32)


def can_be_ranked(importance: Shaped[jax.Array, "*n"]) -> Bool[jax.Array, "*n"]:
    """Where importances are not negative, NaN or infinite.

    Args:
        importance: of any shape and real dtype.
    """
    return (importance >= 0) & (importance <= np.float32(np.finfo(np.float32).max))


def shifts(
    top: Int32[jax.Array, "B G"],
    segment: Int32[np.ndarray, " B"],
    segments: int,
    axis: str | None,
) -> Int32[jax.Array, "L G"]:
    """The power of two by which each group of each segment is divided; see `Blocks`.

    Args:
        top: the largest key of each block; -1 where all are dead.
        segment: of each block, in order, from 0.
        segments: how many there are.
        axis: the name of a mapped axis over which the weights are cut; None for one device.
    """
    highest = jax.ops.segment_max(top, segment, segments, indices_are_sorted=True)
    highest = jnp.maximum(highest, -1)  # also of a segment without a block
    if axis:
        highest = lax.pmax(highest, axis)
    # A subnormal's bits are the whole number of 2^-149 that it is.
    number = lax.bitcast_convert_type(highest.astype(jnp.float32), jnp.int32)
    exponent = jnp.where(highest < NORMAL, (number >> 23) - 149, highest >> 23) - 127
    far = (highest > 0) & ((exponent < SMALL) | (exponent > LARGE))
    return jnp.where(far, exponent, 0)


def shifted(keys: Int32[jax.Array, "*n"], shift: Int32[jax.Array, "*s"]) -> Int32[jax.Array, "*n"]:
    """The keys of importances divided by 2^shift; -1 for the dead.

    Their order stays. Exact but for importances 2^126 times smaller than a group's largest one,
    which stay positive.

    Args:
        keys: of importances, -1 for the dead.
        shift: the power of two of each group, of a shape that broadcasts to that of the keys.

    Example:
        >>> keys = keys_of(jnp.array([[8.0, 2.0]]))
        >>> values(shifted(keys, jnp.array([[1]]))).tolist()
        [[4.0, 1.0]]
    """
    moved = keys - shift * NORMAL
    number = lax.bitcast_convert_type(keys.astype(jnp.float32), jnp.int32)
    raised = number - (shift + 149) * NORMAL  # of subnormals, which become normal numbers
    lowered = jnp.maximum(keys >> 7, jnp.minimum(keys, 1))  # in order, and of no weight in a sum
    low = keys < (jnp.maximum(shift, 0) + 1) * NORMAL
    moved = jnp.where(low, jnp.where(shift > 0, lowered, raised), moved)
    return jnp.where((shift == 0) | (keys <= 0), keys, moved)
