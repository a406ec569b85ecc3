"""Preparing again: unchanged is said so, anything else is named and refused, or replaced."""

from __future__ import annotations

import shutil
import zipfile

import numpy as np
import pytest

from fairgrape_jax.cli.main import main
from fairgrape_jax.data.builders import builder, prepare
from fairgrape_jax.data.sources.stored import stored_in
from fairgrape_jax.errors import UsageError
from tests.helpers import layouts


def again(name, place, to, *, overwrite=False, **options):
    kind = builder(name).options
    return prepare.prepare(name, place, kind(**options), data_dir=to, overwrite=overwrite)


def edit(name, old, new):
    def change(place):
        text = (place / name).read_text()
        assert old in text
        (place / name).write_text(text.replace(old, new))

    return change


def rewrite(name, keep_size):
    """Another picture of that name, of the same bytes but for the pixels."""

    def change(place):
        content = (place / name).read_bytes()
        other = bytearray(content)
        other[-12] ^= 1
        (place / name).write_bytes(bytes(other) if keep_size else layouts.jpeg(500))

    return change


def more(place):
    (place / "p1/new.jpg").write_bytes(layouts.jpeg(40))
    with (place / "labels.csv").open("a") as file:
        file.write("p1/new.jpg,no,old,person 1\n")


def fewer(place):
    (place / "p1/001.jpg").unlink()
    edit("labels.csv", "p1/001.jpg,yes,young,person 1\n", "")(place)


CHANGES = {
    "a value": (edit("labels.csv", "p1/001.jpg,yes", "p1/001.jpg,no"), "label was yes, now no"),
    "a class": (edit("labels.csv", "yes", "aye"), "classes of label: new aye; gone yes"),
    "a group": (edit("labels.csv", "old", "elder"), "classes of group: new elder; gone old"),
    "a row more": (more, r"1 picture new \(p1/new.jpg\)"),
    "a row less": (fewer, r"1 picture gone \(p1/001.jpg\)"),
    "a picture": (rewrite("p1/001.jpg", False), r"1 picture with another file \(p1/001.jpg\)"),
    "its bytes": (rewrite("p1/001.jpg", True), r"1 picture with another file \(p1/001.jpg\)"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_has_changed_is_named_and_replaced_where_asked(change, tmp_path):
    place = layouts.folder(tmp_path / "from")
    assert again("folder_csv", place, tmp_path).is_new
    assert not again("folder_csv", place, tmp_path).is_new
    old = stored_in(tmp_path / "folder_csv" / "1.0.0")
    alter, message = CHANGES[change]
    alter(place)
    with pytest.raises(UsageError, match=rf"is there already, of other data: .*{message}.*--over"):
        again("folder_csv", place, tmp_path)
    kept = stored_in(tmp_path / "folder_csv" / "1.0.0")
    np.testing.assert_array_equal(kept.columns["values"], old.columns["values"])
    assert again("folder_csv", place, tmp_path, overwrite=True).is_new
    assert not again("folder_csv", place, tmp_path).is_new
    assert [path.name for path in (tmp_path / "folder_csv").iterdir()] == ["1.0.0"]
    # It is what is made of the changed files where there was nothing before.
    again("folder_csv", place, tmp_path / "fresh")
    ours, fresh = (
        stored_in(top / "folder_csv" / "1.0.0") for top in (tmp_path, tmp_path / "fresh")
    )
    assert ours.about == fresh.about | {"sha256": ours.about["sha256"]}
    for name, column in fresh.columns.items():
        np.testing.assert_array_equal(ours.columns[name], column)


def test_a_source_that_has_changed_is_named(tmp_path):
    place = layouts.folder(tmp_path / "from")
    again("folder_csv", place, tmp_path, source="person")
    edit("labels.csv", "young,person 1\n", "young,person 2\n")(place)
    with pytest.raises(UsageError, match="of another source"):
        again("folder_csv", place, tmp_path, source="person")


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_what_is_unchanged_is_said_so(layout, tmp_path):
    place = layouts.LAYOUTS[layout](tmp_path / "from")
    assert again(layout, place, tmp_path).is_new
    copy = shutil.copytree(place, tmp_path / "copy")  # of another time
    assert not again(layout, copy, tmp_path).is_new
    assert sorted(path.name for path in (tmp_path / layout).iterdir()) == ["1.0.0"]


def test_broken_pictures_that_are_left_out_are_no_change_until_they_are_repaired(tmp_path):
    place = layouts.folder(tmp_path / "from")
    whole = (place / "p1/001.jpg").read_bytes()
    (place / "p1/001.jpg").write_bytes(whole[:100])
    assert again("folder_csv", place, tmp_path, allow="broken").is_new
    assert not again("folder_csv", place, tmp_path, allow="broken").is_new
    (place / "p1/001.jpg").write_bytes(whole)
    with pytest.raises(UsageError, match=r"1 picture new \(p1/001.jpg\)"):
        again("folder_csv", place, tmp_path, allow="broken")


def test_a_zip_is_compared_like_a_folder(tmp_path):
    place = layouts.folder(tmp_path / "from")
    for number in (1, 2):
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            for path in sorted(place.rglob("*.*g")):
                archive.write(path, path.relative_to(place))
        if number == 2:
            break
        shutil.copy(place / "labels.csv", tmp_path)
        assert again("folder_csv", tmp_path / "x.zip", tmp_path / "to").is_new
        assert not again("folder_csv", tmp_path / "x.zip", tmp_path / "to").is_new
        (place / "p3/003.jpg").write_bytes(layouts.jpeg(99))
    with pytest.raises(UsageError, match=r"another file \(p3/003.jpg\)"):
        again("folder_csv", tmp_path / "x.zip", tmp_path / "to")


def test_other_options_and_builders_are_named(tmp_path):
    place = layouts.folder(tmp_path / "from")
    again("folder_csv", place, tmp_path)
    with pytest.raises(UsageError, match=r"otherwise \(source was '', now 'person'\).*--overwrite"):
        again("folder_csv", place, tmp_path, source="person")
    kind = builder("utk_face").options
    with pytest.raises(UsageError, match=r"otherwise \(by folder_csv, now utk_face\)"):
        prepare.prepare(
            "utk_face", layouts.utkface(tmp_path / "utk"), kind(), data_dir=tmp_path,
            called="folder_csv",
        )  # fmt: skip
    assert again("folder_csv", place, tmp_path, source="person", overwrite=True).is_new


def test_a_place_that_is_not_there_is_refused_before_anything_else(tmp_path, capsys):
    place = layouts.folder(tmp_path / "from")
    words = ["data", "prepare", "folder_csv", "--data-dir", str(tmp_path), "--name", "mine"]
    assert main([*words, "--from", str(place)]) == 0
    assert main([*words, "--from", str(place)]) == 0
    assert "already there, unchanged" in capsys.readouterr().out.splitlines()[-1]
    for flags in ([], ["--overwrite"]):
        assert main([*words, "--from", str(tmp_path / "nowhere"), *flags]) == 2
        said = capsys.readouterr()
        assert "nowhere: no such file or folder" in said.err
        assert said.out == ""
    assert len(stored_in(tmp_path / "mine" / "1.0.0").columns["name"]) == 30
    edit("labels.csv", "yes", "aye")(place)
    assert main([*words, "--from", str(place)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*words, "--from", str(place), "--overwrite"]) == 0
    assert stored_in(tmp_path / "mine" / "1.0.0").about["columns"][0]["classes"] == ["aye", "no"]


def test_a_refused_attempt_leaves_nothing_and_a_killed_one_goes_on(tmp_path, monkeypatch, capsys):
    place = layouts.folder(tmp_path / "from")
    whole = (place / "p1/001.jpg").read_bytes()
    for alter in (
        lambda: (place / "p1/001.jpg").write_bytes(whole[:100]),
        lambda: edit("labels.csv", "p1/001.jpg,yes", "p1/001.jpg,")(place),
    ):
        alter()
        with pytest.raises(UsageError):
            again("folder_csv", place, tmp_path / "to")
        assert list((tmp_path / "to").iterdir()) == []
        assert main(["data", "list", "--data-dir", str(tmp_path / "to")]) == 0
        assert "folder_csv" not in capsys.readouterr().out.split("prepared in")[1]
    edit("labels.csv", "p1/001.jpg,", "p1/001.jpg,yes")(place)
    (place / "p1/001.jpg").write_bytes(whole)

    def interrupted(done, total):
        if done > 10:
            raise KeyboardInterrupt

    options = builder("folder_csv").options()
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(
            "folder_csv", place, options, data_dir=tmp_path / "to", shard_bytes=3_000,
            progress=interrupted,
        )  # fmt: skip
    partial = tmp_path / "to" / "folder_csv" / ".1.0.0.partial"
    shards = list(partial.glob("shard-*.json"))
    assert len(shards) > 2
    # A request that is refused at once does not cost the shards that are there.
    with pytest.raises(UsageError, match="no column"):
        again("folder_csv", place, tmp_path / "to", labels=("mood",))
    assert list(partial.glob("shard-*.json")) == shards
    assert again("folder_csv", place, tmp_path / "to").is_new


def test_shards_of_a_picture_that_was_rewritten_meanwhile_are_forgotten(tmp_path):
    place = layouts.folder(tmp_path / "from")

    def interrupted(done, total):
        if done > 20:
            raise KeyboardInterrupt

    options = builder("folder_csv").options()
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(
            "folder_csv", place, options, data_dir=tmp_path, shard_bytes=3_000,
            progress=interrupted,
        )  # fmt: skip
    for path in place.rglob("*.jpg"):
        rewrite(path.relative_to(place), keep_size=True)(place)
    again("folder_csv", place, tmp_path)
    assert not again("folder_csv", place, tmp_path).is_new
