"""What counts as a picture, in folders, tars and zips alike: links, leftovers, one opening."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import pytest

from fairgrape_jax import data
from fairgrape_jax.data.builders import builder
from fairgrape_jax.data.images import files
from fairgrape_jax.data.sources.stored import stored_in
from fairgrape_jax.errors import UsageError
from tests.helpers import layouts
from tests.helpers.datasets import made, source

LEFTOVERS = (
    ".Trash-1000/files/1.jpg",
    ".thumbnails/1.jpg",
    "a/.hidden.png",
    "@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg",
    "a/@eaDir/1.jpg",
    "__MACOSX/._1.jpg",
    "__MACOSX/a/1.jpg",
    "a/._1.jpg",
    "._1.jpg",
    ".DS_Store",
    "a/Thumbs.db",
    "$RECYCLE.BIN/1.jpg",
    ".git/1.jpg",
)
PICTURES = ("1.jpg", "a/2.png", "a/b.c/3.JPG", "a/4.jpeg", "dot.in.name.jpg")


@pytest.fixture(params=["folder", "tar", "tar.gz", "zip", "tar with ./"])
def untidy(request, tmp_path) -> Path:
    """A place with pictures and what systems leave beside them."""
    content = {name: layouts.jpeg(i) for i, name in enumerate(PICTURES)}
    content |= {name: b"\0\5\26\7" * 20 for name in LEFTOVERS}
    if request.param == "zip":
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            for name, data_of in content.items():
                archive.writestr(name, data_of)
        return tmp_path / "x.zip"
    if request.param == "folder":
        for name, data_of in content.items():
            (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "x" / name).write_bytes(data_of)
        return tmp_path / "x"
    dotted = request.param.endswith("./")
    path = tmp_path / f"x.{request.param.split()[0]}"
    layouts.tar(path, {("./" if dotted else "") + n: c for n, c in content.items()})
    return path


def test_what_systems_leave_is_never_data(untidy, tmp_path):
    found = files.find(untidy, tmp_path / "scratch", "pictures")
    assert [entry.name for entry in found.entries] == sorted(PICTURES)
    for entry in found.entries:
        assert files.read(entry) == layouts.jpeg(PICTURES.index(entry.name))
    assert found.notes == ()


def test_a_place_that_is_hidden_itself_is_read(tmp_path):
    place = layouts.folder(tmp_path / ".cache" / "from")
    assert len(files.find(place, tmp_path, "pictures").entries) == 30


def test_a_tar_in_a_tar_that_a_mac_left_is_no_tar(tmp_path):
    layouts.tar(tmp_path / "inner.tar", {"1.jpg": layouts.jpeg(1)})
    inner = (tmp_path / "inner.tar").read_bytes()
    layouts.tar(tmp_path / "outer.tar", {"n1.tar": inner, "._n1.tar": b"\0\5\26\7"})
    found = files.find(tmp_path / "outer.tar", tmp_path, "pictures")
    assert [entry.name for entry in found.entries] == ["n1/1.jpg"]


def test_pictures_that_cannot_be_read_are_noted(tmp_path):
    for name in ("1.jpg", "2.heic", "3.AVIF", "notes.txt"):
        (tmp_path / name).write_bytes(layouts.jpeg(1))
    found = files.find(tmp_path, tmp_path, "pictures")
    assert [entry.name for entry in found.entries] == ["1.jpg"]
    assert "2 not read" in found.notes[0]
    assert "2.heic, 3.AVIF" in found.notes[0]


# --- links


def joined(place: Path, elsewhere: Path) -> Path:
    """UTKFace of which 60 pictures lie in the folder, 60 in a linked one, 60 are linked files."""
    for folder in (place, elsewhere / "folder", elsewhere / "files"):
        folder.mkdir(parents=True)
    for i in range(180):
        name = f"{1 + i % 90}_{i % 2}_{i // 2 % 4}_20170101{i:04}.jpg.chip.jpg"
        folder = (place, elsewhere / "folder", elsewhere / "files")[i // 60]
        (folder / name).write_bytes(layouts.jpeg(i))
        if i >= 120:
            (place / name).symlink_to(folder / name)
    (place / "part2").symlink_to(elsewhere / "folder", target_is_directory=True)
    return place


def test_linked_folders_and_files_are_followed(tmp_path):
    place = joined(tmp_path / "from", tmp_path / "elsewhere")
    made("utk_face", place, tmp_path / "to", lenient=True)
    prepared = data.load(source(tmp_path / "to", "utk_face"))
    dataset = data.load(data.source("utkface", path=str(place), size=16))
    for read in (prepared, dataset):
        assert sum(map(len, (read.train, read.validation, read.test))) == 180


def test_linked_class_folders_of_imagenet_are_followed(tmp_path):
    place = layouts.imagenet(tmp_path / "from", "folder")
    for synset in layouts.SYNSETS[:2]:
        (place / "train" / synset).rename(tmp_path / synset)
        (place / "train" / synset).symlink_to(tmp_path / synset)
    listing = builder("imagenet2012").read(
        place, builder("imagenet2012").options(), tmp_path / "scratch"
    )
    assert len(listing.rows) == 24 + 6


@pytest.mark.parametrize("target", [".", "..", "../a"])
def test_links_in_a_circle_are_refused(target, tmp_path):
    place = layouts.folder(tmp_path / "from")
    (place / "a").mkdir()
    (place / "a" / "link").symlink_to(target, target_is_directory=True)
    with pytest.raises(UsageError, match="a/link: a link back to a folder that it lies in"):
        files.find(place, tmp_path, "pictures")


def test_two_links_that_lead_to_one_another_are_refused(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(layouts.jpeg(1))
    (tmp_path / "a" / "to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to_a").symlink_to(tmp_path / "a")
    with pytest.raises(UsageError, match="a link back to a folder"):
        files.find(tmp_path / "a", tmp_path, "pictures")


@pytest.mark.parametrize("name", ["lost", "lost.jpg"])
def test_a_link_to_nothing_is_refused(name, tmp_path):
    place = layouts.folder(tmp_path / "from")
    (place / name).symlink_to(tmp_path / "gone")
    with pytest.raises(UsageError, match=f"{name}: a link to nothing; mend or remove it"):
        files.find(place, tmp_path, "pictures")


def test_links_in_an_archive_are_noted_and_second_names_are_read(tmp_path):
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "1.jpg").write_bytes(layouts.jpeg(1))
    (tmp_path / "from" / "2.jpg").hardlink_to(tmp_path / "from" / "1.jpg")
    (tmp_path / "from" / "part2").symlink_to(tmp_path / "elsewhere")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(tmp_path / "from", ".")
    found = files.find(tmp_path / "x.tar", tmp_path, "pictures")
    assert [entry.name for entry in found.entries] == ["1.jpg", "2.jpg"]
    assert {files.read(entry) for entry in found.entries} == {layouts.jpeg(1)}
    assert found.notes == ("1 not read, a link inside an archive: part2",)


# --- zips


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_is_opened_as_often_however_many_pictures_it_holds(
    compression, tmp_path, monkeypatch
):
    opened, open_zip = [], zipfile.ZipFile.__init__

    def counted(self, *arguments, **options):
        opened.append(arguments)
        open_zip(self, *arguments, **options)

    counts = []
    for count in (10, 40, 160):
        place = tmp_path / str(count)
        place.mkdir()
        names = [f"{i:04}.jpg" for i in range(count)]
        with zipfile.ZipFile(place / "x.zip", "w", compression) as archive:
            for i, name in enumerate(names):
                archive.writestr(name, layouts.jpeg(i, (8, 8)))
        rows = [(name, "ab"[i % 2], "xy"[i // 2 % 2]) for i, name in enumerate(names)]
        layouts.table(place / "labels.csv", ("file", "label", "group"), rows)
        opened.clear()
        with monkeypatch.context() as patch:
            patch.setattr(zipfile.ZipFile, "__init__", counted)
            made("folder_csv", place / "x.zip", place / "to", shard_bytes=2_000)
        counts.append(sum(str(a[0]).endswith("x.zip") for a in opened))
        directory = place / "to" / "folder_csv" / "1.0.0"
        assert len(stored_in(directory).columns["name"]) == count
    assert counts[0] == counts[1] == counts[2] <= 2


def test_a_zip_that_was_replaced_is_opened_anew(tmp_path):
    for number in (1, 2):
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            archive.writestr("1.jpg", layouts.jpeg(number))
        (entry,) = files.find(tmp_path / "x.zip", tmp_path, "pictures").entries
        assert files.read(entry) == layouts.jpeg(number)
