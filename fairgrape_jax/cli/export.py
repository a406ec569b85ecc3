"""`fairgrape export`: a pruned network in a form that others read."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import FlagCreatePairsOff, Positional, arg

from fairgrape_jax.cli.command import Command
from fairgrape_jax.cli.python_files import load_plugins
from fairgrape_jax.progress import say


@dataclasses.dataclass(frozen=True)
class Export(Command):
    """Write a pruned network in a form that others read, with a model card (docs/export.md).

    What is written is read back and compared with the run's own predictions before it is kept.
    """

    stage: Annotated[Path, Positional, arg(metavar="RUN[/STAGE]")]
    """A run, or a stage of it, like RUN/seed_0/fairgrape/round_07."""
    to: Annotated[str, arg(metavar="FORMAT")]
    """torchvision, timm, safetensors, stablehlo, onnx, npz, hf, masks or sparse."""
    out: Annotated[
        Path | None, arg(metavar="DIR", help_behavior_hint="(default: the stage's name, here)")
    ] = None
    """The folder to write; it must not be there yet."""
    samples: Annotated[int, arg(metavar="N")] = 256
    """Pictures of the test split that the files are tried on, at most."""
    values: Literal["exact", "float16"] = "exact"
    """Of sparse storage: the weights of pruned layers as they are, or rounded to half precision."""
    batch: Annotated[int, arg(metavar="N")] = 0
    """Of a program: its number of pictures, where it is to hold for one alone; 0 for any."""
    shrink: Annotated[bool, FlagCreatePairsOff] = False
    """Leave out the channels that are pruned as wholes: a smaller dense network, equal outputs."""

    plugin: Annotated[tuple[Path, ...], arg(metavar="FILE...", help_behavior_hint="")] = ()
    """Python files that registered the run's dataset or model (docs/extending.md)."""

    def run(self) -> None:
        """Export, and print what was written."""
        from fairgrape_jax.exporters import export

        load_plugins(self.plugin)
        say(
            str(
                export(
                    self.stage,
                    self.out or "",
                    to=self.to,
                    samples=self.samples,
                    values=self.values,
                    batch=self.batch,
                    shrink=self.shrink,
                )
            )
        )
