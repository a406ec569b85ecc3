"""Builders: each from a small imitation of its real layout, and everything that can be wrong."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import layouts
import numpy as np
import pytest
from data_helpers import ROOT, shared

from fairgrape_jax import cli, data, lock
from fairgrape_jax.data import prepared, verify
from fairgrape_jax.data.builders import BUILDERS, builder
from fairgrape_jax.errors import UsageError

prepare = pytest.importorskip("fairgrape_jax.data.builders.prepare")


def made(name, place, data_dir, called="", shard_bytes=8_000, **options):
    kind = builder(name).options
    return prepare.prepare(
        name, place, kind(**options), data_dir=data_dir, called=called, shard_bytes=shard_bytes
    )


def source(data_dir: Path, name: str, **options) -> prepared.Prepared:
    return prepared.Prepared(path=str(data_dir), dataset=name, **{"size": 16} | options)


COUNTS = {
    "fair_face": {"train": 252, "validation": 28},
    "utk_face": {"full": 144 + 20 + 2},
    "celeb_a_attributes": {"full": 80},
    "imagenet_people": {"full": 20},
    "imagenet2012": {"train": 24, "validation": 6},
    "folder_csv": {"full": 30},
}


@pytest.mark.parametrize("name", BUILDERS)
def test_each_builder_prepares_its_layout_and_tfds_reads_it(name, tmp_path):
    import tensorflow_datasets as tfds

    directory = made(name, layouts.LAYOUTS[name](tmp_path / "from"), tmp_path / "to")
    stored = prepared.stored_in(directory)
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
    lines, sound = verify.check(source(tmp_path / "to", name))
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
        prepared.stored_in(tmp_path / h / "imagenet2012" / "1.0.0") for h in ("tar", "folder")
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
    stored = prepared.stored_in(tmp_path / "imagenet_people" / "1.0.0")
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


# --- what can be wrong


def edit(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def apply(place: Path) -> None:
        path = place / name
        path.write_text(change(path.read_text()))

    return apply


def remove(name: str) -> Callable[[Path], None]:
    return lambda place: next(place.rglob(name)).unlink()


def damage(name: str) -> Callable[[Path], None]:
    def apply(place: Path) -> None:
        path = next(place.rglob(name))
        path.write_bytes(path.read_bytes()[:200])

    return apply


def add(name: str) -> Callable[[Path], None]:
    return lambda place: (place / name).write_bytes(layouts.jpeg(77)) and None


def line(number: int, old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        lines = text.splitlines(keepends=True)
        assert old in lines[number - 1]
        lines[number - 1] = lines[number - 1].replace(old, new)
        return "".join(lines)

    return change


TRAIN, VAL = "fairface_label_train.csv", "fairface_label_val.csv"
PICTURES = "fairface-img-margin025-trainval"
ATTRIBUTES, JSON = "list_attr_celeba.txt", "ImageNet demographics annotations.json"
BROKEN = {
    "fair_face: missing CSV": ("fair_face", remove(VAL), rf"{VAL}: no such file"),
    "fair_face: wrong header": (
        "fair_face",
        edit(TRAIN, line(1, "race", "ethnicity")),
        rf"{TRAIN} row 1: no column 'race'",
    ),
    "fair_face: row without picture": (
        "fair_face",
        remove("3_face0.jpg"),
        rf"rows without a picture: train/3_face0.jpg \(.*{TRAIN} row 8\)",
    ),
    "fair_face: picture without row": (
        "fair_face",
        add(f"{PICTURES}/val/9999.jpg"),
        "pictures without a row: .*9999.jpg",
    ),
    "fair_face: unknown race": (
        "fair_face",
        edit(TRAIN, line(5, "Black", "Martian")),
        rf"{TRAIN} row 5: unknown race 'Martian'; known: White",
    ),
    "fair_face: short row": (
        "fair_face",
        edit(VAL, lambda text: text + "val/1.jpg,0-2\n"),
        rf"{VAL} row 30: 2 values, the header names 5",
    ),
    "fair_face: two rows of one picture": (
        "fair_face",
        edit(TRAIN, lambda text: text + text.splitlines()[1] + "\n"),
        rf"{TRAIN} row 254: train/0_face0.jpg has a row before, .*row 2",
    ),
    "fair_face: empty class": (
        "fair_face",
        lambda place: [
            edit(n, lambda t: t.replace("Indian", "White"))(place) for n in (TRAIN, VAL)
        ],
        "1 classes without a picture: race 'Indian'",
    ),
    "fair_face: corrupt JPEG": (
        "fair_face",
        damage("7_face1.jpg"),
        rf"1 pictures that cannot be decoded: .*7_face1.jpg \(.*{TRAIN} row 17",
    ),
    "utk_face: a name": (
        "utk_face",
        add("61_1_2017.jpg"),
        "1 names that are not age_gender_race_date.jpg: .*61_1_2017.jpg",
    ),
    "utk_face: unknown race": ("utk_face", add("61_1_7_2017.jpg"), "names that are not .*61_1_7_"),
    "utk_face: empty class": (
        "utk_face",
        lambda place: [p.unlink() for p in place.glob("*_?_3_*")],
        "classes without a picture: race 'Indian'",
    ),
    "utk_face: corrupt JPEG": (
        "utk_face",
        damage("1_0_0_201700000.jpg.chip.jpg"),
        "cannot be decoded: .*1_0_0_201700000",
    ),
    "utk_face: no picture": (
        "utk_face",
        lambda place: [p.unlink() for p in place.iterdir()],
        "no picture in it; give .*age_gender_race_date",
    ),
    "celeb_a: missing list": ("celeb_a_attributes", remove(ATTRIBUTES), f"{ATTRIBUTES}: no such"),
    "celeb_a: wrong header": (
        "celeb_a_attributes",
        edit(ATTRIBUTES, line(2, "Male", "Female")),
        f"{ATTRIBUTES} row 1: expected the number of pictures, .*Male",
    ),
    "celeb_a: wrong count": (
        "celeb_a_attributes",
        edit(ATTRIBUTES, line(1, "80", "81")),
        f"{ATTRIBUTES} row 1: says 81 pictures, 80 rows follow",
    ),
    "celeb_a: unknown sign": (
        "celeb_a_attributes",
        edit(ATTRIBUTES, line(4, "-1", "0")),
        f"{ATTRIBUTES} row 4: unknown Bald '0'|unknown Male '0'|unknown Smiling '0'",
    ),
    "celeb_a: short row": (
        "celeb_a_attributes",
        edit(ATTRIBUTES, line(6, " -1\n", "\n")),
        f"{ATTRIBUTES} row 6: 3 values, the header names 4",
    ),
    "celeb_a: row without picture": (
        "celeb_a_attributes",
        remove("000007.jpg"),
        rf"rows without a picture: 000007.jpg \(.*{ATTRIBUTES} row 9\)",
    ),
    "celeb_a: picture without row": (
        "celeb_a_attributes",
        add("img_align_celeba/999999.jpg"),
        "pictures without a row: .*999999.jpg",
    ),
    "celeb_a: corrupt JPEG": (
        "celeb_a_attributes",
        damage("000011.jpg"),
        rf"cannot be decoded: .*000011.jpg \(.*{ATTRIBUTES} row 13",
    ),
    "people: missing table": (
        "imagenet_people",
        remove("synsets_safety.csv"),
        "safety.csv: no such",
    ),
    "people: wrong header": (
        "imagenet_people",
        edit("imageability_scores.csv", line(1, "imageability score", "score")),
        "imageability_scores.csv row 1: no column 'imageability score'",
    ),
    "people: no number": (
        "imagenet_people",
        edit("imageability_scores.csv", line(3, "4.0", "high")),
        "imageability_scores.csv row 3: imageability 'high' is no number",
    ),
    "people: not JSON": (
        "imagenet_people",
        edit(JSON, lambda t: t[:-5]),
        f"{JSON} row 1: not JSON",
    ),
    "people: unknown gender": (
        "imagenet_people",
        edit(JSON, lambda t: t.replace('["female"]', '["queen"]', 1)),
        f"{JSON} entry 4: unknown gender 'queen'",
    ),
    "people: entry without url": (
        "imagenet_people",
        edit(JSON, lambda t: t.replace('"url"', '"link"', 1)),
        f"{JSON} entry 1: expected an object with url and gender",
    ),
    "people: row without picture": (
        "imagenet_people",
        remove("n10000001_5.JPEG"),
        rf"rows without a picture: n10000001_5.JPEG \(.*{JSON} entry 6\)",
    ),
    "people: too few": (
        "imagenet_people",
        edit(
            "synsets_safety.csv",
            lambda t: t.replace(",safe\n", ",offensive\n").replace(",safe\r", ",offensive\r"),
        ),
        "no class has 10 pictures",
    ),
    "people: corrupt JPEG": (
        "imagenet_people",
        damage("n10000002_6.JPEG"),
        rf"cannot be decoded: .*n10000002_6.JPEG \(.*{JSON} entry 19",
    ),
    "imagenet: wrong tar": (
        "imagenet2012",
        lambda place: layouts.tar(place / "ILSVRC2012_img_train.tar", {"a.JPEG": layouts.jpeg(1)}),
        "img_train.tar:a.JPEG: lies in '', not in a synset",
    ),
    "imagenet: half a tar": (
        "imagenet2012",
        lambda place: os.truncate(place / "ILSVRC2012_img_train.tar", 9_000),
        "img_train.tar: cannot be read .*fetch the archive again",
    ),
    "imagenet: no tar": ("imagenet2012", remove("ILSVRC2012_img_train.tar"), "train.tar: no such"),
    "imagenet: no labels": (
        "imagenet2012",
        remove("ILSVRC2012_validation_synsets.txt"),
        "validation_synsets.txt: no such file",
    ),
    "imagenet: too few labels": (
        "imagenet2012",
        edit("ILSVRC2012_validation_synsets.txt", lambda t: t[10:]),
        "validation_synsets.txt: 5 synsets for 6 pictures",
    ),
    "imagenet: no synset": (
        "imagenet2012",
        edit("ILSVRC2012_validation_synsets.txt", lambda t: t.replace("n01443537", "490", 1)),
        "validation_synsets.txt row 2: '490' is not a synset",
    ),
    "folder: missing CSV": ("folder_csv", remove("labels.csv"), "labels.csv: no such file"),
    "folder: wrong header": (
        "folder_csv",
        edit("labels.csv", line(1, "group", "race")),
        "labels.csv row 1: no column 'group'",
    ),
    "folder: no label": (
        "folder_csv",
        edit("labels.csv", line(4, "no", " ")),
        "labels.csv row 4: no value in column 'label'",
    ),
    "folder: row without picture": (
        "folder_csv",
        remove("003.jpg"),
        r"rows without a picture: p3/003.jpg \(.*labels.csv row 5\)",
    ),
    "folder: picture without row": (
        "folder_csv",
        add("p3/x.jpg"),
        "pictures without a row: .*x.jpg",
    ),
    "folder: corrupt PNG": (
        "folder_csv",
        damage("007.png"),
        r"cannot be decoded: .*007.png \(.*labels.csv row 9",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_is_named_and_nothing_looks_whole(case, tmp_path):
    name, breaking, message = BROKEN[case]
    place = layouts.LAYOUTS[name](tmp_path / "from")
    breaking(place)
    with pytest.raises(UsageError, match=message):
        made(name, place, tmp_path / "to")
    assert not (tmp_path / "to" / name / "1.0.0").exists()
    with pytest.raises(UsageError, match="no prepared dataset"):
        data.load(source(tmp_path / "to", name))


def test_an_empty_class_folder_is_named(tmp_path):
    place = layouts.imagenet(tmp_path / "from", "folder")
    (place / "train" / "n09999999").mkdir()
    with pytest.raises(UsageError, match="n09999999: a class without a picture"):
        made("imagenet2012", place, tmp_path)


def test_lenient_leaves_out_and_counts(tmp_path):
    place = layouts.folder(tmp_path / "from")
    damage("007.png")(place)
    remove("003.jpg")(place)
    add("p3/x.jpg")(place)
    made("folder_csv", place, tmp_path, called="mine", lenient=True)
    stored = prepared.stored_in(tmp_path / "mine" / "1.0.0")
    assert len(stored.columns["name"]) == 28
    notes = "\n".join(stored.about["notes"])
    for text in ("1 rows without a picture", "1 pictures without a row", "1 pictures that cannot"):
        assert f"{text}" in notes
    assert stored.about["columns"][1]["classes"] == ["old", "young"]


def test_a_dataset_that_is_there_is_kept_and_not_mistaken_for_another(tmp_path):
    place = layouts.utkface(tmp_path / "from")
    directory = made("utk_face", place, tmp_path)
    written = {path: path.stat().st_mtime_ns for path in directory.iterdir()}
    assert made("utk_face", place, tmp_path) == directory
    assert written == {path: path.stat().st_mtime_ns for path in directory.iterdir()}
    with pytest.raises(
        UsageError, match=r"prepared by utk_face with options.*'others': False.*--name"
    ):
        made("utk_face", place, tmp_path, others=True)


def test_two_folders_of_the_same_faces_are_refused(tmp_path):
    place = layouts.fairface(tmp_path / "from")
    shutil.copytree(place / PICTURES, place / "fairface-img-margin125-trainval")
    with pytest.raises(UsageError, match=r"has the name of .*train/0_face0.jpg"):
        made("fair_face", place, tmp_path)


# --- splits


def test_faces_of_one_picture_and_equal_files_stay_together(tmp_path):
    made("fair_face", layouts.fairface(tmp_path / "from"), tmp_path)
    made("utk_face", layouts.utkface(tmp_path / "utk"), tmp_path)
    for name in ("fair_face", "utk_face"):
        columns = prepared.stored_in(tmp_path / name / "1.0.0").columns
        for options in ({}, {"fold": "2/5"}, {"seed": 3}):
            parts = prepared.sides(columns, source(tmp_path, name, **options))
            for key in ("source", "digest"):
                held = [set(columns[key][part].tolist()) for part in parts]
                assert not held[0] & held[1]
                assert not (held[0] | held[1]) & held[2]
            together = np.concatenate(parts)
            assert sorted(together.tolist()) == list(range(len(columns["name"])))
        sizes = np.array([len(part) for part in prepared.sides(columns, source(tmp_path, name))])
        np.testing.assert_allclose(sizes / sizes.sum(), [0.8, 0.1, 0.1], atol=0.03)


def test_folds_test_on_every_picture_once(tmp_path):
    made("folder_csv", layouts.folder(tmp_path / "from"), tmp_path, source="person")
    columns = prepared.stored_in(tmp_path / "folder_csv" / "1.0.0").columns
    parts = [
        prepared.sides(columns, source(tmp_path, "folder_csv", fold=f"{i}/5")) for i in range(1, 6)
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
        ({"cache": "ram"}, "cache='ram'"),
        ({"workers": -1}, "workers=-1"),
        ({"dataset": ""}, "dataset is empty"),
        ({"dataset": "cats"}, "no prepared dataset; `fairgrape data prepare cats"),
    ],
)
def test_impossible_options_of_prepared_data(options, message, tmp_path):
    made("folder_csv", layouts.folder(tmp_path / "from"), tmp_path)
    with pytest.raises(UsageError, match=message):
        data.load(prepared.Prepared(**{"path": str(tmp_path), "dataset": "folder_csv"} | options))


def test_utkface_prepared_is_the_utkface_source_bit_for_bit(tmp_path):
    place = layouts.utkface(tmp_path / "from")
    made("utk_face", place, tmp_path)
    for ours, theirs in (({}, {}), ({"split_by": "source"}, {"split_by": "name"})):
        old = data.load(data.source("utkface", path=str(place), size=24, **theirs))
        new = data.load(source(tmp_path, "utk_face", size=24, **ours))
        for split in ("train", "validation", "test"):
            for a, b in zip(
                getattr(old, split).evidence(), getattr(new, split).evidence(), strict=True
            ):
                np.testing.assert_array_equal(a, b)
        assert (old.tasks, old.groups, old.mean, old.std) == (
            new.tasks,
            new.groups,
            new.mean,
            new.std,
        )


def test_a_product_of_groups_and_a_rare_one(tmp_path):
    made("fair_face", layouts.fairface(tmp_path / "from"), tmp_path)
    stored = prepared.stored_in(tmp_path / "fair_face" / "1.0.0")
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


# --- stopping and going on


SLOW = """
import sys, time
from pathlib import Path
from fairgrape_jax.data.builders import fair_face, prepare
look = prepare._looked_at
def slow(row):
    time.sleep(0.004)
    return look(row)
prepare._looked_at = slow
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
    whole, again = (
        prepared.stored_in(p / "fair_face" / "1.0.0") for p in (tmp_path / "whole", work)
    )
    for key, column in whole.columns.items():
        np.testing.assert_array_equal(column, again.columns[key])
    assert all(whole.records.content(i) == again.records.content(i) for i in range(280))
    assert len(written) > 3


def test_two_cannot_prepare_at_once(tmp_path):
    place = layouts.folder(tmp_path / "from")
    with (
        lock.held(tmp_path / "folder_csv" / ".1.0.0.partial.lock"),
        pytest.raises(UsageError, match="is being written by process"),
    ):
        made("folder_csv", place, tmp_path)
    made("folder_csv", place, tmp_path)


# --- the command


def test_the_command_prepares_checks_and_lists(tmp_path, capsys):
    place = layouts.utkface(tmp_path / "from")
    to = ["--data-dir", str(tmp_path)]
    assert cli.main(["data", "prepare", "utk_face", "--from", str(place), *to]) == 0
    assert "166 pictures in" in capsys.readouterr().out
    names = tmp_path / "equal.csv"
    assert cli.main(["data", "check", "utk_face", *to, "--names", str(names)]) == 0
    text = capsys.readouterr().out
    assert "16 files equal others, in 16 sets" in text
    assert "would cross a split by source" in text
    assert "race Indian:" in text
    assert len(names.read_text().splitlines()) == 33
    assert cli.main(["data", "list", *to]) == 0
    text = capsys.readouterr().out
    assert "166 pictures; gender, race, age" in text
    assert "imagenet_people" in text
    record = next((tmp_path / "utk_face" / "1.0.0").glob("*.array_record-*"))
    content = bytearray(record.read_bytes())
    content[len(content) // 2] ^= 0xFF
    record.write_bytes(content)
    assert cli.main(["data", "check", "utk_face", *to]) == 2
    said = capsys.readouterr()
    assert f"damaged: {record}" in said.out
    assert "broken files" in said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "bake"], "unknown command 'bake': choose from prepare, check, list, sheet"),
        (["data", "prepare"], "name what to prepare: fair_face"),
        (["data", "prepare", "lfw", "--from", "."], "unknown builder 'lfw'"),
        (["data", "prepare", "utk_face"], "--from: give a folder or .tar"),
        (["data", "prepare", "utk_face", "--from", "nowhere"], "nowhere: no such file"),
        (["data", "prepare", "utk_face", "--from", ".", "--name", "A b"], "--name 'A b'"),
        (["data", "check", "cats", "--data-dir", "."], "no prepared dataset"),
        (["data", "sheet", "cats"], "'cats' is unknown"),
        (["data", "sheet", "synthetic", "--augmentation", "wild"], "unknown augmentation 'wild'"),
    ],
)
def test_bad_requests_of_the_data_command(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


# --- the real pictures


@pytest.mark.slow
def test_all_of_utkface(tmp_path):
    directory = made("utk_face", shared("utkface"), tmp_path, shard_bytes=1 << 26)
    stored = prepared.stored_in(directory)
    races = np.bincount(stored.columns["values"][:, 1])
    np.testing.assert_array_equal(races, [10_078, 4_526, 3_434, 3_975])
    place = shared("utkface")
    made("utk_face", place, tmp_path, "all_faces", 1 << 26, others=True)
    lines, sound = verify.check(source(tmp_path, "all_faces"))
    text = "\n".join(lines)
    assert sound
    assert "390 files equal others, in 375 sets" in text
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
