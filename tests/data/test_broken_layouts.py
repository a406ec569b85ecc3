"""Everything that can be wrong with what a builder is given: named, and nothing looks whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fairgrape_jax import data
from fairgrape_jax.data.sources.stored import stored_in
from fairgrape_jax.errors import UsageError
from tests.helpers import layouts
from tests.helpers.datasets import made, source


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
        rf"rows without a picture: train/3_face0.jpg \(.*{TRAIN} row 8",
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
        r"1 empty cells: .*labels.csv row 4 \(label\)\. --allow empty",
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
    stored = stored_in(tmp_path / "mine" / "1.0.0")
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
        UsageError, match=r"prepared otherwise \(others was False, now True\).*--name"
    ):
        made("utk_face", place, tmp_path, others=True)


def test_two_folders_of_the_same_faces_are_refused(tmp_path):
    place = layouts.fairface(tmp_path / "from")
    shutil.copytree(place / PICTURES, place / "fairface-img-margin125-trainval")
    with pytest.raises(UsageError, match=r"has the name of .*train/0_face0.jpg"):
        made("fair_face", place, tmp_path)
