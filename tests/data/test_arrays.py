"""Arrays of one's own: every form, what is refused, and the same from memory and records."""

import dataclasses
import gc
import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

import fairgrape_jax as fg
from fairgrape_jax import config, data
from fairgrape_jax.cli.main import main
from fairgrape_jax.data.builders.in_memory import from_arrays
from fairgrape_jax.data.images.records import dataset_directory
from fairgrape_jax.data.sources import arrays
from fairgrape_jax.data.sources.stored import stored_in
from fairgrape_jax.errors import UsageError
from fairgrape_jax.reports import thumbnails
from fairgrape_jax.runner.stored import read_stage
from tests.helpers.experiments import TINY, assert_same, stage_files, with_fields

rng = np.random.default_rng(0)
N = 300
IMAGES = rng.integers(0, 256, (N, 8, 8, 3), np.uint8)
LABELS = rng.integers(0, 3, N)
GROUPS = rng.integers(-1, 3, N)
SPLITS = np.array(["train", "train", "train", "validation", "test"] * (N // 5))


@pytest.fixture(scope="module", autouse=True)
def _heap_set_aside():
    """What is there before has not to be looked through each time: that takes a second."""
    gc.freeze()


def same(one, other):
    assert (one.tasks, one.groups, one.mean, one.std) == (
        other.tasks,
        other.groups,
        other.mean,
        other.std,
    )
    for name in ("train", "validation", "test"):
        a, b = getattr(one, name), getattr(other, name)
        for field in ("images", "labels", "groups"):
            x, y = getattr(a, field), getattr(b, field)
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y, err_msg=f"{name} {field}")


EXPECTED = data.load(from_arrays(IMAGES, LABELS, GROUPS))
FORMS = {
    "jax": (jnp.asarray(IMAGES), jnp.asarray(LABELS), jnp.asarray(GROUPS)),
    "fortran order": (np.asfortranarray(IMAGES), LABELS, GROUPS),
    "strided": (np.repeat(IMAGES, 2, axis=2)[:, :, ::2], np.repeat(LABELS, 2)[::2], GROUPS),
    "integers": (IMAGES.astype(np.int64), LABELS.astype(np.uint8), GROUPS.astype(np.int8)),
    "big-endian": (IMAGES.astype(">i2"), LABELS.astype(">i4"), GROUPS.astype(">i8")),
    "lists": (IMAGES.tolist(), LABELS.tolist(), GROUPS.tolist()),
    "float32": ((IMAGES / 255).astype(np.float32), LABELS, GROUPS),
    "float64": (IMAGES / 255, LABELS, GROUPS),
    "big-endian floats": ((IMAGES / 255).astype(">f4"), LABELS, GROUPS),
    "other negatives": (IMAGES, LABELS, np.where(GROUPS < 0, -7, GROUPS)),
    "names": (IMAGES, LABELS.astype(str), np.where(GROUPS < 0, "", GROUPS.astype(str))),
    "bytes": (IMAGES, LABELS.astype("S1"), np.where(GROUPS < 0, "", GROUPS.astype(str))),
    "none": (IMAGES, LABELS, np.array([None if g < 0 else str(g) for g in GROUPS], object)),
    "one column": (IMAGES, LABELS[:, None], GROUPS),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_dataset(form):
    images, labels, groups = FORMS[form]
    if form == "one column":
        labels = {"label": labels[:, 0]}
    found = from_arrays(images, labels, groups)
    same(data.load(found), EXPECTED)
    assert found.fingerprint == from_arrays(IMAGES, LABELS, GROUPS).fingerprint


def test_read_only_arrays_are_taken_and_a_copy_is_held():
    images = IMAGES.copy()
    images.flags.writeable = False
    source = from_arrays(images, LABELS, GROUPS)
    images.flags.writeable = True
    images[:] = 0
    same(data.load(source), EXPECTED)


@pytest.mark.parametrize("dtype", ["float16", jnp.bfloat16, "float32"])
def test_floats_are_rounded_to_256_levels_and_it_is_said(dtype):
    levels = np.linspace(0, 1, N * 64).reshape(N, 8, 8).astype(dtype)
    found = data.load(from_arrays(levels, LABELS, GROUPS))
    assert any("rounded to 256 levels" in note for note in found.notes)
    assert found.train.images.shape[1:] == (8, 8, 1)
    every = np.concatenate([s.images for s in (found.train, found.validation, found.test)])
    expected = np.rint(np.asarray(levels, np.float64) * 255).reshape(-1)
    np.testing.assert_array_equal(np.sort(every.reshape(-1)), np.sort(expected))


def test_equal_pictures_are_on_one_side_and_shares_are_those_of_the_seed():
    images = np.repeat(IMAGES[:100], 3, axis=0)
    found = data.load(from_arrays(images, LABELS, np.arange(N) % 2))
    sides = [{image.tobytes() for image in s.images} for s in (found.train, found.test)]
    assert not sides[0] & sides[1]
    other = data.load(from_arrays(images, LABELS, np.arange(N) % 2, seed=7))
    assert not np.array_equal(other.train.labels, found.train.labels)


def test_splits_are_those_that_are_named():
    for splits in (SPLITS, SPLITS.tolist(), np.array([0, 0, 0, 1, 2] * (N // 5), np.uint8)):
        found = data.load(from_arrays(IMAGES, LABELS, GROUPS, splits=splits))
        for name in ("train", "validation", "test"):
            split = getattr(found, name)
            np.testing.assert_array_equal(split.images, IMAGES[name == SPLITS])
            np.testing.assert_array_equal(split.labels[:, 0], LABELS[name == SPLITS])
            np.testing.assert_array_equal(split.groups, GROUPS[name == SPLITS])


def test_several_tasks_with_names():
    smile, age = LABELS % 2, rng.choice(["10", "9", "100"], N)
    both = {"smile": smile, "age": age}
    source = from_arrays(IMAGES, both, GROUPS, classes={"smile": ["no", "yes"]}, splits=SPLITS)
    found = data.load(source)
    assert [(task.name, task.classes) for task in found.tasks] == [
        ("smile", ("no", "yes")),
        ("age", ("9", "10", "100")),
    ]
    test = SPLITS == "test"
    np.testing.assert_array_equal(found.test.labels[:, 0], smile[test])
    names = np.array(found.tasks[1].classes)[found.test.labels[:, 1]]
    np.testing.assert_array_equal(names, age[test])
    one = data.load(dataclasses.replace(source, label="age"))
    assert [task.name for task in one.tasks] == ["age"]
    np.testing.assert_array_equal(one.test.labels[:, 0], found.test.labels[:, 1])
    table = np.stack([smile, LABELS], axis=1)
    assert [t.name for t in data.load(from_arrays(IMAGES, table, GROUPS)).tasks] == [
        "label 0",
        "label 1",
    ]


def test_options_of_every_dataset_work():
    source = from_arrays(
        IMAGES, LABELS, GROUPS, group_names=["x", "y", "z"], splits=SPLITS, limit=30
    )
    assert len(data.load(source).train) == 30
    rare = data.load(dataclasses.replace(source, limit=0, minority="z", share=0.1)).train
    assert np.mean(rare.groups == 2) == pytest.approx(0.1, abs=0.02)


NAN = np.full((N, 8, 8, 3), 0.5)
NAN[7, 1, 2, 0] = np.nan
BAD = {
    "two axes": ({"images": IMAGES[:, :, 0, 0]}, "images: shape \\(300, 8\\); give \\(N, H, W, C"),
    "no sample": ({"images": IMAGES[:0]}, "shape \\(0, 8, 8, 3\\)"),
    "channels first": ({"images": np.moveaxis(IMAGES, 3, 1)}, "has its channels first"),
    "too large": ({"images": IMAGES.astype(int) + 1}, "not from 0 to 255 \\(samples"),
    "not scaled": ({"images": IMAGES.astype(float)}, "floats from 0 to 255; give them from 0 to 1"),
    "nan": ({"images": NAN}, "images: some are not finite \\(samples 7\\)"),
    "bool": ({"images": IMAGES > 9}, "images: are bool; give uint8"),
    "complex": ({"images": IMAGES * 1j}, "images: are complex128"),
    "few labels": ({"labels": LABELS[1:]}, "'label': shape \\(299,\\); give \\(300,\\)"),
    "negative": ({"labels": LABELS - 1}, "'label': some are negative or empty"),
    "empty word": ({"labels": np.where(LABELS, "a", "")}, "'label': some are negative or empty"),
    "floats": ({"labels": LABELS / 2}, "'label': are float64; give whole numbers"),
    "nan label": ({"labels": NAN[:, 1, 2, 0]}, "'label': are float64, not finite \\(samples 7\\)"),
    "gap": ({"labels": LABELS * 5}, "1 has no sample and 10 has; number them from 0"),
    "beyond": ({"classes": ["a", "b"]}, "'label': some are beyond the 2 names"),
    "no task": ({"labels": {}}, "labels: no task"),
    "task of records": ({"labels": {"image": LABELS}}, "column 'image': cannot be stored"),
    "task of groups": ({"labels": {"group": LABELS}}, "column 'group': is there twice"),
    "class with an end of line": (
        {"classes": ["a", "b\n", "c"]},
        "'b..' is no name for a value",
    ),
    "class twice": ({"classes": ["a", "b", "a"]}, "classes of task 'label': 'a' is there twice"),
    "group twice": ({"group_names": ["a", "b", "b"]}, "groups: 'b' is there twice"),
    "unknown task": ({"classes": {"mood": ["a"]}}, "classes: 'mood' is no task; known: label"),
    "none of the names": (
        {"labels": LABELS.astype(str), "classes": ["0", "1"]},
        "some are none of the names",
    ),
    "no group": ({"groups": np.full(N, -1)}, "groups: every sample is in none"),
    "few groups": ({"groups": GROUPS[:5]}, "groups: shape \\(5,\\)"),
    "mixed words": ({"groups": np.array(["a", 3] * (N // 2), object)}, "neither words nor None"),
    "float groups": ({"groups": GROUPS + 0.5}, "groups: are float64"),
    "unknown split": ({"splits": ["train", "dev"] * (N // 2)}, "none of train, validation, test"),
    "split beyond": ({"splits": np.arange(N) % 4}, "splits: some are none of 0, 1, 2"),
    "no test": ({"splits": np.arange(N) % 2}, "splits: no sample is in test"),
    "few splits": ({"splits": ["train"]}, "splits: shape \\(1,\\)"),
    "option": ({"colour": "red"}, "no option 'colour'; known: group, label, limit"),
    "path": ({"path": "x"}, "no option 'path'"),
    "size": ({"size": 16}, "size=16: arrays keep their size"),
    "another group": ({"group": "age"}, "group='age': arrays have one column"),
    "minority": ({"minority": "q", "share": 0.1}, "minority='q': no such group"),
    "label": ({"label": "mood"}, "label='mood': no such task"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named(name):
    options, message = BAD[name]
    with pytest.raises(UsageError, match=message):
        from_arrays(**{"images": IMAGES, "labels": LABELS, "groups": GROUPS} | options)


# -- records ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("splits", [None, SPLITS], ids=["by seed", "named"])
def test_records_hold_the_same_to_the_bit(channels, splits, tmp_path):
    """Pictures that are no square, and any number of channels."""
    images = rng.integers(0, 256, (N, 5, 6, channels), np.uint8)
    source = from_arrays(images, LABELS, GROUPS, splits=splits, directory=tmp_path)
    memory, fingerprint = data.load(source), source.fingerprint
    del source
    gc.collect()
    stored = arrays.Arrays(path=str(tmp_path), fingerprint=fingerprint)
    assert fingerprint not in arrays.IN_MEMORY
    found = data.load(stored)
    same(found, memory)
    assert found.notes == memory.notes
    same(data.load(arrays.Arrays(path=str(tmp_path))), memory)


def test_records_are_those_of_prepared_data(tmp_path, capsys):
    source = from_arrays(IMAGES, LABELS, GROUPS, splits=SPLITS, directory=tmp_path)
    options = {"path": str(tmp_path), "dataset": "arrays", "size": 8, "split_by": "given"}
    found = data.load(data.source("prepared", **options))
    for name in ("train", "validation", "test"):
        one, other = getattr(found, name), getattr(data.load(source), name)
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.groups, other.groups)
    assert main(["data", "check", "arrays", "--data-dir", str(tmp_path)]) == 0
    assert "300" in capsys.readouterr().out


def test_a_folder_takes_the_same_arrays_again_and_no_others(tmp_path):
    first = from_arrays(IMAGES, LABELS, GROUPS, directory=tmp_path)
    before = (dataset_directory("arrays", tmp_path) / "fairgrape.json").stat().st_mtime_ns
    assert from_arrays(IMAGES, LABELS, GROUPS, directory=tmp_path) == first
    assert (dataset_directory("arrays", tmp_path) / "fairgrape.json").stat().st_mtime_ns == before
    for change in (
        {"images": IMAGES ^ 1},
        {"labels": 2 - LABELS},
        {"groups": np.where(GROUPS < 0, 0, GROUPS)},
        {"splits": SPLITS},
        {"classes": ["a", "b", "c"]},
    ):
        values = {"images": IMAGES, "labels": LABELS, "groups": GROUPS} | change
        with pytest.raises(UsageError, match="holds other arrays \\(fingerprint"):
            from_arrays(**values, directory=tmp_path)
    assert [path.name for path in (tmp_path / "arrays").iterdir()] == ["1.0.0"]


def test_damaged_or_other_records_are_refused(tmp_path):
    source = from_arrays(IMAGES, LABELS, GROUPS, directory=tmp_path)
    fingerprint = source.fingerprint
    del source
    gc.collect()
    here = arrays.Arrays(path=str(tmp_path), fingerprint=fingerprint)
    with pytest.raises(UsageError, match="holds other arrays"):
        data.load(dataclasses.replace(here, fingerprint="0" * 64))
    with pytest.raises(UsageError, match="these are not in this process; call from_arrays"):
        data.load(arrays.Arrays(fingerprint=fingerprint))
    with pytest.raises(UsageError, match="holds no arrays"):
        data.load(dataclasses.replace(here, path=str(tmp_path / "elsewhere")))
    target = dataset_directory("arrays", tmp_path)
    columns = dict(np.load(target / "columns.npz"))
    values = columns["values"].copy()
    values[0] = (values[0] + 1) % 3
    np.savez_compressed(target / "columns.npz", **columns | {"values": values})
    with pytest.raises(UsageError, match="is not as it was written; remove"):
        data.load(here)
    np.savez_compressed(target / "columns.npz", **columns)
    about = json.loads((target / "fairgrape.json").read_text())
    about["options"].pop("shape")
    (target / "fairgrape.json").write_text(json.dumps(about))
    with pytest.raises(UsageError, match="cannot be read \\('shape'\\)"):
        data.load(here)


# -- runs ------------------------------------------------------------------------------------------
def drawn(seed=0):
    """Pictures of TINY's size, groups and classes, so that its programs serve."""
    tiny = data.load(TINY.data)
    splits = [tiny.train, tiny.validation, tiny.test]
    images, labels, groups = (
        np.concatenate([getattr(split, name) for split in splits])
        for name in ("images", "labels", "groups")
    )
    parts = np.repeat([0, 1, 2], list(map(len, splits)))
    return from_arrays(images ^ seed, labels[:, 0], groups, splits=parts)


@pytest.mark.whole
def test_a_run_keeps_its_arrays_and_goes_on_without_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = drawn()
    experiment = with_fields(TINY, data=source, methods=("magnitude",), seeds=(0,))
    assert fg.run(experiment, "whole").complete
    assert config.load(tmp_path / "whole/config.json") == experiment
    assert len(stored_in(dataset_directory("arrays", tmp_path / "whole/data")).records) == 400
    shutil.copytree("whole", "moved/half")
    shutil.rmtree("moved/half/seed_0/magnitude/round_03")
    arrays.IN_MEMORY.clear()  # as in a new process
    assert main(["run", "moved/half"]) == 0
    assert_same(stage_files(tmp_path / "moved/half"), stage_files(tmp_path / "whole"))
    assert main(["report", "whole", "--thumbnails"]) == 0
    assert "data:image/png" in (tmp_path / "whole/report.html").read_text()
    assert fg.load("whole").experiment.data.name == "arrays"
    fg.export("whole", "exported", to="npz")
    few = ["--programs", "evaluation", "--no-largest-batch"]
    assert main(["plan", "whole", "--on", "cpu", *few]) == 0
    other = with_fields(TINY, data=drawn(1), methods=("magnitude",), seeds=(0,))
    with pytest.raises(UsageError, match="was begun with other arrays \\(fingerprint"):
        fg.run(other, "whole")


def test_a_run_that_was_stopped_before_its_arrays_were_kept_says_so(tmp_path):
    source = drawn()
    experiment = with_fields(TINY, data=source, methods=("magnitude",), seeds=(0,))
    (tmp_path / "run").mkdir()
    stored = {
        "format": config.FORMAT,
        "experiment": config.to_dict(experiment),
        "versions": {},
        "devices": {"kind": "cpu", "platform": "cpu", "count": 1, "processes": 1},
    }
    (tmp_path / "run/config.json").write_text(json.dumps(stored))
    arrays.IN_MEMORY.clear()
    with pytest.raises(UsageError, match="holds no arrays; call from_arrays with them"):
        fg.run(tmp_path / "run")


def test_pictures_of_a_stage_are_those_of_the_arrays(tmp_path):
    """By a report that has the directory alone."""
    source = drawn()
    experiment = with_fields(
        TINY,
        data=source,
        methods=("magnitude",),
        seeds=(0,),
        dense=config.Stage(),
        final=config.Stage(),
        retrain=config.Stage(),
        densities=(0.5,),
    )
    fg.run(experiment, tmp_path / "run")
    test = data.load(source).test.images
    arrays.IN_MEMORY.clear()
    predicted = read_stage(tmp_path / "run/seed_0/dense").predictions()
    addresses = thumbnails.pictures_of_run(tmp_path / "run", predicted, [3, 5])
    assert addresses == {row: thumbnails.data_address(test[row]) for row in (3, 5)}
