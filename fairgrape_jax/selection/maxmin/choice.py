"""The max-min choice in one layer, on the host, and its certificate."""

from __future__ import annotations

import numpy as np

from fairgrape_jax.selection.greedy import select_greedy
from fairgrape_jax.selection.inputs import LayerMask, LayerScores, NumpyMask, as_float, check_layer
from fairgrape_jax.selection.maxmin.layer import Layer
from fairgrape_jax.selection.maxmin.rounding import Certificate, conclude
from fairgrape_jax.selection.maxmin.search import minimise, survey_on_host


def select_maxmin(importance: LayerScores, previous: LayerMask, keep: int) -> NumpyMask:
    """The `keep` weights of a layer that retain most importance for the worst group.

    Never below `select_greedy` on the worst group's retained part. Groups without importance take
    no part.

    Args:
        importance: (G, n) of any real dtype, non-negative.
        previous: (n,) bool, the weights alive.
        keep: the exact number of weights to keep.

    Returns:
        (n,) bool of the exact count, nested in `previous`.

    Raises:
        ValueError: as `select_greedy`.

    Source:
        docs/selection.md.

    Example:
        >>> importance = np.array([[5.0, 0.0, 4.0, 1.0], [0.0, 5.0, 4.0, 1.0]])
        >>> select_maxmin(importance, np.ones(4, bool), 1)
        array([False, False,  True, False])
    """
    return certified_maxmin(importance, previous, keep)[0]


def certified_maxmin(
    importance: LayerScores, previous: LayerMask, keep: int
) -> tuple[NumpyMask, Certificate]:
    """As `select_maxmin`, with the certificate of its choice.

    Args:
        importance: (G, n) of any real dtype, non-negative.
        previous: (n,) bool, the weights alive.
        keep: the exact number of weights to keep.

    Example:
        >>> importance = np.array([[5.0, 0.0, 4.0, 1.0], [0.0, 5.0, 4.0, 1.0]])
        >>> mask, certificate = certified_maxmin(importance, np.ones(4, bool), 1)
        >>> certificate.achieved, certificate.bound
        (0.4, 0.4)
    """
    scores, before, keep = check_layer(importance, previous, keep)
    greedy = select_greedy(scores, before, keep)
    alive = np.flatnonzero(before)
    rows = np.ascontiguousarray(as_float(scores)[:, alive])
    layer = Layer(rows, np.ones(len(alive), bool), keep)
    ((lambdas, passes),) = minimise([layer], survey_on_host)
    chosen, certificate = conclude(layer, lambdas, passes, [greedy[alive]])
    mask = np.zeros(len(before), bool)
    mask[alive[chosen]] = True
    return mask, certificate
