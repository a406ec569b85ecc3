"""Read a finished stage of a run: its experiment, its record, its network; no dataset is needed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from flax import linen as nn

from fairgrape_jax import config, models
from fairgrape_jax.config import Experiment
from fairgrape_jax.errors import UsageError
from fairgrape_jax.masks import Tree, apply_masks, check_masks
from fairgrape_jax.runner import layout
from fairgrape_jax.runner.layout import Record
from fairgrape_jax.runner.record import check_record, read_checked_predictions
from fairgrape_jax.storage import checkpoint
from fairgrape_jax.training.evaluate import Predictions


@dataclasses.dataclass(frozen=True)
class StoredStage:
    """A finished stage of a run, as it lies on the disk.

    Attributes:
        run: The directory of the run.
        directory: That of the stage.
        experiment: What the run does.
        record: The metrics.json of the stage.
    """

    run: Path
    directory: Path
    experiment: Experiment
    record: Record

    @property
    def name(self) -> str:
        """Where the stage is in its run, like seed_0/fairgrape/round_07."""
        return self.directory.relative_to(self.run).as_posix()

    def module(self) -> nn.Module:
        """The network, for evaluation."""
        classes = sum(len(names) for _, names in self.record["tasks"])
        return models.create(self.experiment.model, classes, dtype=self.experiment.precision)

    def network(self) -> tuple[Tree, Tree]:
        """The variables of the network, zero where pruned, and the masks of its parameters.

        Returns:
            `{"params": ..., "batch_stats": ...}` of NumPy arrays, and bool arrays in the structure
            of the parameters, None where one is not prunable.

        Raises:
            UsageError: If the checkpoint is damaged, gone, or none of such a network.
        """
        path = self.directory / "checkpoint"
        try:
            tree = checkpoint.restore_as_stored(path)
            state, masks = tree["state"], tree["masks"]
            check_masks(masks, state["params"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path}: no checkpoint of a network ({error}); a run keeps that of every round "
                "unless --execution.checkpoints names others; name another stage, or delete "
                f"{self.directory} and run again to make it anew"
            ) from error
        variables = {"params": apply_masks(masks, state["params"])}
        if state.get("batch_stats"):
            variables["batch_stats"] = state["batch_stats"]
        return variables, masks

    def predictions(self) -> Predictions:
        """Those of the test split. UsageError if they are damaged or gone."""
        return read_checked_predictions(self.directory, self.record)


def read_stage(path: Path) -> StoredStage:
    """A finished stage.

    Args:
        path: The directory of the stage, or of a run in which only one stage is a last one: one
            seed and one method.

    Raises:
        UsageError: It is none, or not finished, or the run has several; it names them.
    """
    path = path.absolute()
    if (run := layout.find_run(path)) is None:
        raise UsageError(f"{path}: not a run, and no stage of one (no config.json there or above)")
    experiment = experiment_of(run)
    directory = path if path != run else _only_last_stage(run)
    record = layout.read_record(directory)
    if record is None:
        raise UsageError(
            f"{directory}: no finished stage (no sound metrics.json); give one of "
            f"{_listed(run, [stage for stage, _ in layout.read_records(run)])}"
        )
    check_record(run, directory, record)
    return StoredStage(run, directory, experiment, record)


def experiment_of(run: Path) -> Experiment:
    """The experiment of a run; its dataset is a plain `Source` where nobody has registered it here.

    Args:
        run: the directory of the run.

    Raises:
        UsageError: config.json is none.
    """
    try:
        return config.load(run / "config.json")
    except UsageError:
        return config.load_for_report(run / "config.json")


def _only_last_stage(run: Path) -> Path:
    records = layout.read_records(run)
    last = [
        stage
        for stage, record in records
        if record.get("method") != "dense" and record.get("round") == record.get("rounds")
    ]
    if len(last) != 1:
        raise UsageError(
            f"{run}: name a stage of it, as RUN/STAGE: one of "
            f"{_listed(run, last or [stage for stage, _ in records])}"
        )
    return last[0]


def _listed(run: Path, stages: list[Path], most: int = 8) -> str:
    """The first few stages, by their place in the run."""
    names = [stage.relative_to(run).as_posix() for stage in stages]
    more = [f"... ({len(names)} in all)"] if len(names) > most else []
    return ", ".join([*names[:most], *more]) or "none: no stage is finished yet"
