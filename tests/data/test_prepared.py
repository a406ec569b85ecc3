"""Prepared datasets on reading: splits, folds, labels and groups by options of the run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairgrape_jax import data
from fairgrape_jax.data.sources import prepared, splits
from fairgrape_jax.data.sources.stored import stored_in
from fairgrape_jax.errors import UsageError
from tests.helpers import layouts
from tests.helpers.datasets import made, source


def test_faces_of_one_picture_and_equal_files_stay_together(tmp_path):
    made("fair_face", layouts.fairface(tmp_path / "from"), tmp_path)
    made("utk_face", layouts.utkface(tmp_path / "utk"), tmp_path)
    for name in ("fair_face", "utk_face"):
        columns = stored_in(tmp_path / name / "1.0.0").columns
        for options in ({}, {"fold": "2/5"}, {"seed": 3}):
            parts = splits.sides(columns, source(tmp_path, name, **options).division)
            for key in ("source", "digest"):
                held = [set(columns[key][part].tolist()) for part in parts]
                assert not held[0] & held[1]
                assert not (held[0] | held[1]) & held[2]
            together = np.concatenate(parts)
            assert sorted(together.tolist()) == list(range(len(columns["name"])))
        sizes = np.array(
            [len(part) for part in splits.sides(columns, source(tmp_path, name).division)]
        )
        np.testing.assert_allclose(sizes / sizes.sum(), [0.8, 0.1, 0.1], atol=0.03)


def test_folds_test_on_every_picture_once(tmp_path):
    made("folder_csv", layouts.folder(tmp_path / "from"), tmp_path, source="person")
    columns = stored_in(tmp_path / "folder_csv" / "1.0.0").columns
    parts = [
        splits.sides(columns, source(tmp_path, "folder_csv", fold=f"{i}/5").division)
        for i in range(1, 6)
    ]
    tested = np.concatenate([test for _, _, test in parts])
    assert sorted(tested.tolist()) == list(range(30))
    for i in range(5):  # the next part validates
        np.testing.assert_array_equal(parts[i][1], parts[(i + 1) % 5][2])
    for _, _, test in parts:
        people = set(columns["source"][test].tolist())
        assert np.isin(columns["source"], list(people)).sum() == len(test)


@pytest.mark.parametrize("fold", ["0/5", "6/5", "1/2", "1", "a/b", "1/99"])
def test_impossible_folds_are_named(fold, tmp_path):
    made("folder_csv", layouts.folder(tmp_path / "from"), tmp_path)
    with pytest.raises(UsageError, match=f"fold='?{fold}"):
        data.load(source(tmp_path, "folder_csv", fold=fold))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "mood"}, "label='mood'.*known: label"),
        ({"group": "label"}, "group='label'.*known: group"),
        ({"split_by": "name"}, "split_by='name'"),
        ({"split_by": "given"}, "has the splits full"),
        ({"dataset": ""}, "dataset is empty"),
        ({"dataset": "cats"}, "no prepared dataset; `fairgrape data prepare cats"),
    ],
)
def test_impossible_options_of_prepared_data(options, message, tmp_path):
    made("folder_csv", layouts.folder(tmp_path / "from"), tmp_path)
    with pytest.raises(UsageError, match=message):
        data.load(prepared.Prepared(**{"path": str(tmp_path), "dataset": "folder_csv"} | options))


@pytest.mark.parametrize(
    ("reading", "message"),
    [
        (data.Reading("ram"), "cache: 'ram' is not"),
        (data.Reading(workers=-1), "workers: -1"),
    ],
)
def test_impossible_ways_of_reading(reading, message, tmp_path):
    made("folder_csv", layouts.folder(tmp_path / "from"), tmp_path)
    with pytest.raises(UsageError, match=message):
        data.load(source(tmp_path, "folder_csv"), reading=reading)


ODD_KINDS = ("turned", "cmyk", "16 bits", "palette", "clear palette", "alpha", "grey", "1 bit")


def odd_faces(place: Path) -> Path:
    """Pictures of every kind and shape under names of UTKFace, of which some are large."""
    place.mkdir()
    rng = np.random.default_rng(0)
    for i in range(320):
        shape = [(30, 20), (20, 30), (200, 200), (400, 300)][i // 8 % 4]
        pixels = Image.fromarray(rng.integers(0, 256, (6, 5, 3), np.uint8)).resize(shape)
        options, suffix = {}, "png"
        match ODD_KINDS[i % 8]:
            case "turned":
                exif = Image.Exif()
                exif[0x0112] = 1 + i // 8 % 8
                options, suffix = {"exif": exif}, ("jpg", "png", "webp")[i // 8 % 3]
            case "cmyk":
                pixels, suffix = pixels.convert("CMYK"), "jpg"
            case "16 bits":
                grey = np.asarray(pixels.convert("L")).astype(np.uint16) * 251
                pixels, suffix = Image.fromarray(grey), ("png", "tif")[i // 8 % 2]
            case "palette":
                pixels, suffix = pixels.convert("P"), ("png", "gif")[i // 8 % 2]
            case "clear palette":
                pixels, options = pixels.convert("P"), {"transparency": bytes(range(200))}
            case "alpha":
                pixels.putalpha(pixels.convert("L"))
            case "grey":
                pixels, suffix = pixels.convert("L"), ("jpg", "png", "pgm")[i // 8 % 3]
            case "1 bit":
                pixels = pixels.convert("1")
        pixels.save(place / f"{1 + i % 90}_{i % 2}_{i // 2 % 4}_2017{i:05}.{suffix}", **options)
    return place


def broken_faces(place):
    """UTKFace of which every seventh file is no whole picture: cut at any length, or altered."""
    layouts.utkface(place)
    for i, file in enumerate(sorted(place.glob("*.jpg"))[::7]):
        whole = file.read_bytes()
        cut = (0, 1, 2, 30, len(whole) // 2, len(whole) - 20, len(whole) - 2)
        altered = (b"text", b"\x89PNG" + whole, whole[:200] + bytes(len(whole)), whole[2:])
        file.write_bytes([*(whole[:end] for end in cut), *altered][i % 11])
    return place


@pytest.fixture(scope="module", params=[layouts.utkface, odd_faces, broken_faces])
def faces(request, tmp_path_factory):
    """Pictures under names of UTKFace, and the folder of what was prepared of them."""
    folder = tmp_path_factory.mktemp("faces")
    place = request.param(folder / "from")
    made("utk_face", place, folder, allow="broken")
    return place, folder


@pytest.mark.whole(but=1)
@pytest.mark.parametrize("size", [8, 24, 160, 224])
def test_utkface_prepared_is_the_utkface_source_bit_for_bit(faces, size):
    place, folder = faces
    for ours, theirs in (({}, {}), ({"split_by": "source"}, {"split_by": "name"})):
        old = data.load(data.source("utkface", path=str(place), size=size, **theirs))
        new = data.load(source(folder, "utk_face", size=size, **ours))
        for split in ("train", "validation", "test"):
            one, other = getattr(old, split), getattr(new, split)
            for a, b in zip(one.evidence(), other.evidence(), strict=True):
                np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(one.names, other.names)
            np.testing.assert_array_equal(one.take(np.array([2, 0])).names, one.names[[2, 0]])
        assert (old.tasks, old.groups, old.mean, old.std) == (
            new.tasks,
            new.groups,
            new.mean,
            new.std,
        )


def test_a_product_of_groups_and_a_rare_one(tmp_path):
    made("fair_face", layouts.fairface(tmp_path / "from"), tmp_path)
    stored = stored_in(tmp_path / "fair_face" / "1.0.0")
    names, ids = prepared.group_column(stored, source(tmp_path, "", group="race+gender"))
    assert len(names) == 14
    assert names[:3] == ("White Male", "White Female", "Black Male")
    values = stored.columns["values"]
    np.testing.assert_array_equal(ids, 2 * values[:, 0] + values[:, 1])
    rare = data.load(source(tmp_path, "fair_face", minority="Indian", share=0.05))
    counts = np.bincount(rare.train.groups)
    assert counts[5] / counts.sum() < 0.06
    given = data.load(source(tmp_path, "fair_face", split_by="given", group="gender", seed=1))
    assert len(given.validation) == 28
    assert len(given.test) == 24  # a tenth of the sources of train, two faces each
