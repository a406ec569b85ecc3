"""Two stages trained on pictures that are read from disk; they can be stopped after any step."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fairgrape_jax import data, parallel
from fairgrape_jax.config import Experiment, Scoring, Stage
from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.data.sources import prepared
from fairgrape_jax.rounds import steps, train
from fairgrape_jax.storage import resumable

EXPERIMENT = Experiment(
    data=data.source("synthetic", samples=240, groups=2, size=8),
    model="mlp",
    methods=("fairgrape",),
    sparsity=0.5,
    keep_per_round=0.5,
    dense=Stage((2,), (1e-3,)),
    retrain=Stage((1,), (1e-3,)),
    final=Stage((1,), (1e-3,), best=True),
    scoring=Scoring(fraction=0.5, micro_batch=8),
    batch=32,
    evaluation_batch=16,
    augmentation="flip_shift",
)


def source(data_dir, **options) -> prepared.Prepared:
    return prepared.Prepared(
        **{"path": str(data_dir), "dataset": "folder_csv", "size": 16} | options
    )


def read(data_dir, **options) -> Dataset:
    return data.load(source(data_dir, **options))


class StoppedError(Exception):
    """A stop in the middle."""


def epochs(dataset, directory, stop_after=None, seen=None):
    """Two stages of the run in `directory`, saved at every step; the ids of each step in `seen`."""
    compiled = steps.build(EXPERIMENT, dataset, parallel.local_devices(2))
    made = compiled.train
    count = 0

    def step(state, masks, batch, rate):
        nonlocal count
        if stop_after is not None and count == stop_after:
            raise StoppedError
        count += 1
        if seen is not None:
            seen[int(state.step)] = np.asarray(batch["ids"]).reshape(-1).tolist()
        return made(state, masks, batch, rate)

    compiled = dataclasses.replace(compiled, train=step)
    state = steps.initial_state(EXPERIMENT, compiled, dataset, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resumable, "SAVE_EVERY", 0.0)
        patch.setattr(resumable, "LOOK_EVERY", 1)
        return train.run_stages(
            EXPERIMENT,
            compiled,
            dataset,
            state,
            steps.initial_masks(compiled, state),
            [Stage((2,), (1e-3,)), Stage((1,), (1e-4,), best=True)],
            seed=0,
            title="",
            directory=directory,
        )
