"""config.json: of this format and of earlier ones, of other programs, and damaged."""

import dataclasses
import json

import pytest

from fairgrape_jax import config
from fairgrape_jax.cli.run import load
from fairgrape_jax.config import Clusters, Embedding, Epoch, Execution, KeepLast, Rollback, upgrade
from fairgrape_jax.data import Reading
from fairgrape_jax.errors import UsageError
from tests.helpers.datasets import GOLDEN_FILES, ROOT
from tests.helpers.experiments import TINY, with_fields

# As the version before wrote it: `fairgrape run experiments/writers.py`.
FORMAT_2 = GOLDEN_FILES / "config_format_2.json"


def old(**changes):
    """The text of FORMAT_2 with other values at dotted paths."""
    stored = json.loads(FORMAT_2.read_text())
    for path, value in changes.items():
        *outer, name = path.split("__")
        part = stored["experiment"]
        for key in outer:
            part = part[key]
        part[name] = value
    return json.dumps(stored)


def loaded(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    return config.load(tmp_path / "config.json")


def test_a_run_of_format_2_is_the_experiment_that_it_was(tmp_path):

    assert loaded(tmp_path, FORMAT_2.read_text()) == load(ROOT / "experiments" / "writers.py")
    stored = config.read(tmp_path / "config.json")
    assert stored["format"] == 2
    assert stored["devices"]["platform"] == "cpu"
    assert "flags" not in stored


@pytest.mark.parametrize(
    ("changes", "path", "value"),
    [
        ({"start": "3"}, "start", Epoch(3)),
        ({"rewind": "dense"}, "rewind", "dense"),
        ({"checkpoints": "all"}, "execution.checkpoints", "all"),
        ({"checkpoints": "best"}, "execution.checkpoints", "best"),
        ({"checkpoints": "last:3"}, "execution.checkpoints", KeepLast(3)),
        ({"devices": 4}, "execution.devices", 4),
        ({"lift": "shard_map"}, "execution.lift", "shard_map"),
        ({"evaluation_batch": 7}, "execution.evaluation_batch", 7),
        (
            {"rollback": {"retries": 2, "factor": 0.1}},
            "execution.rollback",
            Rollback(2, 0.1),
        ),
        ({"scoring__execution": "vmap"}, "execution.micro_batches", "vmap"),
        ({"scoring__shard_groups": True}, "execution.shard_groups", True),
        ({"scoring__groups": "kmeans:7"}, "scoring.groups", Clusters(7)),
        ({"scoring__scope": "layer"}, "scoring.allocation", "uniform"),
        ({"scoring__scope": "global"}, "scoring.allocation", "global"),
        (
            {"scoring__groups": "kmeans:7", "scoring__embedding": "cnn:a:b"},
            "scoring.groups",
            Clusters(7, Embedding("cnn", "a:b")),
        ),
    ],
)
def test_every_field_that_moved_is_where_it_is_now(changes, path, value, tmp_path):
    found = loaded(tmp_path, old(**changes))
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value


def test_reading_moved_from_the_dataset(tmp_path):
    data = {"name": "prepared", "dataset": "x", "workers": 2, "cache": "disk", "fit": "crop"}
    found = loaded(tmp_path, old(data=data))
    assert found.execution.reading == Reading("disk", workers=2)
    assert found.data.fit == "crop"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": "soon"}, "start: unknown 'soon'"),
        ({"checkpoints": "last:x"}, "execution.checkpoints: unknown 'last:x'"),
        ({"checkpoints": 3}, "execution.checkpoints: 3 is not of type"),
        ({"scoring": 3}, "scoring: 3 is not of type Scoring"),
        ({"scoring__groups": ["kmeans:7"]}, "scoring.groups: "),
        ({"data": None}, "data: None is not of type dict"),
        ({"devices": "all"}, "execution.devices: 'all' is not of type int"),
        ({"bacth": 3}, "unknown field 'bacth'"),
    ],
)
def test_what_is_wrong_in_an_old_file_is_named_by_its_new_path(changes, message, tmp_path):
    with pytest.raises(UsageError) as error:
        loaded(tmp_path, old(**changes))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_upgrade_alters_nothing_that_it_is_given():
    stored = json.loads(FORMAT_2.read_text())["experiment"]
    before = json.dumps(stored)
    upgrade.from_format_2(stored)
    assert json.dumps(stored) == before


@pytest.mark.parametrize("form", [None, 1, 4, "3", [2]])
def test_another_format_is_refused_with_the_version_that_wrote_it(form, tmp_path):
    stored = json.loads(FORMAT_2.read_text()) | {"format": form}
    if form is None:
        del stored["format"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with pytest.raises(UsageError, match=r"written by fairgrape-jax 0\.1\.0; this version reads"):
        config.read(tmp_path / "config.json")


EXPERIMENT = with_fields(
    TINY,
    start=Epoch(2),
    scoring=dataclasses.replace(TINY.scoring, groups=Clusters(3)),
    checkpoints=KeepLast(2),
)


def test_this_format_is_read_as_it_was_written(tmp_path):
    stored = {
        "format": config.FORMAT,
        "experiment": config.to_dict(EXPERIMENT),
        "versions": {"fairgrape-jax": "0"},
        "devices": {"kind": "cpu", "platform": "cpu", "count": 1},
        "flags": config.numeric_flags(),
        "of a later version": 1,
    }
    assert loaded(tmp_path, json.dumps(stored)) == EXPERIMENT
    for key in ("experiment", "devices", "versions"):
        (tmp_path / "config.json").write_text(json.dumps(stored | {key: 3}))
        with pytest.raises(UsageError, match=f"config.json: not the config.json of a run .*{key}"):
            config.read(tmp_path / "config.json")


def test_defaults_fill_what_is_left_out():
    values = {"data": {"name": "synthetic"}, "model": "cnn"}
    assert config.from_dict(values).execution == Execution()
    with pytest.raises(UsageError, match="no field 'model'"):
        config.from_dict({"data": {"name": "synthetic"}})
    with pytest.raises(UsageError, match="'' is unknown"):
        config.from_dict({"data": {}, "model": "cnn"})
