"""How methods that train towards a choice do so, as options of an experiment."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal

Slope = Literal["linear", "leaky", "softplus"]
Projection = Literal["choice", "irregular", "filter", "column", "channel", "pattern"]
FEWEST_BITS, MOST_BITS = 2, 16


@dataclasses.dataclass(frozen=True)
class Quantisation:
    """Weights and activations in few bits, while a round's network is retrained and from then on.

    Source: Zhang, Colbert, Das (Applied Sciences 2022).
    """

    weights: int = 0
    """Bits of every weight of a convolution or dense layer, 8 or 4 for example; 0 for float32."""
    activations: int = 0
    """Bits of what goes into such a layer, but for pictures; 0 for float32."""
    quantiser: Literal["scaler", "decimal"] = "scaler"
    """Of weights: any scale and the nearest multiple, or a power of two and towards zero."""

    @property
    def active(self) -> bool:
        """Whether anything is quantised."""
        return bool(self.weights or self.activations)

    def __str__(self) -> str:
        """The bits in words."""
        words = {"weights": self.weights, "activations": self.activations}
        return ", ".join(f"{name} {bits or 32} bits" for name, bits in words.items())

    def problems(self) -> Iterator[tuple[str, str]]:
        """The fields that cannot be used, and what is wrong with each."""
        for name in ("weights", "activations"):
            bits = getattr(self, name)
            if bits and not FEWEST_BITS <= bits <= MOST_BITS:
                yield name, f"{bits} bits; give {FEWEST_BITS} to {MOST_BITS}, or 0 for float32"
        if self.quantiser != "scaler" and not self.weights:
            yield "quantiser", f"{self.quantiser} is one of weights; give quantise.weights bits"


@dataclasses.dataclass(frozen=True)
class Approach:
    """The training before a round's choice, for methods that have one."""

    part: float = 0.5
    """Part of a round's epochs of retraining that come before its choice: no epoch is added."""
    lasso: float = 2.5e-4
    """ClickTrain: the weight of the group lasso on what will be cut."""
    patterns: Literal[4, 8, 12] = 12
    """ClickTrain: how many patterns a 3x3 kernel has to choose from."""
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
    gate_rate: float = 0.85
    """AutoBot: the learning rate of the bottlenecks."""
    gate_steps: int = 200
    """AutoBot: after so many steps of a round the bottlenecks rest."""
    beta: float = 2.7
    """AutoBot: the weight of g, by which the operations come to their target."""
    gamma: float = 0.0
    """AutoBot: the weight of h, by which gates come to 0 or 1."""
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
            "gate_rate",
            "gate_steps",
            "beta",
        ):
            if not getattr(self, name) > 0:
                yield name, f"{getattr(self, name)} is not positive"
        if not self.gamma >= 0:
            yield "gamma", f"{self.gamma} is below 0"
        if not self.m > 1:
            yield "m", f"{self.m} is not above 1"
        if not 0 < self.r < 1:
            yield "r", f"{self.r} is not between 0 and 1 (both excluded)"


def epochs_before_choice(epochs: int, part: float) -> int:
    """How many epochs of a round's retraining come before its choice.

    Args:
        epochs: of the retraining.
        part: of them, 0 to 1, rounded; at least one where there are any.

    Example:
        >>> epochs_before_choice(3, 0.5), epochs_before_choice(1, 0.1)
        (2, 1)
    """
    return min(max(round(part * epochs), 1), epochs)
