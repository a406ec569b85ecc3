"""How methods that train towards a choice do so, as options of an experiment."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal

Slope = Literal["linear", "leaky", "softplus"]
Projection = Literal["choice", "irregular", "filter", "column", "channel", "pattern"]


@dataclasses.dataclass(frozen=True)
class Approach:
    """The training before a round's choice, for methods that have one."""

    part: float = 0.5
    """Part of a round's epochs of retraining that come before its choice: no epoch is added."""
    lasso: float = 2.5e-4
    """ClickTrain: the weight of the group lasso on what will be cut."""
    rho: float = 0.1
    """SLR, ADMM: the weight of the penalty that draws the weights to their pruned copy."""
    step: float = 0.01
    """SLR: the first step size of the multipliers."""
    m: float = 300.0
    """SLR: M of alpha_k = 1 - 1 / (M k^(1 - 1/k^r)), by which the step size shrinks."""
    r: float = 0.1
    """SLR: r of the same."""

    skeleton: float = 1e-5
    """SWP: the weight of the L1 norm of the filter skeleton."""
    skeleton_rate: float = 0.1
    """SWP: the learning rate of the filter skeleton."""
    threshold: float = 0.01
    """SWP: the magnitude at which a stripe is cut while training."""
    slope: Slope = "leaky"
    """AutoPrune: what stands for the derivative of the step function."""
    auxiliary_rate: float = 0.01
    """AutoPrune: the size of a step of the auxiliary parameters, which begin at 0.1 or less."""
    price_rate: float = 0.1
    """AutoPrune: how fast the price of a weight follows the density."""
    projection: Projection = "choice"
    """SLR, ADMM: Z by the method's choice, or by a projection of the released code."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """The fields that cannot be used, and what is wrong with each."""
        if not 0 < self.part <= 1:
            yield "part", f"{self.part} is not in (0, 1]"
        for name in (
            "lasso",
            "rho",
            "step",
            "skeleton",
            "skeleton_rate",
            "threshold",
            "auxiliary_rate",
            "price_rate",
        ):
            if not getattr(self, name) > 0:
                yield name, f"{getattr(self, name)} is not positive"
        if not self.m > 1:
            yield "m", f"{self.m} is not above 1"
        if not 0 < self.r < 1:
            yield "r", f"{self.r} is not between 0 and 1 (both excluded)"
