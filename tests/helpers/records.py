"""Two stages trained on pictures that are read from disk; they can be stopped after any step."""

from __future__ import annotations

import numpy as np
import pytest

from fairgrape_jax import data
from fairgrape_jax.config import Execution, Experiment, Scoring, Stage
from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.data.sources import prepared
from fairgrape_jax.rounds import train
from fairgrape_jax.storage import resumable
from fairgrape_jax.storage.resumable import Passes
from fairgrape_jax.storage.slots import Slots
from tests.helpers.experiments import opened

EXPERIMENT = Experiment(
    data=data.source("synthetic", samples=240, groups=2, size=8),
    model="mlp",
    methods=("fairgrape",),
    sparsity=0.5,
    keep_per_round=0.5,
    dense=Stage((2,), (1e-3,)),
    retrain=Stage((1,), (1e-3,)),
    final=Stage((1,), (1e-3,), best=True),
    scoring=Scoring(fraction=0.5, micro_batch=8, select="greedy"),
    batch=32,
    execution=Execution(evaluation_batch=16),
    augmentation="flip_shift",
)


def source(data_dir, **options) -> prepared.Prepared:
    return prepared.Prepared(
        **{"path": str(data_dir), "dataset": "folder_csv", "size": 16} | options
    )


def read(data_dir, cache="auto", workers=0, **options) -> Dataset:
    return data.load(source(data_dir, **options), reading=data.Reading(cache, workers))


class StoppedError(Exception):
    """A stop in the middle."""


def epochs(dataset, directory, stop_after=None, seen=None):
    """Two stages of the run in `directory`, saved at every step; the ids of each step in `seen`."""
    session, network = opened(EXPERIMENT, dataset, 2)
    count = 0

    def step(carry, masks, batch, rate):
        nonlocal count
        if stop_after is not None and count == stop_after:
            raise StoppedError
        count += 1
        if seen is not None:
            seen[int(carry.state.step)] = np.asarray(batch["ids"]).reshape(-1).tolist()
        return session.steps.train(carry, masks, batch, rate)

    training = train.Training(
        session=session,
        masks=network.masks,
        step=step,
        seed=0,
        title="",
        slots=Slots(directory / "partial"),
        passes=Passes(directory / "partial/passes", session.devices),
    )
    stages = [Stage((2,), (1e-3,)), Stage((1,), (1e-4,), best=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resumable, "SAVE_EVERY", 0.0)
        patch.setattr(resumable, "LOOK_EVERY", 1)
        place = train.run_stages(training, network.state, stages)
    return place.state, list(place.history)
