"""A file of a run that was altered is found before it is used, said by name, and made anew."""

import dataclasses
import itertools
import os
import shutil

import numpy as np
import pytest

from fairgrape_jax import storage
from fairgrape_jax.cli.main import main
from fairgrape_jax.config import Stage
from fairgrape_jax.errors import UsageError
from fairgrape_jax.reports import results
from fairgrape_jax.runner import layout, resume
from fairgrape_jax.runner.run import run
from fairgrape_jax.storage import checkpoint, lock
from tests.helpers.experiments import TINY, assert_same, stage_files
from tests.helpers.files import flip

SHORT = dataclasses.replace(TINY, seeds=(0,), methods=("magnitude",), final=Stage())
NEWEST = "seed_0/magnitude/round_03"


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


DAMAGE = [truncate, flip, empty, lambda path: path.unlink()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("integrity") / "run"
    run(SHORT, directory)
    return directory


def stage_of(directory):
    return [path for path in (directory / NEWEST).rglob("*") if path.is_file()]


def test_every_damage_to_every_file_of_the_newest_round_is_found(whole, tmp_path, capsys):
    """Before anything of it is used, and by its name; the round before it is gone on from."""
    names = [path.relative_to(whole / NEWEST) for path in stage_of(whole)]
    assert len(names) > 5
    root = tmp_path / "magnitude"
    for name in names:
        for damage in DAMAGE:
            shutil.copytree(whole / "seed_0/magnitude", root, dirs_exist_ok=True)
            assert resume.last_intact_round(root, 3) == 3
            path = root / "round_03" / name
            if path.stat().st_size == 0 and damage in (truncate, empty):
                continue
            if path.stat().st_size == 0 and damage is flip:
                path.write_bytes(b"\x00")
            else:
                damage(path)
            capsys.readouterr()
            assert resume.last_intact_round(root, 3) == 2, (name, damage)
            said = capsys.readouterr().out
            assert name.name in said or not path.exists(), (name, damage, said)
            shutil.rmtree(root)


@pytest.mark.parametrize("name", ["checkpoint/digests.json", "metrics.json"])
def test_the_same_command_makes_the_damaged_round_anew_to_the_same_bits(whole, tmp_path, name):
    shutil.copytree(whole, tmp_path / "run")
    flip(tmp_path / "run" / NEWEST / name)
    run(SHORT, tmp_path / "run")
    assert_same(stage_files(tmp_path / "run"), stage_files(whole))


@pytest.mark.whole(but=1)
@pytest.mark.parametrize("name", ["masks.npz", "predictions.csv", "metrics.json"])
def test_a_pipe_in_the_place_of_a_file_is_never_waited_for(whole, tmp_path, name):
    """A folder there is refused by name: it is not ours to remove."""
    shutil.copytree(whole, tmp_path / "run")
    path = tmp_path / "run" / NEWEST / name
    path.unlink()
    os.mkfifo(path)
    run(SHORT, tmp_path / "run")
    assert_same(stage_files(tmp_path / "run"), stage_files(whole))
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match=f"{name}.*{name}"):
        run(SHORT, tmp_path / "run")


def test_a_damaged_dense_network_is_trained_again(whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path / "run")
    path = next((tmp_path / "run/seed_0/dense/checkpoint").rglob("*/*"))
    flip(next(p for p in [path, *path.rglob("*")] if p.is_file()))
    run(SHORT, tmp_path / "run")
    assert "damaged or gone" in capsys.readouterr().out
    assert_same(stage_files(tmp_path / "run"), stage_files(whole))


def test_a_damaged_checkpoint_is_never_read(tmp_path):
    tree = {"kernel": np.arange(6.0)}
    checkpoint.save(tmp_path / "one", tree)
    np.testing.assert_array_equal(
        checkpoint.restore(tmp_path / "one", tree)["kernel"], tree["kernel"]
    )
    flip(next(p for p in (tmp_path / "one").rglob("*") if p.is_file()))
    with pytest.raises(ValueError, match="damaged or gone"):
        checkpoint.restore(tmp_path / "one", tree)
    (tmp_path / "two").mkdir()  # killed before its digests were written
    assert checkpoint.damaged_files(tmp_path / "two") == ["digests.json"]


def test_a_report_refuses_predictions_that_were_altered(whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path / "run")
    path = tmp_path / "run/seed_0/magnitude/round_01/predictions.csv"
    path.write_text(path.read_text().replace(",1", ",0", 1))
    with pytest.raises(UsageError, match=r"round_01/predictions.csv: damaged"):
        results.read(tmp_path / "run")
    assert main(["report", str(tmp_path / "run")]) == 2
    assert "damaged or gone; delete" in capsys.readouterr().err


def test_a_second_process_on_a_run_is_refused(whole, tmp_path, monkeypatch):
    shutil.copytree(whole, tmp_path / "run")
    holder = {"host": "elsewhere", "process": 7, "started": ""}
    storage.write_json(tmp_path / "run/seed_0/magnitude.lock", holder)
    with pytest.raises(UsageError, match="is being written by process 7 on elsewhere"):
        run(SHORT, tmp_path / "run")
    monkeypatch.setattr(lock, "STALE_AFTER", -1.0)
    run(SHORT, tmp_path / "run")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '{"experiment": {}, "versions": {"fairgrape-jax": "0.1.0"}}',
            "format 1, written by .* 0.1.0",
        ),
        ('{"experiment": {}, "format": 99}', "format 99, written by fairgrape-jax an unknown"),
        ("{", "not the config.json of a run"),
        ("[]", "not the config.json of a run"),
        ('{"experiment": []}', "format 1"),
    ],
)
def test_a_directory_of_another_format_is_refused_with_its_version(tmp_path, text, said):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match=said):
        run(SHORT, tmp_path)
    assert main(["run", str(tmp_path)]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_only_complete_stages_are_in_the_log(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    truncate(tmp_path / "run/seed_0/magnitude/round_02/metrics.json")
    layout.write_log(tmp_path / "run")
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert len(lines) == 3  # dense, and two rounds of three


def test_arrays_with_any_bit_altered_are_not_read(tmp_path):
    """But for bits that say nothing of them, such as a date: then they are what they were."""
    path, arrays = tmp_path / "arrays.npz", {"a": np.arange(7), "b": np.float32(0.5)}
    storage.write_arrays(path, arrays, compressed=False)
    whole, refused = path.read_bytes(), 0
    for place, bit in itertools.product(range(len(whole)), range(8)):
        held = bytearray(whole)
        held[place] ^= 1 << bit
        path.write_bytes(held)
        found = storage.read_arrays(path)
        refused += found.keys() != arrays.keys()
        for name in found.keys() & arrays.keys():
            np.testing.assert_array_equal(found[name], arrays[name])
            assert found[name].dtype == np.asarray(arrays[name]).dtype
    assert refused > 4 * len(whole)
    assert storage.read_arrays(tmp_path / "nothing.npz") == {}


def test_a_record_that_was_sealed_again_with_a_layer_gone_is_refused(whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path / "run")
    path = tmp_path / "run" / NEWEST / "metrics.json"
    record = storage.read_checksummed(path)
    record["importance"].popitem()
    storage.write_checksummed(path, record)
    assert main(["report", str(tmp_path / "run")]) == 2
    assert "not the record of a stage (importance: not of its layers)" in capsys.readouterr().err
