"""Predictions of a network of the run on one of its splits."""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np

from fairgrape_jax import metrics, passes
from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.parallel import out_of_memory
from fairgrape_jax.passes import Fold
from fairgrape_jax.rounds.session import Network, Session, fingerprint
from fairgrape_jax.training import evaluate, finite
from fairgrape_jax.training.finite import NotFinite, NotFiniteError

SplitName = Literal["train", "validation", "test"]


@out_of_memory.name_phase("evaluation")
def predict(
    session: Session, network: Network, split: SplitName, fold: Fold = passes.fold
) -> evaluate.Predictions:
    """What the masked network predicts for every sample of a split of the session's dataset.

    Args:
        session: the run.
        network: on its devices.
        split: which samples.
        fold: how the pass over them is made.

    Raises:
        NotFiniteError: where a loss is not finite, with the samples: the class with the largest of
            scores that are no numbers is the first one, which is wrong without a word.
    """
    state, per_device = network.state, session.experiment.execution.evaluation_batch
    samples = getattr(session.dataset, split)
    key = {"pass": "evaluation", "split": split, "samples": len(samples), "batch": per_device}
    key |= {"results": "predictions, losses, scores"}
    predictions = evaluate.predict(
        functools.partial(session.steps.evaluate, state.params, state.batch_stats, network.masks),
        samples,
        per_device=per_device,
        devices=session.devices,
        fold=fold,
        key=key | {"network": fingerprint(network)},
    )
    if not (good := np.isfinite(predictions.losses)).all():
        bad = np.flatnonzero(~good).tolist()
        where = f"in the evaluation of {len(good)} samples, first of number {bad[0]}"
        record = NotFinite("evaluation", where, ("loss",), finite.to_host(state), {"ids": bad})
        raise NotFiniteError(record)
    return predictions


def tally(dataset: Dataset, predictions: evaluate.Predictions) -> list[np.ndarray]:
    """The confusion counts of each task, from predictions; see `metrics.tally`.

    Args:
        dataset: for the numbers of groups and classes.
        predictions: of one of its splits.
    """
    return metrics.tally(
        predictions.labels,
        predictions.predictions,
        predictions.groups,
        len(dataset.groups),
        dataset.classes,
    )
