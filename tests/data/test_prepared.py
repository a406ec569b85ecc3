"""Prepared datasets on reading: splits, folds, labels and groups by options of the run."""

from __future__ import annotations

import numpy as np
import pytest

from fairgrape_jax import data
from fairgrape_jax.data.sources import prepared
from fairgrape_jax.errors import UsageError
from tests.helpers import layouts
from tests.helpers.datasets import made, source


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
