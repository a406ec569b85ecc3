"""Groups without labels: k-means clusters of a network's features of the training images.

Source: FairGRAPE, Table 4, where 7 k-means clusters of a pretrained network's embeddings stand for
the races while pruning; evaluation looks at the true groups.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import flax.linen as nn
import jax
import numpy as np

from fairgrape_jax import models, parallel, passes
from fairgrape_jax.data import augment
from fairgrape_jax.data.batches import padded_batches
from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.errors import UsageError
from fairgrape_jax.masks import Tree
from fairgrape_jax.passes import Fold
from fairgrape_jax.rounds.parameters import initial_shapes, prunable_layers
from fairgrape_jax.rounds.pretrained import load_pretrained
from fairgrape_jax.rounds.session import Network, Session
from fairgrape_jax.training.state import initializer

Samples = Mapping[str, np.ndarray]  # a batch

RESTARTS = 10  # k-means is run so often, from other seeds, and the tightest clusters are taken


def make_clusters(assign: Callable[[Fold], np.ndarray]) -> np.ndarray:
    """New clusters, by a pass without a stop.

    Args:
        assign: makes them, by a pass over the images.
    """
    return assign(passes.fold)


def session_for_scoring(
    session: Session,
    dense: Network,
    *,
    seed: int,
    read_or_make: Callable[[Callable[[Fold], np.ndarray]], np.ndarray] = make_clusters,
) -> Session:
    """The session with the groups that scores look at: its own, or clusters of training images.

    Args:
        session: the run.
        dense: the dense network of the seed, whose last features are clustered unless the
            experiment names another network.
        seed: of k-means.
        read_or_make: calls the function that makes clusters, (N,) int32, by a pass over the images,
            or gives what it made before; see `storage.clusters`.
    """
    clusters = session.experiment.scoring.groups
    if clusters is None:
        return session

    def assign(fold: Fold) -> np.ndarray:
        batch = session.experiment.execution.evaluation_batch
        return kmeans(embed(session, dense, batch=batch, fold=fold), clusters.count, seed)

    groups = parallel.broadcast_from_process_0(read_or_make(assign))
    dataset = replace_groups(session.dataset, groups, clusters.count)
    return dataclasses.replace(session, dataset=dataset)


def replace_groups(dataset: Dataset, clusters: np.ndarray, count: int) -> Dataset:
    """The dataset with `count` clusters of training images, (N,) int32, in place of its groups.

    Args:
        dataset: the data.
        clusters: (N,) int32, the cluster of each training image.
        count: how many clusters there are.
    """
    names = tuple(f"cluster {k}" for k in range(count))
    train = dataclasses.replace(dataset.train, groups=clusters)
    return dataclasses.replace(dataset, train=train, groups=names)


def kmeans(features: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The tightest of RESTARTS runs of SciPy's k-means++.

    Args:
        features: (N, D), a row per image.
        count: how many clusters.
        seed: of the first centres.

    Returns:
        The nearest centre of each row, (N,) int32; clusters are numbered by falling size.

    Raises:
        UsageError: where there are fewer different rows than clusters.

    Example:
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
            centres, nearest = vq.kmeans2(
                features, count, iter=50, minit="++", missing="raise", rng=generator
            )
        except vq.ClusterError:  # a cluster ran empty
            continue
        spread = float(np.square(features - centres[nearest]).sum())
        if spread < least:
            best, least = nearest, spread
    if best is None:
        raise UsageError(f"scoring.groups: no {count} clusters were found; give fewer")
    order = np.argsort(-np.bincount(best, minlength=count), kind="stable")
    return np.argsort(order)[best].astype(np.int32)


def embed(session: Session, dense: Network, *, batch: int, fold: Fold = passes.fold) -> np.ndarray:
    """What goes into the last layer of a network for each training image; (N, D) float32.

    Args:
        session: the run; it may name another network than the dense one.
        dense: the dense network.
        batch: images per call.
        fold: how the pass over the images is made.

    Raises:
        UsageError: a network whose last layer is no module.
    """
    dataset = session.dataset
    module, variables = _embedding_network(session, dense)
    parameter = list(prunable_layers(*initial_shapes(module, dataset)))[-1]
    head = parameter.rpartition("/")[0]  # the module whose kernel it is
    if not head:
        raise UsageError(
            f"scoring.groups: the last layer, {parameter!r}, is no module of the network, so what "
            "goes into it cannot be clustered; make it one, or name another network as embedding"
        )

    @jax.jit
    def features(images: jax.Array) -> jax.Array:
        inputs: list[jax.Array] = []

        def intercept(
            call: Callable[..., Tree],
            args: tuple[jax.Array, ...],
            kwargs: dict[str, Tree],
            context: nn.module.InterceptorContext,
        ) -> Tree:
            if context.method_name == "__call__" and "/".join(context.module.path) == head:
                inputs.append(args[0])
            return call(*args, **kwargs)

        with nn.intercept_methods(intercept):
            module.apply(variables, augment.normalise(images, dataset.mean, dataset.std))
        return inputs[-1].reshape(len(images), -1)

    def add(rows: list[jax.Array], samples: Samples) -> list[jax.Array]:
        return [*rows, features(samples["images"])]

    def batches(begin: int) -> Iterable[Samples]:
        return padded_batches(dataset.train, batch, begin=begin)

    key = {"pass": "clustering", "batch": batch, "network": parallel.checksum(variables)}
    nothing: list[jax.Array] = []
    (rows,) = fold(add, nothing, batches, key=key, finish=lambda rows: [np.concatenate(rows)])
    return rows[: len(dataset.train)]


def _embedding_network(session: Session, dense: Network) -> tuple[nn.Module, Tree]:
    """The network whose features are clustered, and its variables."""
    clusters = session.experiment.scoring.groups
    if clusters is None or clusters.embedding is None:
        return session.steps.module.clone(axis_name=None), jax.device_get(dense.variables)
    name, weights = clusters.embedding.model, clusters.embedding.weights
    module = models.create(name, sum(session.dataset.classes))
    fresh = initializer(module, session.dataset.shape)(jax.random.key(0))
    return module, load_pretrained(name, weights, dict(fresh))
