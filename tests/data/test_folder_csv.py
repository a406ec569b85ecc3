"""Everybody's own data: names that tables give to files, empty cells, classes, what is left out."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairgrape_jax import data
from fairgrape_jax.cli.main import main
from fairgrape_jax.data.builders import builder
from fairgrape_jax.data.builders.folder_csv import FolderCsv
from fairgrape_jax.data.builders.image_folder import ImageFolder
from fairgrape_jax.data.builders.listing import PROBLEMS
from fairgrape_jax.data.dataset import NO_GROUP
from fairgrape_jax.data.sources import splits
from fairgrape_jax.data.sources.stored import stored_in
from fairgrape_jax.errors import UsageError
from tests.helpers import layouts
from tests.helpers.datasets import made, source

NAMES = ("a.jpg", "b/c.png", "b/d.e.jpg", "J\u00fcrgen.jpg", "b/x y.jpg", "7.JPEG")


def filled(place: Path, names=NAMES) -> Path:
    for i, name in enumerate(names):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(layouts.jpeg(i, kind="png" if name.endswith("png") else "jpeg"))
    return place


def listed(place: Path, cells, **options):
    """The rows of a table that calls the pictures by these names."""
    rows = [(name, "ab"[i % 2], "xy"[i // 2 % 2]) for i, name in enumerate(cells)]
    layouts.table(place / "labels.csv", ("file", "label", "group"), rows)
    return builder("folder_csv").read(place, FolderCsv(**options), place / "scratch")


def other_case(name: str) -> str:
    stem, dot, extension = name.rpartition(".")
    return stem + dot + extension.swapcase()


WAYS = {
    "as they are": lambda place, name: name,
    "absolute": lambda place, name: str(place / name),
    "from here": lambda place, name: f"./{name}",
    "with detours": lambda place, name: f"b/..//{name}",
    "with blanks": lambda place, name: f" {name}  ",
    "another case": lambda place, name: other_case(name),
    "without extension": lambda place, name: name.rpartition(".")[0],
    "of Windows": lambda place, name: name.replace("/", "\\"),
    "composed": lambda place, name: unicodedata.normalize("NFC", name),
    "decomposed": lambda place, name: unicodedata.normalize("NFD", name),
    "all at once": lambda place, name: (
        f" {place}/./{unicodedata.normalize('NFD', other_case(name))} "
    ),
}


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("way", WAYS)
def test_names_of_a_table_meet_the_files(way, form, tmp_path):
    names = [unicodedata.normalize(form, name) for name in NAMES]
    place = filled(tmp_path / "from", names)
    listing = listed(place, [WAYS[way](place, name) for name in names])
    assert [row.name for row in listing.rows] == names
    assert [row.file.holder for row in listing.rows] == [place / name for name in names]


def test_absolute_names_meet_files_behind_a_link(tmp_path):
    place = filled(tmp_path / "real")
    (tmp_path / "link").symlink_to(place)
    for table, there in ((place, tmp_path / "link"), (tmp_path / "link", place)):
        listed(there, [str(table / name) for name in NAMES])


def test_a_name_that_is_there_as_it_is_wins(tmp_path):
    names = ("a.jpg", "a.JPG", "a .jpg", "a", "a.png", "J\u00fc.jpg", "Ju\u0308.jpg")
    pictures = [name for name in names if "." in name]
    place = filled(tmp_path / "from", pictures)
    assert [row.name for row in listed(place, pictures).rows] == pictures
    with pytest.raises(UsageError, match=r"a\.Jpg \(.*there, but several times: a\.JPG, a\.jpg\)"):
        listed(place, ["a.Jpg"], allow="unlisted")
    with pytest.raises(UsageError, match=r"a \(.*there, but several times: a\.JPG, a\.jpg, a\.png"):
        listed(place, ["a"], allow="unlisted")


SEEN = {  # a name in the table: (what is there, what is said of it)
    "A.jpg": ("a.jpg", "there, but as a.jpg"),
    "a.png": ("a.jpg", "there, but as a.jpg"),
    "x.jpg": ("b/x.jpg", "there, but in another folder: b/x.jpg"),
    ".x.jpg": (".x.jpg", "there, but hidden"),
    "__MACOSX/x.jpg": ("__MACOSX/x.jpg", "there, but hidden, or left behind"),
    "x.heic": ("x.heic", "there, but a picture of another kind than .jpg"),
    "x.txt": ("x.txt", "there, but not a picture by its name"),
    "/etc/hostname": ("a.jpg", "there, but not in "),
}


@pytest.mark.parametrize("name", SEEN)
def test_a_name_that_nearly_fits_is_said_so(name, tmp_path):
    file, message = SEEN[name]
    place = filled(tmp_path / "from", ("1.jpg", file))
    with pytest.raises(UsageError, match=rf"1 rows without a picture: .*; {message}"):
        listed(place, ["1.jpg", name], allow="unlisted")
    with pytest.raises(UsageError, match=r"without a picture: gone.jpg \([^;]*labels.csv row 3\)"):
        listed(place, ["1.jpg", "gone.jpg"], allow="unlisted")


def test_two_names_of_one_picture_are_refused(tmp_path):
    place = filled(tmp_path / "from")
    with pytest.raises(UsageError, match=r"row 3: \./a\.jpg has a row before, .*row 2"):
        listed(place, ["a.jpg", "./a.jpg"], allow="unlisted")


@pytest.mark.parametrize(
    "suffix", ["jpg", "jpeg", "jfif", "jpe", "png", "tif", "tiff", "gif", "bmp", "ppm", "webp"]
)
@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_every_common_kind_of_picture_is_data(suffix, case, tmp_path):
    kind = {"jpg": "jpeg", "jfif": "jpeg", "jpe": "jpeg", "tif": "tiff"}.get(suffix, suffix)
    pixels = np.kron(np.array([[10, 240], [90, 170]], np.uint8), np.ones((8, 8), np.uint8))
    place = tmp_path / "from"
    place.mkdir()
    rows = []
    for i in range(12):
        name = f"{i}.{case(suffix)}"
        Image.fromarray(np.roll(pixels, i)).convert("RGB").save(place / name, kind)
        rows.append((name, i % 2, i // 2 % 2))
    layouts.table(place / "labels.csv", ("file", "label", "group"), rows)
    made("folder_csv", place, tmp_path)
    stored = stored_in(tmp_path / "folder_csv" / "1.0.0")
    assert len(stored.columns["name"]) == 12
    first = stored.columns["name"].tolist().index(f"0.{case(suffix)}".encode())
    from fairgrape_jax.data.images import decode

    found = decode.decode(stored.records.content(first)).astype(int)
    assert np.abs(found - pixels[..., None]).mean() < 12


# --- values


def same(name, cell):
    """Whether they are one number, or one truth value."""
    return float(name) == float(cell) if name[:1] not in "TF" else name == cell.capitalize()


@pytest.mark.parametrize(
    ("cells", "classes"),
    [
        (("0.0", "1.0", "10.0", "2.0"), ("0", "1", "2", "10")),
        (("1", "1.0", "-0.0", "0"), ("0", "1")),
        (("-1", "1", "-1.0", "1"), ("-1", "1")),
        (("01", "1", "10", "2"), ("01", "1", "2", "10")),
        (("1.0", "1", "a", "1"), ("1", "1.0", "a")),
        (("TRUE", "true", "False", "True"), ("False", "True")),
        (("J\u00fcrgen", "Ju\u0308rgen", "b", "b"), ("J\u00fcrgen", "b")),
        (("nan", "b", "a", "nan"), ("a", "b", "nan")),
        (("age 10", "age 9", "age 9", "adult"), ("adult", "age 9", "age 10")),
        (("0.25", "0.5", "1e-05", "0.50"), ("0.00001", "0.25", "0.5")),
    ],
)
def test_classes_have_one_spelling_and_one_order(cells, classes, tmp_path):
    place = filled(tmp_path / "from", ("1.jpg", "2.jpg", "3.jpg", "4.jpg"))
    rows = [(f"{i + 1}.jpg", cell, cell) for i, cell in enumerate(cells)]
    layouts.table(place / "labels.csv", ("file", "label", "group"), rows)
    listing = builder("folder_csv").read(place, FolderCsv(), place)
    assert [column.classes for column in listing.columns] == [classes] * 2
    for row, cell in zip(listing.rows, cells, strict=True):
        name = classes[row.values[0]]
        assert name == unicodedata.normalize("NFC", cell) or same(name, cell)


def test_empty_cells_are_listed_all_at_once(tmp_path):
    place = layouts.folder(tmp_path / "from")
    text = (place / "labels.csv").read_text().splitlines()
    for number, column in ((3, 1), (5, 2), (9, 2), (12, 3)):
        cells = text[number].split(",")
        cells[column] = " "
        text[number] = ",".join(cells)
    (place / "labels.csv").write_text("\n".join(text))
    with pytest.raises(UsageError, match="4 empty cells") as caught:
        made("folder_csv", place, tmp_path, source="person")
    for where in ("row 4 (label)", "row 6 (group)", "row 10 (group)", "row 13 (person)"):
        assert where in str(caught.value)
    made("folder_csv", place, tmp_path, allow="empty", source="person")
    stored = stored_in(tmp_path / "folder_csv" / "1.0.0")
    assert len(stored.columns["name"]) == 28
    assert (stored.columns["values"] == NO_GROUP).sum(0).tolist() == [0, 2]
    assert "4 empty cells" in stored.about["notes"][0]


# --- what is left out


def spoilt(place: Path) -> Path:
    """A folder with each problem that its table can have."""
    layouts.folder(place)
    (place / "p3/003.jpg").unlink()
    (place / "p3/x.jpg").write_bytes(layouts.jpeg(77))
    path = place / "p7/007.png"
    path.write_bytes(path.read_bytes()[:200])
    text = (place / "labels.csv").read_text()
    (place / "labels.csv").write_text(text.replace("p1/001.jpg,yes,young", "p1/001.jpg,yes,"))
    return place


KINDS = {"empty": "1 empty cells", "missing": "1 rows without", "unlisted": "1 pictures without"}
KINDS |= {"broken": "1 pictures that cannot be decoded"}


def test_each_problem_is_allowed_by_its_own_name(tmp_path):
    place = spoilt(tmp_path / "from")
    for left in KINDS:
        allow = ",".join(kind for kind in KINDS if kind != left)
        with pytest.raises(UsageError, match=rf"{KINDS[left]}.*--allow {left}"):
            made("folder_csv", place, tmp_path, allow=allow)
    for options in ({"allow": " , ".join(KINDS)}, {"lenient": True}):
        directory = made("folder_csv", place, tmp_path / next(iter(options)), **options)
        stored = stored_in(directory)
        assert len(stored.columns["name"]) == 28
        notes = "\n".join(stored.about["notes"])
        assert all(text in notes for text in KINDS.values())


def test_an_unknown_problem_is_named(tmp_path, capsys):
    with pytest.raises(UsageError, match=r"--allow: 'blurred' is none of unlisted, missing, bro"):
        made("folder_csv", tmp_path, tmp_path, allow="broken,blurred")
    words = ["data", "prepare", "folder_csv", "--data-dir", str(tmp_path), "--from", str(tmp_path)]
    assert main([*words, "--allow", "blurred"]) == 2
    assert "'blurred' is none of" in capsys.readouterr().err
    place = spoilt(tmp_path / "from")
    words[-1] = str(place)
    assert main([*words, "--allow", "unlisted,missing,broken,empty"]) == 0
    assert len(PROBLEMS) == len(set(PROBLEMS.values()))


def test_that_no_picture_is_left_is_said_with_the_reason(tmp_path):
    place = filled(tmp_path / "from")
    assert listed(place, ["gone.jpg", "lost.jpg"], lenient=True).rows == ()
    with pytest.raises(UsageError, match=r"no picture is left \(2 rows without a picture.*gone"):
        made("folder_csv", place, tmp_path, lenient=True)
    for name in NAMES:
        (place / name).write_bytes(b"no picture")
    listed(place, NAMES)
    with pytest.raises(UsageError, match=r"no picture is left \(6 pictures that cannot be decoded"):
        made("folder_csv", place, tmp_path, lenient=True)
    assert not (tmp_path / "folder_csv").exists()


def test_a_class_that_nothing_is_left_of_is_noted(tmp_path):
    place = filled(tmp_path / "from")
    rows = [(name, "ab"[i % 2], "xy"[i // 2 % 2]) for i, name in enumerate(NAMES)]
    rows.append(("gone.jpg", "c", "x"))
    layouts.table(place / "labels.csv", ("file", "label", "group"), rows)
    made("folder_csv", place, tmp_path, allow="missing")
    about = stored_in(tmp_path / "folder_csv" / "1.0.0").about
    assert about["columns"][0]["classes"] == ["a", "b"]
    assert "no picture is left of label c" in about["notes"]


def test_check_counts_labels_by_group_and_flags_single_pictures(tmp_path, capsys):
    place = layouts.folder(tmp_path / "from")
    text = (place / "labels.csv").read_text()
    text = text.replace("p1/001.jpg,yes,young", "p1/001.jpg,perhaps,young")
    text = text.replace("p2/002.jpg,no,young", "p2/002.jpg,no,")
    (place / "labels.csv").write_text(text)
    made("folder_csv", place, tmp_path, allow="empty")
    assert main(["data", "check", "folder_csv", "--data-dir", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("label x group"))
    assert [line.split() for line in lines[first : first + 4]] == [
        ["label", "x", "group", "old", "young"],
        ["no", "5", "9"],
        ["perhaps", "0", "1"],
        ["yes", "5", "9"],
    ]
    assert "group, in no group: 1 " in "\n".join(lines)
    assert "caution: label perhaps: one picture only" in lines
    assert "caution: 1 cells of one picture only: label perhaps with group young" in lines


# --- tables of other forms


def test_a_table_of_json_lines(tmp_path):
    place = filled(tmp_path / "from")
    values = [(1, True), (1.0, False), (0, True), (0, None), (1, True), (2, False)]
    lines = [
        json.dumps({"file": n, "label": a, "group": b, "boxes": [1, 2]})
        for n, (a, b) in zip(NAMES, values, strict=True)
    ]
    (place / "labels.jsonl").write_text("\n".join(lines))
    options = FolderCsv(csv="labels.jsonl", allow="empty")
    listing = builder("folder_csv").read(place, options, place)
    assert [column.classes for column in listing.columns] == [("0", "1", "2"), ("False", "True")]
    assert [row.values for row in listing.rows] == [
        (1, 1), (1, 0), (0, 1), (0, NO_GROUP), (1, 1), (2, 0),
    ]  # fmt: skip
    for broken, message in (("{", "row 2: not JSON"), ("[]", "row 2: not an object")):
        (place / "labels.jsonl").write_text(f"{lines[0]}\n{broken}\n")
        with pytest.raises(UsageError, match=message):
            builder("folder_csv").read(place, options, place)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_metadata_beside_the_pictures(kind, tmp_path):
    place = layouts.image_folder(tmp_path / "from", kind)
    made("image_folder", place, tmp_path)
    columns = stored_in(tmp_path / "image_folder" / "1.0.0").columns
    assert b"test/pictures/024.jpg" in columns["name"]
    kept = source(tmp_path, "image_folder", split_by="given")
    assert list(map(len, splits.sides(columns, kept.division))) == [22, 2, 6]
    (place / "train" / f"metadata.{kind}").unlink()
    with pytest.raises(UsageError, match="24 pictures without a row"):
        made("image_folder", place, tmp_path / "to")
    (place / "test" / f"metadata.{kind}").unlink()
    with pytest.raises(UsageError, match=r"no metadata.csv or metadata.jsonl in it"):
        builder("image_folder").read(place, ImageFolder(), place)


@pytest.mark.parametrize("named", [True, False])
def test_parquet_files_that_hold_the_pictures(named, tmp_path):
    place = layouts.hf_parquet(tmp_path / "from", named=named)
    made("hf_parquet", place, tmp_path)
    stored = stored_in(tmp_path / "hf_parquet" / "1.0.0")
    classes = ["no", "yes"] if named else ["0", "1"]
    assert [c["classes"] for c in stored.about["columns"]] == [classes, ["old", "young"]]
    names = [name.decode() for name in stored.columns["name"].tolist()]
    numbers = (
        [int(name[:3]) for name in names]
        if named
        else [
            {"train-00000": -1, "train-00001": 11, "test-00000-": 23}[name[5:16]]
            + int(name.split("/")[-1])
            for name in names
        ]
    )
    assert sorted(numbers) == list(range(30))
    for i, number in enumerate(numbers):
        assert stored.records.content(i) == layouts.jpeg(number)
        assert stored.columns["values"][i].tolist() == [number % 2, int(number % 3 != 0)]
    assert {split.decode() for split in stored.columns["split"]} == {"train", "test"}


def test_parquet_files_that_cannot_be_read_are_named(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    place = layouts.hf_parquet(tmp_path / "from")
    with pytest.raises(UsageError, match=r"no column 'race'; it has image, label, group"):
        made("hf_parquet", place, tmp_path / "to", groups=("race",))
    with pytest.raises(UsageError, match=r"no \.parquet file in it"):
        made("hf_parquet", layouts.folder(tmp_path / "folder"), tmp_path / "to")
    path = place / "data" / "test-00000-of-00001.parquet"
    picture = {"bytes": None, "path": "x.jpg"}
    pq.write_table(pa.table({"image": [picture], "label": [1], "group": ["old"]}), path)
    with pytest.raises(UsageError, match=r"row 1: column 'image' holds the path 'x.jpg', not its"):
        made("hf_parquet", place, tmp_path / "to")
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(UsageError, match="cannot be read as Parquet"):
        made("hf_parquet", place, tmp_path / "to")


def test_celeba_in_the_form_of_kaggle_is_the_same_dataset(tmp_path):
    made("celeb_a_attributes", layouts.celeba(tmp_path / "old"), tmp_path / "a")
    made("celeb_a_attributes", layouts.celeba_of_kaggle(tmp_path / "new"), tmp_path / "b")
    ours, theirs = (
        stored_in(tmp_path / top / "celeb_a_attributes" / "1.0.0") for top in ("a", "b")
    )
    assert ours.about["columns"] == theirs.about["columns"]
    a, b = (np.argsort(stored.columns["name"]) for stored in (ours, theirs))
    for name in ("name", "values", "digest"):
        np.testing.assert_array_equal(ours.columns[name][a], theirs.columns[name][b])
    splits = theirs.columns["split"][b].astype(str).tolist()
    assert splits == ["train"] * 30 + ["validation"] * 30 + ["test"] * 20
    dataset = data.load(source(tmp_path / "b", "celeb_a_attributes", split_by="given"))
    assert list(map(len, (dataset.train, dataset.validation, dataset.test))) == [30, 30, 20]
    table = tmp_path / "new" / "list_attr_celeba.csv"
    table.write_text(table.read_text().replace("-1", "0", 1))
    with pytest.raises(
        UsageError, match=r"list_attr_celeba.csv row 2: unknown Bald '0'; known: -1"
    ):
        made("celeb_a_attributes", tmp_path / "new", tmp_path / "c")
