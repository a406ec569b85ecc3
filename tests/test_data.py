"""Datasets: what is read, in which order, and what is said when it cannot be."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairgrape_jax import data
from fairgrape_jax.data import pipeline, utkface, writers
from fairgrape_jax.data.source import apportion, limited, with_share
from fairgrape_jax.data.types import Dataset, Split, Task
from fairgrape_jax.errors import UsageError

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("FAIRGRAPE_SHARED", ROOT.parent / "shared"))


def shared(name: str) -> Path:
    path = SHARED / "data" / name
    if not path.exists():
        pytest.skip(f"data/{name} is not at hand: set FAIRGRAPE_SHARED to the folder that holds it")
    return path


def assert_same(a: Dataset, b: Dataset) -> None:
    for name in ("train", "validation", "test"):
        for field in ("images", "labels", "groups"):
            x, y = (getattr(getattr(d, name), field) for d in (a, b))
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)
    assert (a.tasks, a.groups, a.notes) == (b.tasks, b.groups, b.notes)


def split_of(counts: list[int]) -> Split:
    """Shuffled groups of the given sizes; every label is its sample's number."""
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    n = len(groups)
    numbers = np.arange(n, dtype=np.int32)[:, None]
    return Split(np.zeros((n, 2, 2, 1), np.uint8), numbers, groups.astype(np.int32))


# --- shares and limits


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ([950, 500], 0.05, [950, 50]),  # exact
        ([100, 100], 0.3, [100, 43]),  # 42.86 rounds to the nearest
        ([900, 10], 0.05, [190, 10]),  # too few members: others go
        ([5, 5], 0.001, [5, 1]),  # never none
    ],
)
def test_with_share_is_exact(counts, share, expected):
    split = split_of(counts)
    kept = with_share(split, 1, share, seed=3)
    np.testing.assert_array_equal(np.bincount(kept.groups), expected)
    assert np.all(np.diff(kept.labels[:, 0]) > 0), "samples stay in their order"
    np.testing.assert_array_equal(kept.labels, with_share(split, 1, share, seed=3).labels)


def test_with_share_among_many_groups_and_seeds():
    split = split_of([60, 40, 50])
    kept = with_share(split, 1, 0.5, seed=0)  # too few members for half: 40 of the others stay
    assert np.count_nonzero(kept.groups == 1) == 40
    assert len(kept) == 80
    other = with_share(split, 1, 0.5, seed=1)
    assert not np.array_equal(kept.labels, other.labels)


@pytest.mark.parametrize("group", [1, 2])
def test_with_share_needs_members_and_others(group):
    with pytest.raises(UsageError, match=f"group {group} has"):
        with_share(
            Split(*(np.ones((4, 1, 1, 1), np.uint8),) * 2, np.ones(4, np.int32)), group, 0.1, 0
        )


def test_limited_keeps_shares_and_every_group():
    split = split_of([600, 300, 97, 3])
    np.testing.assert_array_equal(np.bincount(limited(split, 100, 0).groups), [60, 30, 9, 1])
    np.testing.assert_array_equal(np.bincount(limited(split, 2, 0).groups), [1, 1, 1, 1])
    assert len(limited(split, 5000, 0)) == 1000
    kept = limited(split, 100, 7).labels[:, 0]
    assert np.all(np.diff(kept) > 0)
    np.testing.assert_array_equal(kept, limited(split, 100, 7).labels[:, 0])


def test_apportion_adds_up():
    rng = np.random.default_rng(0)
    for _ in range(200):
        weights = rng.integers(0, 50, 6) + np.eye(6, dtype=int)[0]
        total = int(rng.integers(6, weights.sum() + 6))
        counts = apportion(weights, total)
        assert counts.sum() == total
        np.testing.assert_array_equal(counts > 0, weights > 0)
        if total <= weights.sum():
            assert np.all(counts <= weights)


# --- options and the table


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "shape"}, "label='shape'.*known: class"),
        ({"group": "hair"}, "group='hair'.*known: group"),
        ({"minority": "group 9", "share": 0.1}, "minority='group 9'.*known: group 0"),
        ({"minority": "group 1"}, "share=0.0"),
        ({"minority": "group 1", "share": 1.0}, "share=1.0"),
        ({"share": 0.2}, "without a minority"),
        ({"limit": -1}, "limit=-1"),
        ({"size": -1}, "size=-1"),
        ({"seed": -1}, "seed=-1"),
        ({"path": "somewhere"}, "leave path empty"),
        ({"groups": 0}, "groups=0"),
        ({"noise": -1.0}, "noise=-1.0"),
        ({"imbalance": 2.0}, "imbalance=2.0"),
        ({"samples": 39}, "at least 40"),
    ],
)
def test_impossible_options_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        data.load(data.source("synthetic", **options))


def test_unknown_dataset_and_option():
    with pytest.raises(UsageError, match=r"'celeba'.*writers, utkface, synthetic"):
        data.source("celeba")
    with pytest.raises(UsageError, match=r"no option 'colour'.*path"):
        data.source("writers", colour=3)
    with pytest.raises(UsageError, match="unknown"):
        data.load(data.Source())
    assert data.source("utkface", others=True) == utkface.UTKFace(others=True)
    assert all(kind.name == name for name, (kind, _) in data.SOURCES.items())


def test_data_needs_no_accelerator_library():
    code = (
        "import sys, fairgrape_jax.data\n"
        "heavy = {'jax', 'tensorflow', 'tensorflow_datasets', 'matplotlib', 'PIL'}\n"
        "print(heavy & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


# --- check


def broken(**changes) -> Dataset:
    """A sound dataset but for the changes to its test split."""
    sound = data.load(data.source("synthetic", samples=100, groups=2, size=4))
    return dataclasses.replace(sound, test=dataclasses.replace(sound.test, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": np.zeros(10, np.int32)}, "test: no sample of group 'group 1'"),
        ({"groups": np.full(10, 2, np.int32)}, "test: group 2 is out of range"),
        ({"labels": np.full((10, 1), 4, np.int32)}, "test: label 4 of task 'class'.* 4 classes"),
        ({"labels": np.full((10, 1), -1, np.int32)}, "test: label -1"),
        ({"labels": np.zeros((9, 1), np.int32)}, "10 images, 9 labels and 10 groups"),
        ({"labels": np.zeros((10, 2), np.int32)}, r"give \(N, 1\)"),
        ({"images": np.zeros((10, 4, 4, 3), np.float32)}, "float32, give uint8"),
        ({"images": np.zeros((10, 4, 4), np.uint8)}, "shape"),
        ({"images": np.zeros((10, 5, 4, 3), np.uint8)}, "in train"),
    ],
)
def test_check_names_what_is_wrong(changes, message):
    with pytest.raises(UsageError, match=message):
        data.check(broken(**changes))


# --- synthetic


def test_synthetic_is_deterministic_and_complete():
    options = {"samples": 400, "groups": 5, "imbalance": 0.3, "tasks": 2, "channels": 1, "size": 12}
    dataset = data.load(data.source("synthetic", **options))
    assert_same(dataset, data.load(data.source("synthetic", **options)))
    assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [320, 40, 40]
    assert dataset.shape == (12, 12, 1)
    assert dataset.classes == (4, 4)
    assert len(dataset.mean) == 1
    assert np.bincount(dataset.test.groups).min() >= 1
    other = data.load(data.source("synthetic", **options, seed=1))
    assert not np.array_equal(dataset.train.images, other.train.images)


def test_synthetic_classes_can_be_learnt_and_groups_differ():
    dataset = data.load(data.source("synthetic", samples=5000, size=8, imbalance=1.0))

    def features(split: Split) -> np.ndarray:
        pixels = split.images.reshape(len(split), -1) / 64 - 2
        return np.c_[pixels, np.eye(4)[split.groups]]

    answers = np.eye(4)[dataset.train.labels[:, 0]]
    weights = np.linalg.lstsq(features(dataset.train), answers, rcond=None)[0]
    right = (features(dataset.test) @ weights).argmax(1) == dataset.test.labels[:, 0]
    rates = [right[dataset.test.groups == group].mean() for group in range(4)]
    assert rates[0] > 0.9
    assert 0.35 < rates[3] < rates[0] - 0.1


def test_share_and_limit_reach_the_splits():
    options = {"samples": 4000, "groups": 2, "imbalance": 1.0, "size": 4, "limit": 400}
    dataset = data.load(data.source("synthetic", **options, minority="group 1", share=0.1))
    np.testing.assert_array_equal(np.bincount(dataset.train.groups), [360, 40])
    for split in (dataset.validation, dataset.test):
        np.testing.assert_array_equal(np.bincount(split.groups), [25, 25])


# --- writers


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
    assert (ROOT / "fairgrape_jax/data/samples/LICENSE-MNIST.txt").read_text().count("CC BY-SA 3.0")


def test_embedded_sample_at_another_size_and_share():
    options = {"size": 14, "limit": 800, "minority": "students", "share": 0.05}
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
        ("train-images-idx3-ubyte.gz", gzip.compress(bytes(99))[:-9], "cannot be read"),
    ],
)
def test_unusable_idx_files(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        data.load(data.source("writers", path=str(tmp_path)))
    with pytest.raises(UsageError, match=name if name != "none" else "four IDX files"):
        writers.read_folder(tmp_path)


# --- UTKFace

ODD = ("55_0_0_20170116232725357jpg.chip.jpg", "24_0_1_20170116220224657 .jpg.chip.jpg")
MISNAMED = "61_1_2017.jpg"
UNREADABLE = "30_1_2_20170101.jpg"


def jpeg(rng: np.random.Generator) -> bytes:
    out = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(out, "jpeg")
    return out.getvalue()


def face_files() -> dict[str, bytes]:
    """Files by base name: 240 good ones, duplicates, the odd names and two that must be skipped."""
    rng = np.random.default_rng(0)
    names = [f"{1 + i % 90}_{i % 2}_{i // 2 % 5}_2017{i:05}.jpg.chip.jpg" for i in range(240)]
    files = {name: jpeg(rng) for name in (*names, *ODD)}
    for i, name in enumerate(names[:60]):
        files[f"40_0_{i % 4}_copy{i:03}.png"] = files[name]
    return files | {MISNAMED: jpeg(rng), UNREADABLE: b"no picture", "readme.txt": b"text"}


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> dict[str, Path]:
    """The same files as a folder with subfolders, archives, and a folder of one archive."""
    top = tmp_path_factory.mktemp("faces")
    folder, held = top / "folder", top / "held"
    held.mkdir()
    for i, (name, content) in enumerate(face_files().items()):
        path = folder / f"part{i % 3}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with tarfile.open(top / "a.tar", "w") as archive:
        archive.add(folder, "UTKFace")
    packed = gzip.compress((top / "a.tar").read_bytes(), 1)
    for path in (top / "a.tgz", held / "a.tar.gz"):
        path.write_bytes(packed)
    return {"folder": folder, "tar": top / "a.tar", "tgz": top / "a.tgz", "held": held}


def read_faces(path: Path, **options) -> Dataset:
    return data.load(data.source("utkface", path=str(path), **{"size": 16} | options))


def test_folder_and_archives_give_the_same_dataset(faces):
    dataset = read_faces(faces["folder"])
    for kind in ("tar", "tgz", "held"):
        assert_same(dataset, read_faces(faces[kind]))
    assert dataset.shape == (16, 16, 3)
    assert dataset.groups == ("White", "Black", "Asian", "Indian")
    assert dataset.tasks == (Task("gender", ("male", "female")),)
    # 240 less the 48 Others, 60 copies, 2 odd names; the unreadable one is gone.
    assert sum(map(len, (dataset.train, dataset.validation, dataset.test))) == 192 + 60 + 2
    notes = "\n".join(dataset.notes)
    assert f"1 skipped, name not understood: {MISNAMED}" in notes
    assert f"1 skipped, cannot be decoded: {UNREADABLE}" in notes
    assert "48 pictures of race Others left out" in notes
    assert not any(name in notes for name in ODD)


def test_columns_of_faces(faces):
    # Not checked: ten groups are too many for so few pictures.
    dataset = utkface.load(
        utkface.UTKFace(path=str(faces["tar"]), label="age", group="both", others=True, size=8)
    )
    assert dataset.groups[:3] == ("White male", "White female", "Black male")
    assert len(dataset.groups) == 10
    assert dataset.tasks[0].classes == utkface.AGE_BANDS
    assert not any("Others" in note for note in dataset.notes)
    assert read_faces(faces["tar"], label="race").classes == (4,)
    assert read_faces(faces["tar"], group="gender").groups == ("male", "female")
    with pytest.raises(UsageError, match=r"group='age'.*known: race, gender, both"):
        read_faces(faces["tar"], group="age")
    with pytest.raises(UsageError, match="split_by='date'"):
        read_faces(faces["tar"], split_by="date")


def contents(split: Split) -> set[bytes]:
    return {picture.tobytes() for picture in split.images}


def test_equal_pictures_share_a_split(faces):
    for seed in range(5):
        dataset = read_faces(faces["tar"], seed=seed, group="gender")
        train, validation, test = map(contents, (dataset.train, dataset.validation, dataset.test))
        assert not train & validation
        assert not train & test
        assert not validation & test
        assert len(train) + len(validation) + len(test) < 254
    by_name = read_faces(faces["tar"], split_by="name")
    assert contents(by_name.train) & contents(by_name.test)
    assert len(by_name.train) in (203, 204)  # 80 % of 255, perhaps less the unreadable one


def test_only_drawn_pictures_are_decoded(faces, monkeypatch):
    decoded, pixels = [], utkface._pixels

    def counted(content: bytes, size: int) -> np.ndarray | None:
        decoded.append(size)
        return pixels(content, size)

    monkeypatch.setattr(utkface, "_pixels", counted)
    calls = []
    source = data.source("utkface", path=str(faces["tar"]), size=8, limit=64)
    dataset = data.load(source, lambda *progress: calls.append(progress))
    assert len(decoded) == 64 + 8 + 8
    assert calls[-1] == (80, 80)
    shares = np.bincount(dataset.train.groups) / len(dataset.train)
    full = read_faces(faces["tar"], size=8).train
    np.testing.assert_allclose(shares, np.bincount(full.groups) / len(full), atol=1 / 64)


def test_rare_group_of_faces(faces):
    train = read_faces(faces["tar"], minority="Indian", share=0.1).train
    counts = np.bincount(train.groups)
    assert abs(counts[3] - counts[:3].sum() / 9) <= 1


@pytest.mark.parametrize(
    ("name", "values"),
    [
        *((name, (int(name[:2]), 0, race)) for name, race in zip(ODD, (0, 1), strict=True)),
        ("116_1_4_x.jpg", (116, 1, 4)),
        ("131_0_0_x.jpg", None),
        ("20_2_0_x.jpg", None),
        ("20_1_5_x.jpg", None),
        ("-1_1_0_x.jpg", None),
        ("\u0662_1_0_x.jpg", None),
        (MISNAMED, None),
        ("portrait.jpg", None),
    ],
)
def test_fields_of_a_name(name, values):
    assert utkface.fields(name) == values


def test_unusable_paths_say_what_is_expected(tmp_path, faces):
    expected = "age_gender_race_date.jpg"
    with pytest.raises(UsageError, match=f"path is empty.*{expected}"):
        data.load(data.source("utkface"))
    with pytest.raises(UsageError, match=f"no such file.*{expected}"):
        read_faces(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=f"no picture; expected.*{expected}"):
        read_faces(tmp_path)
    (tmp_path / "note.txt").write_text("text")
    with pytest.raises(UsageError, match="no picture"):
        read_faces(tmp_path)
    with pytest.raises(UsageError, match=f"not a .tar.*{expected}"):
        read_faces(tmp_path / "note.txt")
    (tmp_path / MISNAMED).write_bytes(b"")
    with pytest.raises(UsageError, match=f"1 pictures, none with a usable name.*{expected}"):
        read_faces(tmp_path)
    (tmp_path / "20_0_4_x.jpg").write_bytes(b"")
    with pytest.raises(UsageError, match="others=True"):
        read_faces(tmp_path)
    (tmp_path / "20_0_0_x.jpg").write_bytes(b"")
    with pytest.raises(UsageError, match=f"no picture of 1 can be decoded.*{expected}"):
        read_faces(tmp_path)


@pytest.mark.parametrize("kind", ["tar", "tgz"])
def test_damaged_archive(kind, faces, tmp_path):
    damaged = tmp_path / faces[kind].name
    damaged.write_bytes(faces[kind].read_bytes()[:50_000])
    with pytest.raises(UsageError, match="fetch the archive again"):
        read_faces(damaged)
    damaged.write_bytes(b"not an archive")
    with pytest.raises(UsageError, match="fetch the archive again"):
        read_faces(damaged)


def test_group_without_samples_is_named(tmp_path, faces):
    for path in faces["folder"].rglob("*_[01]_[01]_*.chip.jpg"):
        shutil.copy(path, tmp_path)
    with pytest.raises(UsageError, match="no sample of group 'Asian'"):
        read_faces(tmp_path)


@pytest.mark.slow
def test_whole_utkface():
    dataset = read_faces(shared("utkface/utkface.tar.gz"), size=32)
    splits = (dataset.train, dataset.validation, dataset.test)
    counts = sum(np.bincount(split.groups, minlength=4) for split in splits)
    np.testing.assert_array_equal(counts, [10_078, 4_526, 3_434, 3_975])
    assert not any("skipped" in note for note in dataset.notes)
    # Whole sets of equal pictures move together, so the sizes are near 80/10/10, not exact.
    np.testing.assert_allclose([len(s) / 22_013 for s in splits], [0.8, 0.1, 0.1], atol=0.003)


# --- pipeline


def test_train_batches_follow_seed_epoch_and_step():
    split = split_of([7, 4])
    batches = list(pipeline.train_batches(split, 4, seed=1, epoch=2))
    assert len(batches) == pipeline.steps_per_epoch(11, 4) == 2
    order = pipeline.epoch_order(11, seed=1, epoch=2)
    seen = np.concatenate([batch["labels"][:, 0] for batch in batches])
    np.testing.assert_array_equal(seen, order[:8])
    assert batches[0]["images"].dtype == np.uint8
    resumed = list(pipeline.train_batches(split, 4, seed=1, epoch=2, start=1))
    np.testing.assert_array_equal(resumed[0]["labels"], batches[1]["labels"])
    assert len(resumed) == 1
    assert not np.array_equal(order, pipeline.epoch_order(11, seed=1, epoch=3))


def test_a_small_split_fills_one_batch():
    (batch,) = pipeline.train_batches(split_of([3]), 8, seed=0, epoch=0)
    assert len(batch["images"]) == 8
    assert set(batch["labels"][:, 0]) == {0, 1, 2}


def test_padded_batches_hold_every_sample_once():
    split = split_of([6, 3])
    batches = list(pipeline.padded_batches(split, 4))
    assert [len(batch["images"]) for batch in batches] == [4, 4, 4]
    whole = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    np.testing.assert_array_equal(whole["labels"][whole["valid"]], split.labels)
    np.testing.assert_array_equal(whole["groups"][whole["valid"]], split.groups)
    assert np.all(whole["labels"][~whole["valid"]] == 0)


def test_group_batches_are_pure_and_complete():
    split = split_of([100, 37, 5])
    indices, valid, group = pipeline.group_batches(split, 0.5, 8, 3, seed=0)
    assert indices.shape == valid.shape == (7 + 3 + 1, 8)
    np.testing.assert_array_equal(split.groups[indices], np.repeat(group[:, None], 8, axis=1))
    drawn = indices[valid]
    assert len(np.unique(drawn)) == len(drawn)
    np.testing.assert_array_equal(np.bincount(split.groups[drawn]), [50, 19, 3])
    again = pipeline.group_batches(split, 0.5, 8, 3, seed=0)
    np.testing.assert_array_equal(indices, again.indices)
    # Any stretch has nearly the mix of the whole: never off by more than one micro-batch.
    for i in range(len(group)):
        assert np.all(
            np.abs(np.bincount(group[:i], minlength=3) - i / 11 * np.array([7, 3, 1])) <= 1
        )


def test_ungrouped_batches_draw_the_same_samples():
    split = split_of([100, 37, 5])
    indices, valid, _ = pipeline.group_batches(split, 0.3, 8, 3, seed=4)
    mixed = pipeline.group_batches(split, 0.3, 8, 3, seed=4, grouped=False)
    assert set(mixed.indices[mixed.valid]) == set(indices[valid])
    assert not mixed.group.any()
    assert len(mixed.group) == -(-44 // 8)
    assert len(np.unique(split.groups[mixed.indices[0]])) > 1


def test_group_batches_round_up_but_not_by_floating_point():
    split = split_of([100, 10])
    drawn = pipeline.group_batches(split, 0.07, 1, 3, seed=0)  # the third group has no samples
    np.testing.assert_array_equal(np.bincount(drawn.group), [7, 1])
    everything = pipeline.group_batches(split, 1.0, 64, 2, seed=0)
    assert np.count_nonzero(everything.valid) == 110


@pytest.mark.parametrize(("fraction", "size"), [(0.0, 8), (1.5, 8), (0.5, 0)])
def test_group_batches_need_a_fraction_and_a_size(fraction, size):
    with pytest.raises(UsageError, match=r"fraction=|size="):
        pipeline.group_batches(split_of([4]), fraction, size, 1, seed=0)
