"""MNIST by writer: the embedded sample, the four files, and what is said of broken ones."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys

import numpy as np
import pytest

from fairgrape_jax import data
from fairgrape_jax.data.sources import writers
from fairgrape_jax.errors import UsageError
from tests.helpers.datasets import ROOT, assert_same, shared


def test_embedded_sample():
    calls = []
    dataset = data.load(data.source("writers"), lambda *progress: calls.append(progress))
    assert calls == [(12_000, 18_000), (14_000, 18_000), (18_000, 18_000)]
    counts = [
        np.bincount(s.groups).tolist() for s in (dataset.train, dataset.validation, dataset.test)
    ]
    assert counts == [[9_500, 2_500], [1_000, 1_000], [2_000, 2_000]]
    assert dataset.groups == ("employees", "students")
    assert dataset.shape == (28, 28, 1)
    assert dataset.train.labels.dtype == dataset.train.groups.dtype == np.int32
    assert writers.SAMPLE.with_name("LICENSE-MNIST.txt").read_text().count("CC BY-SA 3.0")


def test_embedded_sample_at_another_size_and_share():
    options = {
        "size": 14,
        "limit": 800,
        "limit_evaluation": 100,
        "minority": "students",
        "share": 0.05,
    }
    dataset = data.load(data.source("writers", **options))
    assert dataset.shape == (14, 14, 1)
    np.testing.assert_array_equal(np.bincount(dataset.train.groups), [760, 40])
    np.testing.assert_array_equal(np.bincount(dataset.test.groups), [50, 50])
    assert_same(dataset, data.load(data.source("writers", **options)))


def test_embedded_sample_is_mnist_at_its_index():
    folder = shared("mnist")
    with np.load(writers.SAMPLE) as arrays:
        sample = dict(arrays)
    for split, part, count in (
        ("train", "train", 60_000),
        ("validation", "train", 60_000),
        ("test", "t10k", 10_000),
    ):
        images, labels = writers.read_idx(folder, part, count)
        index = sample[f"{split}_index"]
        np.testing.assert_array_equal(sample[f"{split}_images"], images[index])
        np.testing.assert_array_equal(sample[f"{split}_labels"], labels[index])
        student = index <= 5000 if split == "test" else (index < 58_100) & (index % 2 == 0)
        np.testing.assert_array_equal(sample[f"{split}_groups"], student)
        assert len(np.unique(index)) == len(index)
    assert sample["train_index"].max() < sample["validation_index"].min()


@pytest.mark.whole
def test_sample_script_gives_the_embedded_bytes(tmp_path):
    folder, out = shared("mnist"), tmp_path / "writers.npz"
    command = [sys.executable, "-m", "experiments.make_writers_sample", folder, "--out", out]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    digest = hashlib.sha256(out.read_bytes()).hexdigest()
    assert digest in done.stdout
    with np.load(out) as drawn, np.load(writers.SAMPLE) as embedded:
        for name in embedded:
            np.testing.assert_array_equal(drawn[name], embedded[name])


@pytest.mark.parametrize("damage", ["missing", "truncated", "changed"])
def test_corrupt_embedded_sample(damage, tmp_path, monkeypatch):
    copy = tmp_path / "writers.npz"
    content = bytearray(writers.SAMPLE.read_bytes())
    content[5000] ^= 1
    if damage != "missing":
        copy.write_bytes(content if damage == "changed" else content[:1000])
    monkeypatch.setattr(writers, "SAMPLE", copy)
    with pytest.raises(UsageError, match=r"embedded sample writers.npz is corrupt: reinstall"):
        data.load(data.source("writers"))


@pytest.mark.parametrize("dotted", [False, True])
def test_full_set_from_idx_files(dotted, tmp_path):
    for path in shared("mnist").glob("*.gz"):
        name = path.name.replace("-idx", ".idx") if dotted else path.stem
        content = path.read_bytes() if dotted else gzip.decompress(path.read_bytes())
        (tmp_path / name).write_bytes(content)
    dataset = data.load(data.source("writers", path=str(tmp_path)))
    counts = [
        np.bincount(s.groups).tolist() for s in (dataset.train, dataset.validation, dataset.test)
    ]
    assert counts == [[29_950, 28_050], [1_000, 1_000], [4_999, 5_001]]
    embedded = data.load(data.source("writers")).validation
    np.testing.assert_array_equal(dataset.validation.images, embedded.images)


def idx(magic: int, shape: tuple[int, ...], n: int) -> bytes:
    return np.array([magic, *shape], ">u4").tobytes() + bytes(n)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none", b"", r"no train-images-idx3-ubyte\[.gz\]"),
        ("train-images-idx3-ubyte", b"abc", r"starts with \[\], expected.*2051"),
        (
            "train-images-idx3-ubyte",
            idx(0x803, (10, 28, 28), 10),
            r"starts with \[2051, 10, 28, 28\], expected .*\[2051, 60000, 28, 28\]",
        ),
        (
            "train-images-idx3-ubyte",
            idx(0x803, (60_000, 28, 28), 10),
            "10 bytes of data, expected 47040000",
        ),
        ("train-images-idx3-ubyte.gz", b"no gzip at all", "cannot be read"),
        ("train-images-idx3-ubyte.gz", gzip.compress(bytes(99), mtime=0)[:-9], "cannot be read"),
    ],
)
def test_unusable_idx_files(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        data.load(data.source("writers", path=str(tmp_path)))
    with pytest.raises(UsageError, match=name if name != "none" else "four IDX files"):
        writers.read_folder(tmp_path)
