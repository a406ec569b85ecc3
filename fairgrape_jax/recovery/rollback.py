"""Training that goes back to where it began, at lower rates, when a number is not finite.

A stage begins with the network of the last complete round, pruned anew. How often it went back is
kept in its directory, so that a run that is killed afterwards goes on at the lowered rates.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fairgrape_jax import parallel, storage
from fairgrape_jax.config import Stage
from fairgrape_jax.parallel import hosts, out_of_memory
from fairgrape_jax.progress import say
from fairgrape_jax.recovery import replay
from fairgrape_jax.rounds import train
from fairgrape_jax.rounds.saves import Place
from fairgrape_jax.rounds.train import Training
from fairgrape_jax.training import finite
from fairgrape_jax.training.finite import NotFinite, NotFiniteError
from fairgrape_jax.training.state import State

FILE = "rollbacks.json"


def run_stages(
    training: Training,
    state: State,
    stages: Sequence[Stage],
    *,
    directory: Path,
    after: Callable[[int, State], None] = lambda epochs, state: None,
) -> Place:
    """As `train.run_stages`; a number that is not finite is written down, and gone back from.

    Args:
        training: which training.
        state: where it begins, on the devices, which take over its buffers.
        stages: what to go through.
        directory: of the stage of the run.
        after: as for `train.run_stages`.

    Raises:
        NotFiniteError: when that has been done as often as `execution.rollback.retries` says; it
            names the repro file.
    """
    retries = training.session.experiment.execution.rollback.retries
    start = finite.to_host(state) if retries else None
    while True:
        past = read_rollbacks(directory)
        scale, times = parallel.broadcast_from_process_0(
            (math.prod(one["factor"] for one in past), float(len(past)))
        )
        try:
            with out_of_memory.name_phase("training"):
                return train.run_stages(training, state, scale_rates(stages, float(scale)), after)
        except NotFiniteError as error:
            file = replay.write(
                directory,
                error.record,
                masks=training.masks,
                seed=training.seed,
                dataset=training.session.dataset,
                quantised=training.quantised,
            )
            if start is None or times >= retries:
                raise replay.name_file(error, file) from error
            go_back(training, directory, error.record, file)
            state = parallel.replicate(start, training.session.devices)


def scale_rates(stages: Sequence[Stage], scale: float) -> list[Stage]:
    """The stages with every rate multiplied.

    Args:
        stages: of a training.
        scale: the factor of every rate.
    """
    return [dataclasses.replace(s, rates=tuple(scale * rate for rate in s.rates)) for s in stages]


def go_back(training: Training, directory: Path, record: NotFinite, file: Path | None) -> None:
    """Remove what the training has saved, and record that it begins anew at lower rates.

    Args:
        training: which one.
        directory: of the stage.
        record: what is not finite.
        file: what was written of it; None for nothing.
    """
    options, past = training.session.experiment.execution.rollback, read_rollbacks(directory)
    # The saves go first: they must never be gone on from at other rates than their own.
    training.slots.remove()
    training.passes.clear()
    what = finite.summary(record.parts)
    where = {k: record.details[k] for k in ("step", "epoch", "rate") if k in record.details}
    past.append({"what": what, "factor": options.factor, **where})
    if hosts.is_process_0():
        storage.write_checksummed(directory / FILE, {"rollbacks": past})
    scale = math.prod(one["factor"] for one in past)
    say(
        f"{training.title}: {what} not finite {record.where}: back to its start, rates x "
        f"{scale:g} ({len(past)} of {options.retries}; {file})"
    )


def read_rollbacks(directory: Path) -> list[dict[str, Any]]:
    """How often a stage went back, and why: what, where and the factor of each time.

    Args:
        directory: of a stage.
    """
    return (storage.read_checksummed(directory / FILE) or {}).get("rollbacks", [])
