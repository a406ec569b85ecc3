"""UTKFace: names, folders and archives, splits by content, and what is skipped."""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairgrape_jax import data
from fairgrape_jax.data.dataset import Dataset, Split, Task
from fairgrape_jax.data.images import decode
from fairgrape_jax.data.sources import utkface
from fairgrape_jax.errors import UsageError
from tests.helpers.datasets import assert_same, shared

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
    assert len(by_name.train) == 203  # 80 % of 254: the unreadable one is gone before the split


def test_only_drawn_pictures_are_decoded(faces, monkeypatch):
    decoded, pixels = [], decode.decode

    def counted(content: bytes, size: int, **options) -> np.ndarray:
        decoded.append(size)
        return pixels(content, size, **options)

    monkeypatch.setattr(decode, "decode", counted)
    calls = []
    source = data.source("utkface", path=str(faces["tar"]), size=8, limit=64, limit_evaluation=8)
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
    with pytest.raises(UsageError, match=f"no picture in it; give .*{expected}"):
        read_faces(tmp_path)
    (tmp_path / "note.txt").write_text("text")
    with pytest.raises(UsageError, match="no picture"):
        read_faces(tmp_path)
    with pytest.raises(UsageError, match=rf"note\.txt: not a folder, \.tar.*{expected}"):
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
