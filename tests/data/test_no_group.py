"""Pictures in no group: they are trained on and count overall, and for no group."""

from __future__ import annotations

import csv
import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image

from fairgrape_jax import data, metrics
from fairgrape_jax.data.batches import epoch_order, group_batches, train_batches
from fairgrape_jax.data.dataset import NO_GROUP, Dataset
from fairgrape_jax.data.sources.base import limit_split
from fairgrape_jax.errors import UsageError
from fairgrape_jax.reports import run as report
from fairgrape_jax.runner import run
from tests.helpers import layouts
from tests.helpers.datasets import made, source, split_of
from tests.helpers.experiments import TINY


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """400 small drawn pictures with a person, a group for nine of ten and a second one for most."""
    place = tmp_path_factory.mktemp("no_group")
    drawn = data.load(TINY.data)
    rows = []
    for split in (drawn.train, drawn.validation, drawn.test):
        for pixels, label, group in zip(
            split.images, split.labels[:, 0], split.groups, strict=True
        ):
            i = len(rows)
            out = io.BytesIO()
            Image.fromarray(pixels).save(out, "png")
            (place / f"{i:03}.png").write_bytes(out.getvalue())
            second = "" if i % 7 == 0 else "pq"[i % 2]
            rows.append((f"{i:03}.png", label, "" if i % 10 == 3 else f"g{group}", second))
    layouts.table(place / "labels.csv", ("file", "label", "group", "second"), rows)
    made("folder_csv", place, place / "to", allow="empty", groups=("group", "second"))
    return place / "to"


def read(prepared, **options) -> Dataset:
    return data.load(source(prepared, "folder_csv", size=8, **options))


def test_a_dataset_holds_pictures_in_no_group_and_says_how_many(prepared):
    dataset = read(prepared)
    parts = dataset.train, dataset.validation, dataset.test
    counts = [int((split.groups == NO_GROUP).sum()) for split in parts]
    assert sum(counts) == 40
    assert dataset.groups == ("g0", "g1", "g2")
    text = "40 of 400 pictures are in no group (train {}, validation {}, test {})".format(*counts)
    assert any(note.startswith(text) for note in dataset.notes)
    second = read(prepared, group="second")
    crossed = read(prepared, group="group+second")
    for one, other, both in zip(
        parts,
        (second.train, second.validation, second.test),
        (crossed.train, crossed.validation, crossed.test),
        strict=True,
    ):
        missing = (one.groups < 0) | (other.groups < 0)
        np.testing.assert_array_equal(
            both.groups, np.where(missing, NO_GROUP, 2 * one.groups + other.groups)
        )


def test_a_column_of_groups_as_a_label_leaves_out_who_has_none(prepared):
    dataset = read(prepared, label="second")
    parts = dataset.train, dataset.validation, dataset.test
    assert sum(map(len, parts)) == 400 - 58
    assert all((split.labels >= 0).all() for split in parts)
    assert "58 pictures without a label are left out" in dataset.notes


def test_minus_one_is_refused_where_nobody_asked_for_it(prepared):
    dataset = read(prepared)
    data.check(dataset)
    with pytest.raises(UsageError, match="train: group -1 is out of range"):
        data.check(dataclasses.replace(dataset, allow_missing_groups=False))
    low = dataclasses.replace(dataset.test, groups=np.minimum(dataset.test.groups, -2))
    with pytest.raises(UsageError, match="test: group -2 is out of range"):
        data.check(dataclasses.replace(dataset, test=low))


def test_they_are_trained_on_and_in_no_micro_batch():
    split = split_of([40, 20, 12])
    groups = np.where(np.arange(72) % 6 == 0, NO_GROUP, split.groups)
    holed = dataclasses.replace(split, groups=groups.astype(np.int32))
    seen = np.concatenate([b["labels"][:, 0] for b in train_batches(holed, 8, 0, 0)])
    np.testing.assert_array_equal(seen, epoch_order(72, 0, 0))
    for over in ("groups", "all", (0, 2)):
        plan = group_batches(holed, 1.0, 8, 3, seed=0, over=over)
        chosen = plan.indices[plan.valid]
        kept = np.flatnonzero(np.isin(groups, range(3) if isinstance(over, str) else over))
        assert sorted(chosen.tolist()) == kept.tolist()


def test_a_limit_keeps_their_share():
    split = split_of([600, 300, 100])
    groups = np.where(np.arange(1000) % 5 == 0, NO_GROUP, split.groups).astype(np.int32)
    kept = limit_split(dataclasses.replace(split, groups=groups), 100, 0)
    assert np.count_nonzero(kept.groups == NO_GROUP) == 20
    assert len(kept) == 100


def test_overall_metrics_count_them_and_those_of_groups_do_not():
    rng = np.random.default_rng(0)
    labels, predictions, dense = rng.integers(0, 3, (3, 500, 1))
    groups = rng.integers(-1, 3, 500)

    def values(chosen):
        counts = [metrics.tally(labels[chosen], x[chosen], groups[chosen], 3, [3])
                  for x in (predictions, dense)]  # fmt: skip
        return metrics.evaluate_all(*counts, 3)

    everyone, grouped = values(np.arange(500)), values(np.flatnonzero(groups >= 0))
    for name in metrics.METRICS:
        if name in metrics.OF_ALL_SAMPLES:
            whole = metrics.tally(labels, predictions, np.zeros(500, int), 1, [3])
            base = metrics.tally(labels, dense, np.zeros(500, int), 1, [3])
            assert everyone[name] == metrics.evaluate_all(whole, base)[name]
        else:
            assert everyone[name] == grouped[name]
    assert everyone["accuracy"] != grouped["accuracy"]


def test_a_run_trains_on_them_and_scores_them_for_no_group(prepared, tmp_path, capsys):
    experiment = dataclasses.replace(
        TINY,
        data=source(prepared, "folder_csv", size=8),
        methods=("fairgrape", "fairprune"),
        densities=(0.5,),
        seeds=(0,),
    )
    assert run.run(experiment, tmp_path / "run")
    said = capsys.readouterr().out
    assert said.count("pictures are in no group") == 1
    test = read(prepared).test
    for stage in ("dense", "fairgrape/round_01", "fairprune/round_01"):
        directory = tmp_path / "run" / "seed_0" / stage
        with (directory / "predictions.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["picture"] for row in rows] == [name.decode() for name in test.names]
        names = [row["group"] for row in rows]
        assert names == ["" if g < 0 else f"g{g}" for g in test.groups]
        right = np.array([row["label"] == row["label_predicted"] for row in rows])
        record = json.loads((directory / "metrics.json").read_text())["test"]
        assert record["accuracy"] == pytest.approx(100 * right.mean())
        for g, accuracy in enumerate(record["group_accuracy"]):
            assert accuracy == pytest.approx(100 * right[test.groups == g].mean())
    report.write([tmp_path / "run"], tmp_path / "run")
    text = (tmp_path / "run" / "report.md").read_text()
    sizes = np.bincount(test.groups + 1)
    members = ", ".join(f"g{g} {size}" for g, size in enumerate(sizes[1:]))
    assert f"{len(test)} test samples ({members}, in no group {sizes[0]})" in text
