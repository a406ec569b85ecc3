"""Groups without labels: clusters of what a network sees in the training images.

Source: FairGRAPE, Table 4, where 7 k-means clusters of a pretrained network's embeddings stand for
the races while pruning; evaluation looks at the true groups.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from fairgrape_jax import config, models, parallel, storage
from fairgrape_jax.config import Experiment
from fairgrape_jax.data import augment
from fairgrape_jax.data.batches import padded_batches
from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.errors import UsageError
from fairgrape_jax.masks import Tree
from fairgrape_jax.parallel import hosts
from fairgrape_jax.progress import say
from fairgrape_jax.rounds import steps
from fairgrape_jax.rounds.steps import Steps
from fairgrape_jax.storage import resumable
from fairgrape_jax.training.step import State

RESTARTS = 10  # k-means is run so often, from other seeds, and the tightest clusters are taken


def scored_by(
    experiment: Experiment, compiled: Steps, dataset: Dataset, state: State, path: Path, seed: int
) -> Dataset:
    """The dataset with the groups that scores look at: its own, or clusters of training images.

    state: the dense network of `seed`, whose last features are clustered unless the experiment
    names another network. path: where the assignment is kept (`read`), made on the first call.
    """
    count = config.clusters(experiment.scoring)
    if not count:
        return dataset
    batch, devices = experiment.evaluation_batch, compiled.devices
    asked = {"seed": seed, "batch": batch}
    place = resumable.Place(path.with_name("embedding"), asked, devices, "keep")
    sound = "clusters" in storage.read_arrays(path)
    if path.exists() and not sound:
        say(f"{path}: damaged; made anew")
    if not parallel.broadcast_from_process_0(sound):
        module, variables = _network(experiment, compiled, dataset, state)
        features = embed(module, variables, dataset, batch, place)
        assigned = parallel.broadcast_from_process_0(kmeans(features, count, seed))
        if hosts.is_process_0():
            storage.write_arrays(path, {"clusters": assigned})
    else:
        assigned = parallel.broadcast_from_process_0(read(path, len(dataset.train)))
    resumable.forget(place.path)
    return regrouped(dataset, assigned, count)


def regrouped(dataset: Dataset, assigned: np.ndarray, count: int) -> Dataset:
    """The dataset with `count` clusters of training images, (N,) int32, in place of its groups."""
    names = tuple(f"cluster {k}" for k in range(count))
    train = dataclasses.replace(dataset.train, groups=assigned)
    return dataclasses.replace(dataset, train=train, groups=names)


def read(path: Path, samples: int) -> np.ndarray:
    """The cluster of each training image, (N,) int32. UsageError if there are not `samples`."""
    assigned = storage.read_arrays(path).get("clusters")
    if assigned is None:
        raise UsageError(f"{path}: damaged or gone; the run makes it anew")
    if assigned.shape != (samples,):
        raise UsageError(f"{path}: has clusters for {len(assigned)} images, not for {samples}")
    return assigned


def kmeans(features: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The nearest of `count` k-means centres for each row of features (N, D); (N,) int32.

    The tightest of RESTARTS runs of SciPy's k-means++; clusters are numbered by falling size.
    UsageError where there are fewer different rows than clusters.

    >>> kmeans(np.array([[0.0], [0.1], [0.2], [5.0]]), 2, seed=0)
    array([0, 0, 0, 1], dtype=int32)
    """
    from scipy.cluster import vq

    features = np.asarray(features, np.float64)
    if len(np.unique(features, axis=0)) < count:
        raise UsageError(f"scoring.groups: {count} clusters of fewer different images")
    best, least = None, np.inf
    for restart in range(RESTARTS):
        generator = np.random.default_rng([seed, restart])
        try:
            centres, found = vq.kmeans2(
                features, count, iter=50, minit="++", missing="raise", rng=generator
            )
        except vq.ClusterError:  # a cluster ran empty
            continue
        spread = float(np.square(features - centres[found]).sum())
        if spread < least:
            best, least = found, spread
    if best is None:
        raise UsageError(f"scoring.groups: no {count} clusters were found; give fewer")
    order = np.argsort(-np.bincount(best, minlength=count), kind="stable")
    return np.argsort(order)[best].astype(np.int32)


def embed(
    module: nn.Module,
    variables: Tree,
    dataset: Dataset,
    batch: int,
    place: resumable.Place | None = None,
) -> np.ndarray:
    """What goes into the network's last layer for each training image; (N, D) float32."""
    head = steps.layer_order(module, dataset)[-1]

    @jax.jit
    def features(images: jax.Array) -> jax.Array:
        seen: list[jax.Array] = []

        def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
            if context.method_name == "__call__" and "/".join(context.module.path) == head:
                seen.append(args[0])
            return call(*args, **kwargs)

        with nn.intercept_methods(intercept):
            module.apply(variables, augment.normalise(images, dataset.mean, dataset.std))
        return seen[-1].reshape(len(images), -1)

    def add(found: list[Any], rows: Any) -> list[Any]:
        return [*found, features(rows["images"])]

    done, kept = resumable.read(place)
    batches = padded_batches(dataset.train, batch, begin=done)
    found = resumable.fold(add, kept, batches, place=place, done=done, what="the clustering")
    return np.concatenate(found)[: len(dataset.train)]


def _network(
    experiment: Experiment, compiled: Steps, dataset: Dataset, state: State
) -> tuple[nn.Module, Tree]:
    """The network whose features are clustered."""
    if not experiment.scoring.embedding:
        own = jax.device_get((state.params, state.batch_stats))
        module = compiled.module.clone(axis_name=None)
        return module, dict(zip(("params", "batch_stats"), own, strict=True))
    name, _, weights = experiment.scoring.embedding.partition(":")
    module = models.create(name, sum(dataset.classes))
    fresh = module.init(jax.random.key(0), np.zeros((1, *dataset.shape), np.float32))
    return module, models.load_pretrained(name, weights, dict(fresh))
