"""`fairgrape data`: prepare, check, list, and requests that cannot be met."""

from __future__ import annotations

import json

import pytest

from fairgrape_jax.cli.main import main
from tests.helpers import layouts


def test_the_command_prepares_checks_and_lists(tmp_path, capsys):
    place = layouts.utkface(tmp_path / "from")
    to = ["--data-dir", str(tmp_path)]
    assert main(["data", "prepare", "utk_face", "--from", str(place), *to]) == 0
    assert "166 pictures in" in capsys.readouterr().out
    names = tmp_path / "equal.csv"
    assert main(["data", "check", "utk_face", *to, "--names", str(names)]) == 0
    text = capsys.readouterr().out
    assert "16 files equal others, in 16 sets" in text
    assert "would cross a split by source" in text
    assert "race Indian:" in text
    assert len(names.read_text().splitlines()) == 33
    assert main(["data", "list", *to]) == 0
    text = capsys.readouterr().out
    assert "166 pictures; gender, race, age" in text
    assert "imagenet_people" in text
    about = tmp_path / "utk_face" / "1.0.0" / "fairgrape.json"
    whole = about.read_text()
    about.write_text(json.dumps(json.loads(whole) | {"sha256": {}}))
    assert main(["data", "check", "utk_face", *to]) == 2
    assert "names none of its record files" in capsys.readouterr().err
    about.write_text(whole)
    record = next((tmp_path / "utk_face" / "1.0.0").glob("*.array_record-*"))
    content = bytearray(record.read_bytes())
    content[len(content) // 2] ^= 0xFF
    record.write_bytes(content)
    assert main(["data", "check", "utk_face", *to]) == 2
    said = capsys.readouterr()
    assert f"damaged: {record}" in said.out
    assert "broken files" in said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "bake"], "unknown command 'bake': choose from prepare, check, list, sheet"),
        (["data", "prepare"], "name what to prepare: fair_face"),
        (["data", "prepare", "lfw", "--from", "."], "unknown builder 'lfw'"),
        (["data", "prepare", "utk_face"], "--from: give a folder, .tar"),
        (["data", "prepare", "utk_face", "--from", "nowhere"], "nowhere: no such file"),
        (["data", "prepare", "utk_face", "--from", ".", "--name", "A b"], "--name 'A b'"),
        (["data", "check", "cats", "--data-dir", "."], "no prepared dataset"),
        (["data", "sheet", "cats"], "'cats' is unknown"),
        (["data", "sheet", "--out", "none"], "--out none: end it with .png, .jpg or .webp"),
        (["data", "sheet", "synthetic", "--augmentation", "wild"], "unknown augmentation 'wild'"),
    ],
)
def test_bad_requests_of_the_data_command(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
