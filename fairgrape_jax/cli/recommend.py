"""`fairgrape recommend`: what to use for some data, from finished runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

from tyro.conf import DisallowNone, Positional, arg

from fairgrape_jax.cli.command import Command
from fairgrape_jax.errors import UsageError
from fairgrape_jax.progress import say


@dataclasses.dataclass(frozen=True)
class Recommend(Command):
    """What to use for these data, from finished runs, in a paragraph; or that they do not tell.

    Methods are compared by the accuracy of their worst group, on the same test samples and seeds.
    """

    runs: Annotated[tuple[Path, ...], Positional, arg(metavar="RUN...")]
    """Directories of runs of the same data and groups."""
    density: Annotated[
        DisallowNone[float | None],
        arg(metavar="PART", help_behavior_hint="(default: the smallest that all have reached)"),
    ] = None
    """The part of the weights at which methods are compared, 0.02 for 2 percent."""

    def run(self) -> None:
        """Print the recommendation."""
        if not self.runs:
            raise UsageError("recommend: name the directory of a run")
        from fairgrape_jax.reports.recommend import recommend

        say(recommend(self.runs, self.density).text)
