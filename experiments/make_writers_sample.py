"""Draw the MNIST sample that the package embeds: python -m experiments.make_writers_sample FOLDER

FOLDER holds MNIST's four IDX files. Takes seconds; equal files give equal bytes (with the same
zlib), so the printed sha256 is that of `writers.SAMPLE_SHA256`.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np

from fairgrape_jax.data.sources import writers

SEED = 42
# (employees, students). Training digits come from indices before the validation block, which is
# taken whole: disjoint ranges, because MNIST lists employees writer by writer, and a random draw
# would put most of them on both sides. Students' order is shuffled: theirs cannot be parted.
TRAIN = (9_500, 2_500)
TEST = (2_000, 2_000)


def drawn(groups: np.ndarray, counts: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Ascending indices of `counts[g]` random samples of each group g; groups: (N,)."""
    parts = [
        rng.choice(np.flatnonzero(groups == group), count, replace=False)
        for group, count in enumerate(counts)
    ]
    return np.sort(np.concatenate(parts))


def sample(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of the sample: images, labels, groups and original index of each split."""
    rng = np.random.default_rng(SEED)
    before = np.arange(writers.VALIDATION.start)
    indices = {
        "train": drawn(writers.population(before, test=False), TRAIN, rng),
        "validation": np.array(writers.VALIDATION),
        "test": drawn(writers.population(np.arange(10_000), test=True), TEST, rng),
    }
    files = {
        "train": writers.read_idx(folder, "train", 60_000),
        "test": writers.read_idx(folder, "t10k", 10_000),
    }
    arrays = {}
    for split, index in indices.items():
        images, labels = files["test" if split == "test" else "train"]
        groups = writers.population(index, test=split == "test")
        arrays[f"{split}_images"] = images[index]
        arrays[f"{split}_labels"] = labels[index]
        arrays[f"{split}_groups"] = groups.astype(np.uint8)
        arrays[f"{split}_index"] = index.astype(np.int32)
    return arrays


def packed(arrays: dict[str, np.ndarray]) -> bytes:
    """An .npz of the arrays without time stamps, so that equal arrays give equal bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy")  # dated 1980 unless told otherwise
            entry.create_system = 3  # as on Unix, wherever this runs
            archive.writestr(entry, content.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)
    return out.getvalue()


def main() -> None:
    """Write the sample into the package; print what it holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with MNIST's four IDX files")
    parser.add_argument("--out", type=Path, default=writers.SAMPLE, help="file to write")
    options = parser.parse_args()
    arrays = sample(options.folder)
    content = packed(arrays)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_bytes(content)
    for split in ("train", "validation", "test"):
        counts = np.bincount(arrays[f"{split}_groups"])
        named = ", ".join(f"{n:,} {g}" for g, n in zip(writers.GROUPS, counts, strict=True))
        print(f"{split}: {named}")
    print(f"{options.out}: {len(content):,} bytes, sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
