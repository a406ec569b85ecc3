"""Use the memory of batches again when nothing refers to it any more.

New memory costs a batch of pictures a tenth of its decoding: the system clears every page of it.
"""

from __future__ import annotations

import math
import weakref

import numpy as np

KEPT = 64  # pieces of one size that wait for their next use at the most
_free: dict[int, list[np.ndarray]] = {}


def empty(shape: tuple[int, ...]) -> np.ndarray:
    """An array of any content.

    Its memory is taken again only when it and all views of it are gone; a device that looks at it
    in place, or copies it later, holds it too.

    Args:
        shape: Of the array.

    Returns:
        uint8 of that shape.

    Example:
        >>> a = empty((2, 3))
        >>> a.shape, a.dtype
        ((2, 3), dtype('uint8'))
    """
    size = math.prod(shape)
    if not size:
        return np.empty(shape, np.uint8)
    waiting = _free.setdefault(size, [])
    try:
        piece = waiting.pop()
    except IndexError:
        piece = np.empty(size, np.uint8)
    # Of a memoryview, so that NumPy takes this array, and not the piece, for the base of its views.
    array = np.frombuffer(piece.data, np.uint8)
    weakref.finalize(array, _take_back, waiting, piece).atexit = False
    return array.reshape(shape)


def _take_back(waiting: list[np.ndarray], piece: np.ndarray) -> None:
    if len(waiting) < KEPT:
        waiting.append(piece)
