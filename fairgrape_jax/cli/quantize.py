"""`fairgrape quantize`: what bfloat16 and int8 do to each group."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from fairgrape_jax.cli.command import Command
from fairgrape_jax.cli.python_files import load_plugins
from fairgrape_jax.errors import UsageError
from fairgrape_jax.progress import say


@dataclasses.dataclass(frozen=True)
class Quantize(Command):
    """Finished stages of a run in bfloat16 and int8, audited by group (docs/speed.md).

    Weights and activations are int8, on top of the stage's masks, calibrated on the training split.
    """

    directory: Annotated[Path, Positional, arg(metavar="RUN")]
    """The directory of a run."""
    stages: Annotated[tuple[str, ...], Positional, arg(metavar="[STAGE...]")] = ()
    """Stages without the seed, like fairgrape/round_05; by default the last rounds, and dense."""
    epochs: Annotated[int, arg(metavar="N")] = 0
    """Train in int8 for so many epochs, for a further row."""
    rate: Annotated[float, arg(metavar="RATE")] = 1e-4
    """The learning rate of that."""
    calibration: Annotated[int, arg(metavar="N")] = 512
    """Pictures of the training split that activations are measured on."""
    out: Annotated[
        Path | None, arg(metavar="DIR", help_behavior_hint="(default: quantize/ in the run)")
    ] = None
    """Folder of the table and of the audit against the dense network in float32."""
    plugin: Annotated[tuple[Path, ...], arg(metavar="FILE...", help_behavior_hint="")] = ()
    """Python files that registered the run's dataset or model (docs/extending.md)."""

    def run(self) -> None:
        """Audit, write, and print the table."""
        from fairgrape_jax import storage
        from fairgrape_jax.library.precisions import audit_precisions

        load_plugins(self.plugin)
        out = self.out or self.directory / "quantize"
        if out.exists() and not out.is_dir():
            raise UsageError(f"{out}: is no folder; name another one by --out")
        made = audit_precisions(
            self.directory,
            self.stages,
            epochs=self.epochs,
            rate=self.rate,
            calibration=self.calibration,
        )
        for task, audit in made.audits.items():
            report = audit.write(out / task if len(made.audits) > 1 else out)
            say(f"report: {report}")
        storage.write_text(out / "table.md", made.to_markdown() + "\n")
        say(str(made))
