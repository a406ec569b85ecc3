"""Loops compiled by numba, also where nothing can be kept for the next process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def njit(loop: Callable[..., Any]) -> Callable[..., Any]:
    """A function compiled at its first call, outside Python's lock; kept on disk where that can be.

    numba is imported here: it takes a second.

    Args:
        loop: a function that numba compiles.

    Returns:
        The function.

    Example:
        >>> njit(lambda x: x + 1)(2)
        3
    """
    import numba

    try:
        return numba.njit(cache=True, nogil=True)(loop)
    except RuntimeError:  # neither the package's folder nor the home folder can be written to
        return numba.njit(nogil=True)(loop)
