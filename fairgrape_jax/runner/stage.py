"""A finished stage of a run for Python: what `load` reads of its files, ready to be applied."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from fairgrape_jax import config, models
from fairgrape_jax.config import Experiment
from fairgrape_jax.config.serialize import Input
from fairgrape_jax.data import augment
from fairgrape_jax.errors import UsageError
from fairgrape_jax.masks import Array, Tree, apply_masks, put_on_device
from fairgrape_jax.runner import layout
from fairgrape_jax.runner.layout import Record
from fairgrape_jax.runner.stored import experiment_of, read_stage
from fairgrape_jax.storage import as_path, checkpoint
from fairgrape_jax.systems.options import Quantisation
from fairgrape_jax.systems.quantised import (
    is_quantised,
    quantise_params,
    with_quantisers,
    without_quantisers,
)
from fairgrape_jax.training.evaluate import Predictions

MOST = 12  # stages that an error lists


@dataclasses.dataclass(frozen=True, repr=False)
class LoadedStage:
    """A finished stage of a run: the dense training, or a round of a method.

    Attributes:
        name: its place in the run, "seed_0/fairgrape/round_03".
        experiment: of the run; its `data` is a plain `Source` where the dataset is not known here.
        record: what its metrics.json says, everything; `metrics` is the part about the test split.
        params: the parameters, nested dicts of float32 NumPy arrays, zero where pruned.
        batch_stats: the running statistics of batch norm, and what quantisers have seen; {} where
            the network has none.
        masks: of the structure of `params`: bool arrays, None where not prunable.
        predictions: on the test split: labels, predictions (N, T), groups (N,), scores.
        input: the shape of a picture, and the mean and standard deviation that it is normalised
            by; None for a run of an earlier version, which did not write them down.
    """

    name: str
    experiment: Experiment
    record: Record
    params: Tree
    batch_stats: Tree
    masks: Tree
    predictions: Predictions
    input: Input | None

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.record["seed"]

    @property
    def method(self) -> str:
        """Of the experiment; "dense" for the dense training."""
        return self.record["method"]

    @property
    def round(self) -> int:
        """The number of the round, 0 for the dense training."""
        return self.record["round"]

    @property
    def density(self) -> float:
        """Weights alive over all prunable weights."""
        return self.record["density"]

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of the groups, in the order of their numbers."""
        return tuple(self.record["groups"])

    @property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        """The names of the classes of each task, in the order of their numbers."""
        return {name: tuple(classes) for name, classes in self.record["tasks"]}

    @property
    def metrics(self) -> dict[str, Any]:
        """Every metric on the test split, by the names of `fairgrape list`."""
        return self.record["test"]

    @functools.cached_property
    def module(self) -> nn.Module:
        """The network as a Linen module: `module.apply(variables, images, train=False)`."""
        classes = sum(map(len, self.tasks.values()))
        module = models.create(self.experiment.model, classes, dtype=self.experiment.precision)
        return with_quantisers(module, self.bits or Quantisation())

    @functools.cached_property
    def bits(self) -> Quantisation | None:
        """How the network is quantised, as `module` and `variables` have it; None where not."""
        return self.experiment.quantise if is_quantised(self.batch_stats) else None

    @property
    def variables(self) -> dict[str, Tree]:
        """What the module takes: masked parameters, quantised if the stage is, and statistics."""
        params = apply_masks(self.masks, self.params)
        if self.bits is None:
            statistics = without_quantisers(self.batch_stats)
            return {"params": params, "batch_stats": statistics}
        params = quantise_params(params, self.batch_stats, self.bits)
        return {"params": params, "batch_stats": self.batch_stats}

    def apply(self, images: Array) -> jax.Array:
        """The logits of pictures; of several tasks one after the other.

        Args:
            images: (B, *input shape), 0 to 255 as they come from a file.

        Returns:
            (B, classes) float32.

        Raises:
            UsageError: pictures of another shape, or a run that did not write down how pictures
                are normalised.
        """
        if self.input is None:
            raise UsageError(
                f"{self.name}: the run was begun by an earlier version, which did not write down "
                "how pictures are normalised; do it, and call "
                "stage.module.apply(stage.variables, images, train=False)"
            )
        shape = tuple(self.input["shape"])
        if np.shape(images)[1:] != shape:
            raise UsageError(
                f"images: {np.shape(images)}; (B, {', '.join(map(str, shape))}) is expected"
            )
        mean, std = tuple(self.input["mean"]), tuple(self.input["std"])
        return _logits(self.module, mean, std, self.variables, put_on_device(images))

    def __repr__(self) -> str:
        accuracy = self.metrics["accuracy"]
        return (
            f"LoadedStage({self.name!r}, model={self.experiment.model!r}, "
            f"density={self.density:.4g}, accuracy={accuracy:.2f} %)"
        )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _logits(
    module: nn.Module,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    variables: dict[str, Tree],
    images: jax.Array,
) -> Tree:
    return module.apply(variables, augment.normalise(images, mean, std), train=False)


def load(run: str | Path, stage: str = "") -> LoadedStage:
    """Read a finished stage of a run; every file is checked against its checksum.

    Neither the dataset nor the devices of the run are needed, only its directory. A network of
    another file must be registered before, as for the run.

    Args:
        run: the directory of the run.
        stage: "seed_0/dense", "seed_0/fairgrape/round_03"; "seed_0/fairgrape" is its last round,
            and the seed may be left out where there is one. By default the last round of the
            run's method, where it has one seed and one method.

    Returns:
        The network and what it predicted; see `LoadedStage`.

    Raises:
        UsageError: no run, no such stage (those that are there follow), one that is not finished,
            whose checkpoint was not kept, or of which a file was changed.
    """
    directory = as_path(run)
    if not (directory / "config.json").exists():
        raise UsageError(f"{directory}: not a run (no config.json)")
    stored = config.read(directory / "config.json")
    experiment = experiment_of(directory)
    place = directory / _chosen(directory, experiment, stage)
    record = layout.read_record(place)
    cure = f"delete {place} and run again to make it anew"
    if record is None:
        raise UsageError(f"{place / 'metrics.json'}: damaged; {cure}")
    finished = read_stage(place)
    predictions = finished.predictions()
    if not (place / "checkpoint").is_dir():
        raise UsageError(
            f"{place / 'checkpoint'}: is not there. The run kept the checkpoints of some rounds "
            f"alone (execution.checkpoints); with one: {_listed(_with_checkpoint(directory))}"
        )
    bad = layout.changed_files(place, *layout.FILES)
    if not bad:
        bad = [f"checkpoint/{name}" for name in checkpoint.damaged_files(place / "checkpoint")]
    if bad:
        raise UsageError(f"{place / bad[0]}: damaged or gone; {cure}")
    variables, masks = finished.network()
    return LoadedStage(
        name=finished.name,
        experiment=finished.experiment,
        record=record,
        params=jax.device_get(variables["params"]),
        batch_stats=variables.get("batch_stats", {}),
        masks=masks,
        predictions=predictions,
        input=stored.get("input"),
    )


def stages(run: str | Path) -> tuple[str, ...]:
    """The names of all finished stages of a run, as `load` takes them.

    Args:
        run: the directory of the run.
    """
    directory = as_path(run)
    return tuple(
        place.relative_to(directory).as_posix() for place, _ in layout.read_records(directory)
    )


def _chosen(run: Path, experiment: Experiment, stage: str) -> str:
    """The name of a stage, of a part of it; UsageError if there is none or several."""
    finished = stages(run)
    word = stage.strip("/") or (experiment.methods[0] if len(experiment.methods) == 1 else "")
    if not word:
        raise UsageError(f"{run}: has several methods; name a stage of {_listed(finished)}")
    if not stage and experiment.methods[0] not in {name.split("/")[1] for name in finished}:
        raise UsageError(f"{run}: no round is finished yet; there are: {_listed(finished)}")
    words = [word] if word.startswith("seed_") else [f"seed_{n}/{word}" for n in experiment.seeds]
    whole = [name for name in words if name in finished or (run / name / "metrics.json").exists()]
    last = [max(rounds, key=_number) for name in words if (rounds := _rounds(name, finished))]
    matches = whole or last
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UsageError(f"{run}: stage {word!r} is there of several seeds: {_listed(matches)}")
    begun = [name for name in words if (run / name).is_dir()]
    state = "is not finished" if begun else "is not there"
    raise UsageError(f"{run}: stage {word!r} {state}; finished ones: {_listed(finished)}")


def _rounds(name: str, finished: Sequence[str]) -> list[str]:
    return [each for each in finished if each.startswith(f"{name}/round_")]


def _number(name: str) -> int:
    return int(name.rpartition("_")[2])


def _with_checkpoint(run: Path) -> list[str]:
    return [n for n in stages(run) if (run / n / "checkpoint/digests.json").exists()]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return (", ".join(names[:MOST]) or "none") + more
