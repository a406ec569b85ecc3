"""What finished networks say of the test split when their running statistics are taken anew.

Looked at when the confirmation had come out, so it confirms nothing: it tells how much of what is
wrong at the last density is statistics of batch norm that lag behind the weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from experiments.faces.afterwards import Change
from fairgrape_jax import parallel
from fairgrape_jax.config import Experiment
from fairgrape_jax.data import load
from fairgrape_jax.rounds.predict import predict
from fairgrape_jax.rounds.session import initial_network, open_session
from fairgrape_jax.runner.recalibrate import recalibrate
from fairgrape_jax.runner.round import restore
from fairgrape_jax.runner.run import rounds_of
from fairgrape_jax.training.evaluate import Predictions

BATCHES = 40
CHANGE = Change("Running statistics taken anew", "recalibrated", "recalibrated")


def predictions(
    experiment: Experiment, directory: Path, rows: list[str]
) -> Iterator[tuple[str, Predictions]]:
    """The test split in the eyes of the last round of each row, its statistics taken anew.

    Args:
        experiment: of a finished run, with one seed.
        directory: of the run.
        rows: of its methods.
    """
    (seed,) = experiment.seeds
    devices = parallel.local_devices(1)
    session = open_session(experiment, load(experiment.data), devices)
    like = initial_network(session, seed)
    for row in rows:
        last = rounds_of(session, directory, seed, row)[-1]
        network = restore(last.session, last.directory, like)
        network = recalibrate(last, network, BATCHES, last.session.steps.train)
        yield row, predict(last.session, network, "test")
