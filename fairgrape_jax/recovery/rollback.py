"""Training that goes back to where it began, at lower rates, when a number is not finite.

A stage begins with the network of the last complete round, pruned anew. How often it went back is
kept in its directory, so that a run that is killed afterwards goes on at the lowered rates.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fairgrape_jax import parallel, storage
from fairgrape_jax.config import Experiment, Stage
from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.masks import Tree
from fairgrape_jax.parallel import hosts, out_of_memory
from fairgrape_jax.progress import say
from fairgrape_jax.recovery import replay
from fairgrape_jax.rounds import train
from fairgrape_jax.rounds.steps import Steps
from fairgrape_jax.training import finite
from fairgrape_jax.training.finite import NotFiniteError
from fairgrape_jax.training.step import State

FILE = "rollbacks.json"


def run_stages(
    experiment: Experiment,
    compiled: Steps,
    dataset: Dataset,
    state: State,
    alive: Tree,
    plan: Sequence[Stage],
    *,
    seed: int,
    title: str,
    directory: Path,
    **how: Any,
) -> tuple[State, list[dict[str, float]]]:
    """As `stages.run_stages`; a number that is not finite is written down, and gone back from.

    NotFiniteError with the repro file when that has been done as often as `rollback.retries` says.
    """
    options, past = experiment.rollback, recorded(directory)
    # On the host: the steps take over the buffers of the state.
    start = jax.tree.map(np.array, jax.device_get(state)) if options.retries else None
    while True:
        asked = math.prod(one["factor"] for one in past), float(len(past))
        scale, times = map(float, parallel.broadcast_from_process_0(asked))
        lowered = [
            dataclasses.replace(s, rates=tuple(scale * rate for rate in s.rates)) for s in plan
        ]
        try:
            with out_of_memory.name_phase("training"):
                return train.run_stages(
                    *(experiment, compiled, dataset, state, alive, lowered),
                    **how | {"seed": seed, "title": title, "directory": directory},
                )
        except NotFiniteError as error:
            if error.finite is not None:
                error.what = finite.bad_parts(error.state, error.finite, compiled.parameters)
            replay.write(directory, error, alive, seed, dataset)
            if start is None or times >= options.retries:
                raise
            what = finite.said(error.what)
            # The save goes first: it must never be gone on from at other rates than its own.
            if hosts.is_process_0():
                train.forget(directory)
            where: dict[str, Any] = {
                k: error.place[k] for k in ("step", "epoch", "rate") if k in error.place
            }
            past.append({"what": what, "factor": options.factor, **where})
            if hosts.is_process_0():
                storage.write_checksummed(directory / FILE, {"rollbacks": past})
            say(
                f"{title}: {what} not finite {error.place['where']}: back to its start, rates x "
                f"{scale * options.factor:g} ({len(past)} of {options.retries}; {error.file})"
            )
            state = parallel.replicate(start, compiled.devices)


def recorded(directory: Path) -> list[dict[str, Any]]:
    """How often a stage went back, and why: what, where and the factor of each time."""
    return (storage.read_checksummed(directory / FILE) or {}).get("rollbacks", [])
