"""How importance is measured and weights are chosen, and the clusters that may stand for groups."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal

from fairgrape_jax.config.problems import Problem, below
from fairgrape_jax.config.variants import Allocation
from fairgrape_jax.scoring.importance import Formula
from fairgrape_jax.selection import Deficit, Select
from fairgrape_jax.selection.patterns import NofM, Tiles

Form = Literal["pure", "mixed"]
Gradients = Literal["cleared", "accumulated"]


@dataclasses.dataclass(frozen=True)
class Embedding:
    """A network whose last features are clustered."""

    model: str
    """A row of the table of models."""
    weights: str
    """A .safetensors file of torchvision's weights."""

    def __str__(self) -> str:
        return f"{self.model}:{self.weights}"


@dataclasses.dataclass(frozen=True)
class Clusters:
    """Clusters of training images by k-means, in place of the groups of people.

    Source: FairGRAPE, Table 4.
    """

    count: int
    """How many."""
    embedding: Embedding | None = None
    """The network whose last features are clustered; None for the dense network of the seed."""

    def problems(self) -> Iterator[Problem]:
        """What is wrong with its fields."""
        if self.count < 2:
            yield "count", f"{self.count} is less than 2"

    def __str__(self) -> str:
        return f"kmeans:{self.count}" + (f":{self.embedding}" if self.embedding else "")


@dataclasses.dataclass(frozen=True)
class Scoring:
    """How importance is measured before each selection."""

    fraction: float = 0.2
    """Part of each group's training images to look at, drawn anew each round (paper: 0.2)."""
    micro_batch: int = 64
    """Images per gradient; part of the definition, independent of the number of devices."""
    formula: Formula = "sum-of-squares"
    """Square w*g per micro-batch (official code), or of the average gradient (paper, 5.4)."""
    deficit: Deficit = "relative"
    """FairGRAPE's loss of share: (P-P*)/P* (paper, Eq. 8), or P-P* (official code)."""
    select: Select = "threshold"
    """FairGRAPE's choice as a fixed point on the device, or by greedy steps on the host."""
    allocation: Allocation = "uniform"
    """How many weights each layer keeps, for every method: one rate (paper), one with the first
    layer dense, by the sums of dimensions, by magnitudes, one count for the network, or a table of
    densities by layer (a JSON file, or a CSV file with the columns layer and density)."""
    n_of_m: NofM | None = None
    """At most N of every M inputs of an output, for every method: 2:4, or 1:4@128 for weights 128
    apart (the lanes of a TPU); none for any weights."""
    tiles: Tiles | None = None
    """Whole tiles of inputs x outputs, as 4x4, for every method; none for single weights."""
    structures: Literal["none", "weights", "flops"] = "none"
    """Whole channels, coupled over layers, for every method; densities are then the part of all
    weights, or of the dense network's operations, and the most structures within it are kept."""
    structure_multiple: int = 1
    """Of which the number of channels of each group of layers is one, 8 for example."""
    advances: int = 1
    """Weights that greedy steps advance before they look at the shares again (official code: 2)."""
    gradients: Gradients = "cleared"
    """Each micro-batch's gradient alone, or (a defect of the official code) accumulated over all
    before it, while Adam moves the scored copy after each one."""
    divide: Literal["every", "last"] = "every"
    """Whose sum of importance is divided by its micro-batches: every group's, or (a defect of the
    official code) the last group's alone."""
    samples: int = 0
    """Images that a score without groups looks at, of each class where it balances them (GraSP);
    0 for `fraction` of all."""
    minority: tuple[str, ...] = ()
    """Groups of the minority methods, unprivileged for FairPrune; empty: all but the largest."""
    groups: Clusters | None = None
    """Clusters of images that are scored in place of the groups, as kmeans:N or
    kmeans:N:MODEL:FILE; none for the groups themselves, on which evaluation always looks."""
    form: Form = "pure"
    """Micro-batches of one group and running statistics, or mixed ones with their own statistics
    (official code): one forward pass, and a backward pass for every group."""

    def problems(self) -> Iterator[Problem]:
        """What is wrong with its fields."""
        if not 0 < self.fraction <= 1:
            yield "fraction", f"{self.fraction} is not in (0, 1]"
        for name, least in (
            ("micro_batch", 1),
            ("advances", 1),
            ("samples", 0),
            ("structure_multiple", 1),
        ):
            if getattr(self, name) < least:
                yield name, below(getattr(self, name), least)
        exact = (self.formula, self.form) == ("sum-of-squares", "pure")
        if self.gradients == "accumulated" and not exact:
            yield (
                "gradients",
                "accumulated ones are squared micro-batch by micro-batch of one group; give "
                "--scoring.formula sum-of-squares and --scoring.form pure",
            )
        if self.n_of_m and self.tiles:
            yield "tiles", "N of M is given too; leave one of them out"
        if self.structures != "none" and (self.n_of_m or self.tiles):
            yield "structures", "N of M or tiles are given too; leave one of them out"
        if self.structures == "none" and self.structure_multiple != 1:
            yield "structure_multiple", "does nothing without --scoring.structures weights or flops"
        if isinstance(self.allocation, dict):
            yield from _table_problems(self.allocation)
        if self.select == "threshold" and (self.deficit, self.advances) != ("relative", 1):
            yield (
                "deficit",
                "the absolute one, or several advances, have no fixed point; give "
                "--scoring.select greedy",
            )


def _table_problems(table: dict[str, float]) -> Iterator[Problem]:
    """What is wrong with a table of densities, whatever the layers of the network are."""
    if not table:
        yield "allocation", "the table of densities is empty; give a layer, or a name"
    for layer, density in table.items():
        if not 0 <= density <= 1:
            yield "allocation", f"density {density} of layer {layer!r} is not in 0..1"
