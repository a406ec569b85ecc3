"""What a run is: frozen dataclasses of plain values, and what follows from them alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from fairgrape_jax import models
from fairgrape_jax.data.sources.base import Source
from fairgrape_jax.errors import UsageError
from fairgrape_jax.losses.distillation import Remedy
from fairgrape_jax.parallel.devices import Lift
from fairgrape_jax.scoring.importance import Formula
from fairgrape_jax.selection import AllocationName, Deficit, Select, schedules

Form = Literal["pure", "mixed"]


@dataclasses.dataclass(frozen=True)
class Stage:
    """Epochs of training, in pieces of falling learning rate."""

    epochs: tuple[int, ...] = ()
    """Epochs at each learning rate; empty for no training."""
    rates: tuple[float, ...] = ()
    """The learning rates, as many as there are numbers of epochs."""
    best: bool = False
    """End with the epoch of lowest validation loss instead of the last one."""


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
    allocation: AllocationName = "uniform"
    """How many weights each layer keeps, for every method: one rate (paper), one with the first
    layer dense, by the sums of dimensions, by magnitudes, or one count for the network."""
    advances: int = 1
    """Weights that greedy steps advance before they look at the shares again (official code: 2)."""
    samples: int = 0
    """Images that a score without groups looks at, of each class where it balances them (GraSP);
    0 for `fraction` of all."""
    minority: tuple[str, ...] = ()
    """Groups of the minority methods, unprivileged for FairPrune; empty: all but the largest."""
    groups: str = ""
    """kmeans:N scores N clusters of images in place of the groups; evaluation keeps the groups."""
    embedding: str = ""
    """What kmeans clusters the last features of: empty for the dense network of the seed, or
    MODEL:FILE, a row of the table of models and a .safetensors file of torchvision's weights."""
    form: Form = "pure"
    """Micro-batches of one group and running statistics, or mixed ones with their own statistics
    (official code): one forward pass, and a backward pass for every group."""
    execution: Literal["auto", "single", "unroll", "vmap", "scan"] = "auto"
    """One micro-batch a call, or one for every group: in sequence, at once, in a loop."""
    shard_groups: bool = False
    """Each device holds the sums of some of the groups, not of all: for very large networks."""


@dataclasses.dataclass(frozen=True)
class Rollback:
    """What to do where training gives a number that is not finite: stop, or go back."""

    retries: int = 0
    """Times that the dense training, or a round's, goes back to where it began; 0 to stop."""
    factor: float = 0.5
    """What its learning rates are multiplied by each time."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Dense training, then rounds of importance, selection and retraining, per method and seed."""

    data: Source
    """The dataset and its options."""
    model: str
    """A row of the table of models (see `fairgrape list`)."""
    methods: tuple[str, ...] = ("fairgrape",)
    """Rows of the table of methods, all pruning the same dense network."""
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
    start: str = "dense"
    """What is pruned: the dense network, the initial one, or that of an epoch (a number) of the
    dense training, which the retraining of the rounds then takes the place of."""
    rewind: str = "initial"
    """Where lottery returns to after each choice: dense, initial, or an epoch."""
    protocol: Literal["equal", "official"] = "equal"
    """Every method on one footing, or what the official code does for each (docs/method.md)."""
    min_keep_per_layer: int = 0
    """Weights that every layer keeps; with 0, a layer that is left without any is an error."""
    dense: Stage = Stage((13, 3, 3), (1e-4, 1e-5, 1e-6), best=True)
    """Training before pruning."""
    retrain: Stage = Stage((5,), (1e-5,))
    """Training after each round."""
    final: Stage = Stage((13, 3, 3), (1e-4, 1e-5, 1e-6), best=True)
    """Training after the last round, on top of its retraining."""
    scoring: Scoring = Scoring()
    remedy: Remedy = dataclasses.field(default_factory=Remedy)
    """Terms of the retraining loss that hold a pruned network to the dense one."""
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
    """A .safetensors file of torchvision's weights to start from; empty to start from scratch."""
    seeds: tuple[int, ...] = (0,)
    """Each seed is a run of its own: initialisation, order of data, scoring sample."""
    evaluation_batch: int = 256
    """Images per device and evaluation step."""
    rollback: Rollback = Rollback()
    """What to do where training gives a number that is not finite."""
    checkpoints: str = "all"
    """Keep the full state of every round (all), of a method's last one or last N (last, last:N), or
    of its last and of that with the highest validation accuracy (best)."""
    sync_batch_stats: bool = True
    """Normalise by the statistics of the whole batch; else each device by those of its part."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the network; parameters, batch statistics and loss are float32 in any case."""
    devices: int = 0
    """Devices of each process to use; 0 for all."""
    lift: Lift = "pmap"
    """Steps run on the devices by jax.pmap, or by jax.jit(jax.shard_map); the results agree."""


LARGEST = 2**31 - 1  # what a seed, a count or a size of an array may be
FORMAT = 2  # of a run's directory; 1 had no checksums

# Fields that say where and how a run is executed, not what it computes, or what is done where it
# would stop: they may differ on resuming.
PLACE = (
    "devices",
    "lift",
    "evaluation_batch",
    "checkpoints",
    "rollback",
    "scoring.execution",
    "scoring.shard_groups",
    "data.workers",
    "data.cache",
)


def densities(experiment: Experiment) -> list[float]:
    """The density after each round."""
    return schedules.densities(
        experiment.sparsity,
        experiment.keep_per_round,
        schedule=experiment.schedule,
        count=experiment.rounds,
        given=experiment.densities,
    )


def kept(checkpoints: str) -> tuple[int, bool]:
    """How many of the last rounds keep their checkpoints, and whether the best one does besides.

    0 for all. UsageError for what is none of the words.

    >>> kept("all"), kept("last"), kept("last:3"), kept("best")
    ((0, False), (1, False), (3, False), (1, True))
    """
    name, colon, count = checkpoints.partition(":")
    if name == "last" and colon and count.isdecimal() and int(count):
        return int(count), False
    known = {"all": (0, False), "last": (1, False), "best": (1, True)}
    if checkpoints not in known:
        raise UsageError(f"checkpoints: {checkpoints!r} is not all, last, last:N or best")
    return known[checkpoints]


def point(experiment: Experiment, field: str) -> int | None:
    """The point of the dense training that `start` or `rewind` names: an epoch, None for its end.

    UsageError for what is neither a name nor an epoch of it.
    """
    asked, epochs = getattr(experiment, field), sum(experiment.dense.epochs)
    if asked == "dense":
        return None
    if asked == "initial":
        return 0
    if not asked.isdecimal() or not 0 < int(asked) <= epochs:
        raise UsageError(
            f"{field}: {asked!r} is neither dense nor initial nor one of the {epochs} epochs of "
            "the dense training"
        )
    return int(asked)


def clusters(scoring: Scoring) -> int:
    """The N of groups="kmeans:N"; 0 for the dataset's own groups."""
    if not scoring.groups:
        if scoring.embedding:
            raise UsageError("scoring.embedding: is for clusters; give --scoring.groups kmeans:N")
        return 0
    name, _, count = scoring.groups.partition(":")
    if name != "kmeans" or not count.isdecimal() or int(count) < 2:
        raise UsageError(f"scoring.groups: {scoring.groups!r} is not kmeans:N with N of 2 or more")
    if scoring.embedding:
        model, _, weights = scoring.embedding.partition(":")
        known(model, models.MODELS, "model")
        if not Path(weights).is_file():
            raise UsageError(f"scoring.embedding: {weights!r} is no file; give MODEL:FILE")
    return int(count)


def known(name: str, table: Iterable[str], kind: str) -> None:
    """UsageError unless `name` is in `table`; it lists what is."""
    if name not in table:
        raise UsageError(f"unknown {kind} {name!r}: choose from {', '.join(table)}")
