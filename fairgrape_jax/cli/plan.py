"""`fairgrape plan`: what a run will need on devices that are not here."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from tyro.conf import DisallowNone, FlagCreatePairsOff, Positional, arg

from fairgrape_jax import config, data
from fairgrape_jax.cli.command import Command, parse_first, with_fields_of
from fairgrape_jax.cli.python_files import load_plugins
from fairgrape_jax.cli.run import load
from fairgrape_jax.config import Experiment
from fairgrape_jax.data.sources import arrays
from fairgrape_jax.errors import UsageError


def _optional(metavar: str) -> Any:
    """A flag without a default that would be worth showing."""
    return arg(metavar=metavar, help_behavior_hint="")


@dataclasses.dataclass(frozen=True)
class Plan(Command):
    """Compile a run's programs for devices that are not here: memory, time, the largest batch.

    Nothing is run and no accelerator is needed (docs/scaling.md). `fairgrape plan EXPERIMENT
    --help` shows every field of the experiment, which are flags too.
    """

    experiment: Annotated[Path, Positional, arg(metavar="EXPERIMENT")]
    """A file (experiments/*.py) or the directory of a run."""
    on: Annotated[str, arg(metavar="DEVICES")] = "cpu"
    """TPUs by slice (v4:2x2x1, v5e:4x4, v5p:4x4x4, v6e:8x8), GPUs by number (a100, h100:8,
    h200:16, b200), or cpu:N."""
    plugin: Annotated[tuple[Path, ...], arg(metavar="FILE...", help_behavior_hint="")] = ()
    """Python files that register methods, models, datasets or metrics (docs/extending.md)."""
    json: FlagCreatePairsOff[bool] = False
    """Print the plan as JSON, in bytes, seconds and operations."""
    utilisation: Annotated[float, arg(metavar="PART")] = 0.5
    """The part of the data sheet's speed that times are reckoned at."""
    time_limit: Annotated[float, arg(metavar="SECONDS")] = 900.0
    """After which the compile of one program is given up."""
    largest_batch: bool = True
    """Seek the largest batch that fits, by compiling the training step for several."""
    programs: Annotated[
        tuple[str, ...], arg(metavar="NAME...", help_behavior_hint="(default: all)")
    ] = ()
    """Compile these programs alone."""
    samples: Annotated[DisallowNone[int | None], _optional("N")] = None
    """Training pictures. With --pixels, --classes and --groups too no data is read."""
    evaluation_samples: Annotated[DisallowNone[int | None], _optional("N")] = None
    """Pictures of the validation and of the test split; a twentieth of the training ones."""
    pixels: Annotated[DisallowNone[int | None], _optional("N")] = None
    """Side of the pictures, which have three channels."""
    classes: Annotated[tuple[int, ...], arg(metavar="N...", help_behavior_hint="")] = ()
    """Classes of each task."""
    groups: Annotated[DisallowNone[int | None], _optional("N")] = None
    """Groups, of equal sizes."""

    @classmethod
    def complete(cls, arguments: Sequence[str]) -> type[Self]:
        """With the fields of the experiment that `arguments` name, and its values as defaults.

        Args:
            arguments: the words after the name of the command.

        Returns:
            This class, with more fields.

        Raises:
            UsageError: no experiment is named, or it cannot be read.
        """
        missing = (
            "plan: before all options, name an experiment, a file of experiments/ or a run "
            "directory"
        )
        if (known := parse_first(cls, arguments, missing)) is None:
            return cls
        load_plugins(known.plugin)
        return with_fields_of(cls, "values", load(known.experiment))

    def run(self) -> None:
        """Print the plan."""
        from fairgrape_jax import plan

        experiment: Experiment = self.values  # type: ignore[attr-defined]  # by `complete`
        target = plan.parse(self.on)
        config.check(experiment)
        plan.check_fit(experiment, target)
        here = (self.experiment,) if self.experiment.is_file() else ()
        files = (*self.plugin, *here)
        request = plan.Request(experiment, self.description(experiment), target, files)
        options = plan.Options(self.utilisation, self.time_limit, self.largest_batch, self.programs)
        made = plan.make_plan(request, options, say=lambda line: print(line, file=sys.stderr))
        if self.json:
            print(json.dumps(plan.to_json(made), indent=1, allow_nan=False))
        else:
            print(plan.text(made))

    def description(self, experiment: Experiment) -> Any:
        """The data by its numbers: those of the flags, and of the dataset where some are missing.

        Args:
            experiment: whose data it is.

        Returns:
            A `plan.Description`.

        Raises:
            UsageError: where the dataset is not here and the flags do not describe it.
        """
        from fairgrape_jax.plan import Description, describe

        flags: dict[str, Any] = {
            "--samples": self.samples,
            "--pixels": self.pixels,
            "--groups": self.groups,
        }
        flags |= {"--classes": self.classes or None}
        flags |= {"--evaluation-samples": self.evaluation_samples}
        for name, value in flags.items():
            if value is not None and min(value if isinstance(value, tuple) else (value,)) < 1:
                raise UsageError(f"{name}: {value} is less than 1")
        if None in (self.samples, self.pixels, self.groups) or not self.classes:
            source = arrays.locate(experiment.data, self.experiment)
            located = dataclasses.replace(experiment, data=source)
            base = describe(loaded(located, [n for n, v in flags.items() if v is None]))
        else:
            base = Description(1, 1, 1, (1, 1, 3), (2,), (1, 1))
        train = self.samples or base.train
        sizes = base.group_sizes
        if self.groups or self.samples:
            count = self.groups or len(sizes)
            sizes = tuple(len(range(k, train, count)) for k in range(count))
        rest = self.evaluation_samples
        if rest is None and self.samples is not None:
            rest = max(train // 20, 1)
        shape = (self.pixels, self.pixels, 3) if self.pixels else base.shape
        return Description(
            train=train,
            validation=rest or base.validation,
            test=rest or base.test,
            shape=shape,
            classes=self.classes or base.classes,
            group_sizes=sizes,
        )


def loaded(experiment: Experiment, missing: list[str]) -> Any:
    """The dataset of an experiment.

    Args:
        experiment: whose data is read.
        missing: the flags that would do instead.

    Returns:
        A `data.Dataset`.

    Raises:
        UsageError: it is not here; with these flags.
    """
    try:
        return data.load(experiment.data, reading=experiment.execution.reading)
    except (UsageError, OSError) as error:
        raise UsageError(
            f"{error}; or plan without the data: describe it by {', '.join(missing)}"
        ) from error
