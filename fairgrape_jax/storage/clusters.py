"""The clusters that stand for groups, kept in a run's directory: read, or made and written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from fairgrape_jax import parallel
from fairgrape_jax.errors import UsageError
from fairgrape_jax.parallel import hosts
from fairgrape_jax.passes import Fold
from fairgrape_jax.progress import say
from fairgrape_jax.storage.files import read_arrays, write_arrays
from fairgrape_jax.storage.resumable import Passes


def read_or_make(
    path: Path, samples: int, devices: Sequence[jax.Device], assign: Callable[[Fold], np.ndarray]
) -> np.ndarray:
    """The clusters of a file; where it is not there or damaged new ones, which process 0 writes.

    All processes call it, and their own values may differ by rounding: those of process 0 count.

    Args:
        path: of the file; a pass that is stopped is kept beside it, under `embedding`.
        samples: how many images there are.
        devices: those of this process.
        assign: makes new clusters by a pass over the images.

    Returns:
        The cluster of each image, (N,) int32.

    Raises:
        UsageError: a sound file of another number of images.
        Preempted: after a notice; called again it goes on from there.
    """
    sound = "clusters" in read_arrays(path)
    if parallel.broadcast_from_process_0(sound):
        return read_clusters(path, samples)
    if path.exists():
        say(f"{path}: damaged; made anew")
    passes = Passes(path.with_name("embedding"), devices)
    clusters = assign(passes)
    if hosts.is_process_0():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_arrays(path, {"clusters": clusters})
    passes.clear()
    return clusters


def read_clusters(path: Path, samples: int) -> np.ndarray:
    """The cluster of each training image, (N,) int32. UsageError if there are not `samples`.

    Args:
        path: of the file.
        samples: how many images there are.
    """
    clusters = read_arrays(path).get("clusters")
    if clusters is None:
        raise UsageError(f"{path}: damaged or gone; the run makes it anew")
    if clusters.shape != (samples,):
        raise UsageError(f"{path}: has clusters for {len(clusters)} images, not for {samples}")
    return clusters
