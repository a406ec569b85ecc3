"""What a run is: frozen dataclasses of plain values, each with the check of its own fields."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Literal

from fairgrape_jax.config.problems import Problem, below, outside
from fairgrape_jax.config.scoring import Scoring
from fairgrape_jax.config.variants import Variants
from fairgrape_jax.data.sources.base import Reading, Source
from fairgrape_jax.parallel.devices import Lift
from fairgrape_jax.remedies import Remedy
from fairgrape_jax.systems.options import Approach, Quantisation


@dataclasses.dataclass(frozen=True)
class Epoch:
    """An epoch of the dense training, as a point to start from or to return to."""

    number: int
    """From 1."""

    def problems(self) -> Iterator[Problem]:
        """What is wrong with its fields."""
        if self.number < 1:
            yield "number", f"{self.number} is less than 1"

    def __str__(self) -> str:
        return str(self.number)


@dataclasses.dataclass(frozen=True)
class KeepLast:
    """Keep the checkpoints of a method's last rounds."""

    count: int = 1
    """How many."""

    def problems(self) -> Iterator[Problem]:
        """What is wrong with its fields."""
        if self.count < 1:
            yield "count", f"{self.count} is less than 1"

    def __str__(self) -> str:
        return "last" if self.count == 1 else f"last:{self.count}"


# The dense network, the initial one, or that of an epoch of the dense training.
Point = Literal["dense", "initial"] | Epoch
# Every round; a method's last and that with the highest validation accuracy; its last N.
Checkpoints = Literal["all", "best"] | KeepLast


@dataclasses.dataclass(frozen=True)
class Stage:
    """Epochs of training, in pieces of falling learning rate."""

    epochs: tuple[int, ...] = ()
    """Epochs at each learning rate; empty for no training."""
    rates: tuple[float, ...] = ()
    """The learning rates, as many as there are numbers of epochs."""
    best: bool = False
    """End with the epoch of lowest validation loss instead of the last one."""

    def problems(self) -> Iterator[Problem]:
        """What is wrong with its fields."""
        if len(self.epochs) != len(self.rates):
            yield (
                "",
                f"{len(self.epochs)} numbers of epochs and {len(self.rates)} rates; give as many "
                "of one as of the other",
            )
        if min(self.epochs, default=1) < 1:
            yield "epochs", f"{self.epochs} must be 1 or more"
        if min(self.rates, default=1) <= 0:
            yield "rates", f"{self.rates} must be positive"


@dataclasses.dataclass(frozen=True)
class Rollback:
    """What to do where training gives a number that is not finite: stop, or go back."""

    retries: int = 0
    """Times that the dense training, or a round's, goes back to where it began; 0 to stop."""
    factor: float = 0.5
    """What its learning rates are multiplied by each time."""

    def problems(self) -> Iterator[Problem]:
        """What is wrong with its fields."""
        if self.retries < 0:
            yield "retries", below(self.retries, 0)
        if not 0 < self.factor < 1:
            yield "factor", outside(self.factor)


@dataclasses.dataclass(frozen=True)
class Execution:
    """Where and how a run is executed, and what is done where it would stop.

    No part of what it computes: all of it may differ when a run goes on.
    """

    devices: int = 0
    """Devices of each process to use; 0 for all."""
    lift: Lift = "pmap"
    """Steps run on the devices by jax.pmap, or by jax.jit(jax.shard_map); the results agree."""
    evaluation_batch: int = 256
    """Images per device and evaluation step."""
    micro_batches: Literal["auto", "single", "unroll", "vmap", "scan"] = "auto"
    """While scoring, one micro-batch a call, or one for every group: in sequence, at once, in a
    loop."""
    shard_groups: bool = False
    """While scoring, each device holds the sums of some of the groups, not of all: for very large
    networks."""
    checkpoints: Checkpoints = "all"
    """Keep the full state of every round (all), of a method's last one or last N (last, last:N), or
    of its last and of that with the highest validation accuracy (best)."""
    rollback: Rollback = Rollback()
    """What to do where training gives a number that is not finite."""
    reading: Reading = dataclasses.field(default_factory=Reading)
    """How pictures on disk are read."""

    def problems(self) -> Iterator[Problem]:
        """What is wrong with its fields."""
        for name, least in (("devices", 0), ("evaluation_batch", 1)):
            if getattr(self, name) < least:
                yield name, below(getattr(self, name), least)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Dense training, then rounds of importance, selection and retraining, per method and seed."""

    data: Source
    """The dataset and its options."""
    model: str
    """A row of the table of models (see `fairgrape list`)."""
    methods: tuple[str, ...] = ("fairgrape",)
    """Rows of the table of methods, or names of variants, all pruning the same dense network."""
    variants: Variants = None
    """Methods once more by other names, each with an allocation or a remedy of its own, as JSON."""
    sparsity: float = 0.9
    """Part of the weights of each layer that is pruned in the end."""
    keep_per_round: float = 0.9
    """Factor by which the density falls each round (paper: 0.9; 0.975 for UTKFace)."""
    schedule: str = "geometric"
    """geometric (paper), linear, cubic (AGP) or one-shot."""
    rounds: int = 0
    """Number of rounds; 0 for as many as keep_per_round needs to reach the sparsity."""
    densities: tuple[float, ...] = ()
    """The density after each round, in place of sparsity, schedule, rounds and keep_per_round."""
    start: Point = "dense"
    """What is pruned: the dense network, the initial one, or that of an epoch (a number) of the
    dense training, which the retraining of the rounds then takes the place of."""
    rewind: Point = "initial"
    """Where lottery returns to after each choice: dense, initial, or an epoch."""
    protocol: Literal["equal", "official"] = "equal"
    """Every method on one footing, or what the official code does for each (docs/method.md)."""
    prunable: Literal["kernels", "1x1"] = "kernels"
    """What is pruned: all kernels, or those of 1x1 convolutions alone (docs/selection.md)."""
    min_keep_per_layer: int = 0
    """Weights that every layer keeps; with 0, a layer that is left without any is an error."""
    dense: Stage = Stage((13, 3, 3), (1e-4, 1e-5, 1e-6), best=True)
    """Training before pruning."""
    retrain: Stage = Stage((5,), (1e-5,))
    """Training after each round."""
    final: Stage = Stage((13, 3, 3), (1e-4, 1e-5, 1e-6), best=True)
    """Training after the last round, on top of its retraining."""
    scoring: Scoring = dataclasses.field(default_factory=Scoring)
    approach: Approach = dataclasses.field(default_factory=Approach)
    """The training before a round's choice, for methods that have one (docs/systems.md)."""
    remedy: Remedy = dataclasses.field(default_factory=Remedy)
    """Terms of the retraining loss that hold a pruned network to the dense one."""
    quantise: Quantisation = dataclasses.field(default_factory=Quantisation)
    """Bits of weights and activations from the retraining on (docs/systems.md)."""
    batch: int = 64
    """Images per training step, over all devices."""
    optimizer: str = "adam"
    """adam, adamw or sgd."""
    momentum: float = 0.9
    """SGD's momentum, Adam's first-moment decay."""
    weight_decay: float = 0.0
    """Weight decay; in the gradient for adam and sgd, decoupled for adamw."""
    reset_optimizer: bool = True
    """Start each round with fresh optimizer moments, as the official code does."""
    augmentation: str = "none"
    """none, flip, shift, flip_shift, paper or imagenet, on the training images, on the device."""
    mixup: float = 0.0
    """Alpha of mixup: training pictures are mixed in pairs by a share of Beta(alpha, alpha), and
    their cross-entropies with it; 0 for none."""
    pretrained: str = ""
    """Weights to start from (docs/export.md): a file, an Orbax folder, or imagenet: torchvision's
    in the cache folder; empty to start from scratch."""
    seeds: tuple[int, ...] = (0,)
    """Each seed is a run of its own: initialisation, order of data, scoring sample."""
    sync_batch_stats: bool = True
    """Normalise by the statistics of the whole batch; else each device by those of its part."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the network; parameters, batch statistics and loss are float32 in any case."""
    execution: Execution = Execution()
    """Where and how it is run: devices, checkpoints, what to do where it would stop."""

    def problems(self) -> Iterator[Problem]:
        """What is wrong with its fields."""
        for name in ("sparsity", "keep_per_round"):
            if not 0 < getattr(self, name) < 1:
                yield name, outside(getattr(self, name))
        for name, least in (("batch", 1), ("rounds", 0), ("min_keep_per_layer", 0)):
            if getattr(self, name) < least:
                yield name, below(getattr(self, name), least)
        for name in ("methods", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                yield name, f"{values} must be one or more, each named once"
        if min(self.seeds) < 0:
            yield "seeds", f"{min(self.seeds)} is negative; give 0 or more"
        if not 0 <= self.mixup < math.inf:
            yield "mixup", f"{self.mixup} is no alpha; give 0 for none, or 0.2, or 1"
        if self.weight_decay < 0:
            yield "weight_decay", below(self.weight_decay, 0)
        if not 0 <= self.momentum < 1:
            yield "momentum", f"{self.momentum} is not in [0, 1)"
