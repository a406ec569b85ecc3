"""How runs were made: settings, versions, devices, rows from outside, what went wrong meanwhile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from fairgrape_jax import config
from fairgrape_jax.config import protocols
from fairgrape_jax.reports.blocks import Block, Bullets, Folded, Text
from fairgrape_jax.reports.results import Model


def provenance(runs: Sequence[Path]) -> list[Block]:
    """Devices, versions and settings, and what the protocol changes for each method.

    Args:
        runs: their directories; the first one's settings are shown.

    Returns:
        Texts and lists.
    """
    stored = config.read(runs[0] / "config.json")
    settings = {k: v for k, v in stored["experiment"].items() if not isinstance(v, dict)}
    made = [f"`{name}`: {_plain(value)}" for name, value in (settings | stored["versions"]).items()]
    device = "{count} x {kind} ({platform})".format(**stored["devices"])
    first, *rest = protocols.describe(config.load_for_report(runs[0] / "config.json"))
    where = (
        f"`fairgrape run` on {device}. Every round of every seed: metrics.csv. Every prediction: "
        "predictions.csv of each round."
    )
    lines = [line.removeprefix("- ") for line in rest]
    lines += [line for run in runs for line in config.describe(registered(run))[0]]
    settings_and_versions = Folded("Settings and versions", [Bullets(made, most=40)])
    return [Text(where), Text(first), *([Bullets(lines)] if lines else []), settings_and_versions]


def _plain(value: object) -> str:
    """A setting without the marks of Python's lists."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def registered(run: Path) -> list[config.Registered]:
    """The rows from outside that a run has used.

    Args:
        run: its directory.

    Returns:
        As config.json has them.
    """
    return config.read(run / "config.json").get("registered", [])


def rollback_notes(models: Sequence[Model]) -> list[str]:
    """A line for each network whose training went back from a number that was not finite.

    Args:
        models: evaluated networks.

    Returns:
        The lines.
    """
    return [
        f"{model.name}, seed {model.seed}, round {model.record['round']}: trained at rates x "
        f"{math.prod(one['factor'] for one in past):g}, {past[0]['what']} not being finite before"
        for model in models
        if (past := model.record.get("rollbacks"))
    ]
