"""How the density falls from round to round."""

from __future__ import annotations

import math


def rounds(sparsity: float, keep_per_round: float) -> int:
    """The number of rounds: ceil(log(1 - sparsity) / log(keep_per_round)).

    Source: FairGRAPE, Algorithm 1 (Iters = ceil(log_r c)); a target that a whole number of rounds
    meets exactly is not pushed over by rounding.

    >>> rounds(0.9, 0.9), rounds(0.99, 0.9), rounds(0.5, 0.9), rounds(0.9, 0.975)
    (22, 44, 7, 91)
    >>> rounds(0.75, 0.5)
    2
    """
    exact = math.log1p(-sparsity) / math.log(keep_per_round)
    return max(1, math.ceil(exact - 1e-9))


def densities(sparsity: float, keep_per_round: float) -> list[float]:
    """The density after each round: max(keep_per_round ** i, 1 - sparsity).

    The last round lands on the target exactly.

    >>> densities(0.8, 0.5)
    [0.5, 0.25, 0.2]
    """
    target = round(1.0 - sparsity, 12)
    count = rounds(sparsity, keep_per_round)
    return [max(keep_per_round**i, target) for i in range(1, count)] + [target]
