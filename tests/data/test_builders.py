"""Builders: each from an imitation of its real layout, killed and resumed, and from real data."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from fairgrape_jax import data
from fairgrape_jax.data.builders import BUILDERS, builder, check, prepare
from fairgrape_jax.data.sources.stored import stored_in
from fairgrape_jax.errors import UsageError
from fairgrape_jax.storage import lock
from tests.helpers import layouts
from tests.helpers.datasets import ROOT, made, shared, source

COUNTS = {
    "fair_face": {"train": 252, "validation": 28},
    "utk_face": {"full": 144 + 20 + 2},
    "celeb_a_attributes": {"full": 80},
    "imagenet_people": {"full": 20},
    "imagenet2012": {"train": 24, "validation": 6},
    "folder_csv": {"full": 30},
    "image_folder": {"train": 24, "test": 6},
    "hf_parquet": {"train": 24, "test": 6},
}


@pytest.mark.parametrize("name", BUILDERS)
def test_each_builder_prepares_its_layout_and_tfds_reads_it(name, tmp_path):
    import tensorflow_datasets as tfds

    directory = made(name, layouts.LAYOUTS[name](tmp_path / "from"), tmp_path / "to")
    stored = stored_in(directory)
    found = {
        s: int(n)
        for s, n in zip(
            *np.unique(stored.columns["split"].astype(str), return_counts=True), strict=True
        )
    }
    assert found == COUNTS[name]
    # With the version: TFDS has a builder of its own for imagenet2012, of another version.
    read = tfds.data_source(f"{name}:1.0.0", data_dir=str(tmp_path / "to"))
    assert {split: len(rows) for split, rows in read.items()} == COUNTS[name]
    # TFDS gives the same pictures with the same values, in the same order.
    at = 0
    for split in dict.fromkeys(stored.columns["split"].astype(str)):
        for row in (read[split][i] for i in range(0, len(read[split]), 7)):
            i = at + list(stored.columns["name"][at:]).index(
                row["name"].encode() if isinstance(row["name"], str) else row["name"]
            )
            for k, column in enumerate(stored.about["columns"]):
                assert row[column["name"]] == stored.columns["values"][i, k]
            assert row["image"].ndim == 3
        at += len(read[split])
    lines, sound = check.check(source(tmp_path / "to", name))
    assert sound
    assert f"{name}: {sum(COUNTS[name].values())} pictures" in lines[0]


@pytest.mark.parametrize("holder", ["folder", "zip", "tar.gz"])
def test_celeba_from_a_folder_a_zip_or_a_tar(holder, tmp_path):
    made("celeb_a_attributes", layouts.celeba(tmp_path / "from", holder), tmp_path / "to")
    dataset = data.load(source(tmp_path / "to", "celeb_a_attributes", label="all"))
    assert [task.name for task in dataset.tasks] == ["Bald", "Smiling", "Young"]
    assert dataset.groups == ("no", "yes")
    assert sum(map(len, (dataset.train, dataset.validation, dataset.test))) == 80


def test_imagenet_from_tars_and_from_folders_is_the_same(tmp_path):
    for holder in ("tar", "folder"):
        place = layouts.imagenet(tmp_path / holder / "from", holder)
        made("imagenet2012", place, tmp_path / holder)
    by_tar, by_folder = (
        stored_in(tmp_path / h / "imagenet2012" / "1.0.0") for h in ("tar", "folder")
    )
    for column in ("name", "values", "digest", "split"):
        np.testing.assert_array_equal(by_tar.columns[column], by_folder.columns[column])


def test_groups_of_imagenet_from_a_table(tmp_path):
    place = layouts.imagenet(tmp_path / "from")
    names = [f"{s}_{i}.JPEG" for s in layouts.SYNSETS for i in range(8)]
    names += [f"ILSVRC2012_val_{i:08}.JPEG" for i in range(1, 7)]
    rows = [(name, ("indoors", "outdoors")[i % 2]) for i, name in enumerate(names)]
    layouts.table(place / "groups.csv", ("file", "group"), rows)
    made("imagenet2012", place, tmp_path, groups=str(place / "groups.csv"))
    dataset = data.load(source(tmp_path, "imagenet2012", split_by="given"))
    assert dataset.groups == ("indoors", "outdoors")
    assert dataset.classes == (3,)
    assert len(dataset.validation) == 6


def test_people_are_filtered_as_the_paper_says(tmp_path):
    made("imagenet_people", layouts.people(tmp_path / "from"), tmp_path)
    stored = stored_in(tmp_path / "imagenet_people" / "1.0.0")
    assert stored.about["columns"][0]["classes"] == ["n10000001", "n10000002"]
    notes = "\n".join(stored.about["notes"])
    for text in (
        "12 pictures of an unsafe synset",
        "12 pictures of a synset with imageability below 4",
        "6 pictures without one sure gender",
        "1 pictures of a class with fewer than 10",
    ):
        assert f"{text} left out" in notes


def test_tfds_load_reads_what_was_prepared_with_tfrecord(tmp_path):
    if importlib.util.find_spec("tensorflow") is None:
        place = layouts.folder(tmp_path / "from")
        with pytest.raises(UsageError, match="needs TensorFlow"):
            prepare.prepare(
                "folder_csv",
                place,
                builder("folder_csv").options(),
                data_dir=tmp_path,
                tfrecord=True,
            )
        pytest.skip("tensorflow is not installed: tfds.load cannot run")
    import tensorflow_datasets as tfds

    place = layouts.fairface(tmp_path / "from")
    kind = builder("fair_face").options
    prepare.prepare("fair_face", place, kind(), data_dir=tmp_path, tfrecord=True)
    loaded = tfds.load("fair_face", data_dir=str(tmp_path), split="validation")
    random_access = tfds.data_source("fair_face", data_dir=str(tmp_path), split="validation")
    rows = list(loaded.as_numpy_iterator())
    assert len(rows) == len(random_access) == 28
    for row, same in zip(rows, random_access, strict=True):
        # TensorFlow decodes with another DCT than Pillow.
        np.testing.assert_allclose(row["image"].astype(int), same["image"].astype(int), atol=8)
        assert row["race"] == same["race"]


# --- stopping and going on


SLOW = """
import sys, time
from pathlib import Path
from fairgrape_jax.data.builders import fair_face, prepare
from fairgrape_jax.data.images import decode
fault = decode.fault
def slow(content):
    time.sleep(0.004)
    return fault(content)
decode.fault = slow
prepare.prepare("fair_face", Path(sys.argv[1]), fair_face.FairFace(), data_dir=Path(sys.argv[2]),
                shard_bytes=8_000, progress=lambda done, n: print(done, flush=True))
"""


def test_preparation_killed_goes_on_and_gives_the_same(tmp_path):
    place = layouts.fairface(tmp_path / "from")
    made("fair_face", place, tmp_path / "whole")
    work = tmp_path / "work"
    command = [sys.executable, "-c", SLOW, str(place), str(work)]
    killed = 0
    for wanted in (40, 150):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for text in process.stdout:
            if text.strip().isdecimal() and int(text) >= wanted:
                process.send_signal(signal.SIGKILL)
                killed += 1
                break
        process.stdout.close()
        process.wait()
        assert not (work / "fair_face" / "1.0.0").exists()
        shards = sorted((work / "fair_face" / ".1.0.0.partial").glob("shard-*.json"))
        assert len(shards) > 3
    assert killed == 2
    written = {path: path.stat().st_mtime_ns for path in shards}
    time.sleep(0.01)
    calls = []
    kind = builder("fair_face").options
    prepare.prepare(
        "fair_face",
        place,
        kind(),
        data_dir=work,
        shard_bytes=8_000,
        progress=lambda *a: calls.append(a),
    )
    assert calls[-1] == (280, 280)
    assert not (work / "fair_face" / ".1.0.0.partial").exists()
    whole, again = (stored_in(p / "fair_face" / "1.0.0") for p in (tmp_path / "whole", work))
    for key, column in whole.columns.items():
        np.testing.assert_array_equal(column, again.columns[key])
    assert all(whole.records.content(i) == again.records.content(i) for i in range(280))
    assert len(written) > 3


def test_two_cannot_prepare_at_once(tmp_path):
    place = layouts.folder(tmp_path / "from")
    with (
        lock.hold(tmp_path / "folder_csv" / ".1.0.0.partial.lock"),
        pytest.raises(UsageError, match="is being written by process"),
    ):
        made("folder_csv", place, tmp_path)
    made("folder_csv", place, tmp_path)


# --- the real pictures


@pytest.mark.slow
def test_all_of_utkface(tmp_path):
    directory = made("utk_face", shared("utkface"), tmp_path, shard_bytes=1 << 26)
    stored = stored_in(directory)
    races = np.bincount(stored.columns["values"][:, 1])
    np.testing.assert_array_equal(races, [10_078, 4_526, 3_434, 3_975])
    alone = check.duplicates(stored, source(tmp_path, "utk_face"))
    assert (alone.extra, len(alone.sets)) == (331, 317)
    everything = made("utk_face", shared("utkface"), tmp_path, "all_faces", 1 << 26, others=True)
    lines, sound = check.check(source(tmp_path, "all_faces"))
    text = "\n".join(lines)
    assert sound
    assert "390 files equal others, in 375 sets" in text
    columns = stored_in(everything).columns
    found = check.duplicates(stored_in(everything), source(tmp_path, "all_faces"))
    copies = [sorted(s, key=lambda i: columns["name"][i])[1:] for s in found.sets]
    race = columns["values"][np.concatenate(copies), 1]
    assert (race != 4).sum() == 336  # 5 of them equal a picture of "Others" alone
    assert "40 in gender disagree, 70 in race disagree" in text


@pytest.mark.slow
def test_ten_thousand_of_celeba(tmp_path):
    place = shared("celeba")
    made(
        "celeb_a_attributes",
        place,
        tmp_path,
        shard_bytes=1 << 26,
        attributes=str(place / "list_attr_celeba_10000.txt"),
    )
    dataset = data.load(source(tmp_path, "celeb_a_attributes", label="all", size=64))
    assert len(dataset.tasks) == 39
    assert sum(map(len, (dataset.train, dataset.validation, dataset.test))) == 10_000
    assert json.loads(json.dumps(dataclasses.asdict(dataset.tasks[0])))["classes"] == ["no", "yes"]
