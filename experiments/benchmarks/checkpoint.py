"""What it costs that no round is lost: saving, checking and reading the state of a network.

Command:  python -m experiments.benchmarks.checkpoint [--model resnet34] [--folder DIR]
The state is that of training with Adam, all of it drawn (zeros would take no room). Rows, in turn:
  save                     a checkpoint as a round leaves it: written whole, with its checksums
  save, until it returns   of a save in the background: until training goes on
  NumPy                    the same arrays by np.savez, without checksums: what the disk can do
  checksums                reading every file of a checkpoint again
  restore                  checksums, structure and shapes compared, and the arrays read
  masks, kept              of a round's choice, for as long as the round trains
  sums, kept               of a scoring that is stopped, of GROUPS groups on one device
  sums, read               and gone on with
Prints the bytes on disk too.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.timing import add_json, interleaved, show, table
from fairgrape_jax import masks, models, training
from fairgrape_jax.storage import checkpoint, resumable
from fairgrape_jax.storage.resumable import Snapshot

BASE = "save"
GROUPS = 7


def state(model: str, size: int) -> dict[str, Any]:
    """Parameters, batch statistics, Adam's moments and masks, with drawn numbers."""
    module = models.create(model, 7)
    images = jnp.zeros((1, size, size, 3))
    shapes = jax.eval_shape(lambda key: module.init(key, images, train=False), jax.random.key(0))
    params = shapes["params"]
    moments = jax.eval_shape(training.adam(0.9, 1e-4).init, params)
    rng = np.random.default_rng(0)
    drawn = jax.tree.map(
        lambda leaf: rng.standard_normal(leaf.shape).astype(leaf.dtype),
        {"variables": dict(shapes), "moments": moments},
    )
    return drawn | {"masks": jax.device_get(masks.full_masks(drawn["variables"]["params"]))}


def size_of(place: Path) -> int:
    """Bytes of a file, or of all files below a directory."""
    files = [place] if place.is_file() else [p for p in place.rglob("*") if p.is_file()]
    return sum(path.stat().st_size for path in files)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet34")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="append the rows to this file")
    options = parser.parse_args()
    tree = state(options.model, options.size)
    leaves = jax.tree.leaves(tree)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        place, numpy = Path(folder) / "checkpoint", Path(folder) / "arrays.npz"
        behind = Path(folder) / "behind"
        alive = jax.tree.leaves(tree["masks"])
        drawn = np.random.default_rng(0).standard_normal
        sums = [drawn((1, GROUPS + 1, mask.size), np.float32) for mask in alive]
        key, devices = {"pass": "scoring"}, jax.local_devices()[:1]
        sums_path, masks_path = Path(folder) / "sums", Path(folder) / "chosen"
        waiting: list[Any] = []

        def packed() -> Snapshot:
            return Snapshot(1, [masks.pack(mask) for mask in alive])

        def begin() -> None:
            waiting.append(checkpoint.begin_save(behind, tree))

        def save() -> None:
            while waiting:  # what the row before has left to do is no part of this one
                waiting.pop()()
            checkpoint.save(place, tree)

        work = {
            "save, until it returns": begin,
            BASE: save,
            "NumPy": lambda: np.savez(numpy, *leaves),
            "checksums": lambda: checkpoint.damaged_files(place),
            "restore": lambda: checkpoint.restore(place, tree),
            "masks, kept": lambda: resumable.write(masks_path, key, devices, packed()),
            "sums, kept": lambda: resumable.write(sums_path, key, devices, Snapshot(1, sums)),
            "sums, read": lambda: resumable.read(sums_path, key, devices),
        }
        rows = table(interleaved(work, options.repeats), BASE)
        while waiting:
            waiting.pop()()
        sizes = {"save": size_of(place), "NumPy": size_of(numpy)}
        for what, name in (("masks, kept", "chosen"), ("sums, kept", "sums")):
            sizes[what] = sum(size_of(path) for path in Path(folder).glob(f"{name}.*"))
    held = sum(leaf.nbytes for leaf in leaves)
    print(f"{options.model}: {held / 1e6:.0f} MB of arrays")
    for row in rows:
        row["MB on disk"] = round(sizes[row["row"]] / 1e6, 1) if row["row"] in sizes else None
    show(rows)
    add_json(options.json, vars(options), rows)


if __name__ == "__main__":
    main()
