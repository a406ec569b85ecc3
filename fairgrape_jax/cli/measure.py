"""`fairgrape measure`: what networks cost on this machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import FlagCreatePairsOff, Positional, arg

from fairgrape_jax.cli.command import Command
from fairgrape_jax.cli.python_files import load_plugins
from fairgrape_jax.errors import UsageError
from fairgrape_jax.progress import say

if TYPE_CHECKING:
    from fairgrape_jax.exporters import measure


@dataclasses.dataclass(frozen=True)
class Measure(Command):
    """Parameters, bytes, operations, time of a call and memory of networks, on this machine."""

    stages: Annotated[tuple[Path, ...], Positional, arg(metavar="RUN[/STAGE]|MODEL...")]
    """Runs, or stages of them (RUN/seed_0/dense); or models of `fairgrape list` (resnet18)."""
    repeats: Annotated[int, arg(metavar="N")] = 20
    """Calls that are timed, of one picture and of 64."""
    shrink: Annotated[bool, FlagCreatePairsOff] = False
    """Measure each stage also without the channels that are pruned as a whole."""
    strip: Annotated[bool, FlagCreatePairsOff] = False
    """Measure each stage also as shifted 1x1 convolutions over the stripes that are left."""
    save: Annotated[bool, FlagCreatePairsOff] = False
    """Store size, operations and time with each stage, for the report of its run."""
    size: Annotated[int, arg(metavar="PIXELS")] = 64
    """Of a model: the side of its pictures."""
    classes: Annotated[int, arg(metavar="N")] = 2
    """Of a model: the classes of its last layer."""
    plugin: Annotated[tuple[Path, ...], arg(metavar="FILE...", help_behavior_hint="")] = ()
    """Python files that register models (docs/extending.md)."""

    def run(self) -> None:
        """Measure, and print a table."""
        if not self.stages:
            raise UsageError("measure: name a run, a stage of one, or a model")
        from fairgrape_jax import models
        from fairgrape_jax.exporters import measure

        load_plugins(self.plugin)
        missing = [path for path in self.stages if len(path.parts) == 1 and not path.exists()]
        bare = [path for path in missing if str(path) in models.MODELS]
        for path in missing:
            if path not in bare:
                raise UsageError(
                    f"{path}: not a run, and no stage of one, and no model: choose one of "
                    f"{', '.join(models.MODELS)}"
                )
        if bare and (self.shrink or self.strip or self.save):
            raise UsageError(
                f"{bare[0]}: --shrink, --strip and --save are for stages of runs, not models"
            )
        smaller, whole = self.smaller()
        costs = [
            measure.measure_model(str(path), self.repeats, size=self.size, classes=self.classes)
            if path in bare
            else measure.measure(path, self.repeats)
            for path in self.stages
        ]
        say(measure.table([*costs, *smaller]))
        for reason in whole:
            say(f"note: {reason}")
        if self.save:
            for stage, cost in zip(self.stages, costs, strict=True):
                say(f"saved: {measure.save(stage, cost)}")

    def smaller(self) -> tuple[list[measure.Cost], list[str]]:
        """What stages cost in the other forms, and why some have none.

        Raises:
            UsageError: None of the stages has one.
        """
        from fairgrape_jax.exporters import measure
        from fairgrape_jax.exporters.shrunk import StaysWholeError

        forms: dict[measure.Form, bool] = {"shrunk": self.shrink, "over its stripes": self.strip}
        costs, whole = [], []
        for form in [name for name, on in forms.items() if on]:
            for stage in self.stages:
                try:
                    costs.append(measure.measure(stage, self.repeats, form=form))
                except StaysWholeError as reason:
                    whole.append(reason)
        if whole and not costs:
            raise whole[0]
        return costs, list(map(str, whole))
