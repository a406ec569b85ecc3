"""Small imitations of the real layouts of datasets, with generated pictures."""

from __future__ import annotations

import csv
import io
import itertools
import json
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fairgrape_jax.data.builders import fair_face

SYNSETS = ("n01440764", "n01443537", "n02084071")
PEOPLE = {  # synset: (safety, imageability)
    "n10000001": ("safe", "4.8"),
    "n10000002": ("safe", "4.0"),
    "n10000003": ("offensive", "5"),
    "n10000004": ("safe", "3.9"),
    "n10000005": ("safe", "4.5"),  # too few pictures
}


def jpeg(number: int, size: tuple[int, int] = (24, 20), kind: str = "jpeg") -> bytes:
    """A picture of its own for each number."""
    rng = np.random.default_rng(number)
    pixels = np.kron(rng.integers(0, 256, (4, 4, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    out = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(out, kind)
    return out.getvalue()


def table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def fairface(place: Path, crops: int = 2) -> Path:
    """Every race, gender and age; each picture has `crops` faces."""
    every = list(itertools.product(fair_face.AGES, fair_face.GENDERS, fair_face.RACES))
    for folder, part in (("train", "train"), ("val", "val")):
        inside = place / "fairface-img-margin025-trainval" / folder
        inside.mkdir(parents=True)
        rows = []
        for i, (age, gender, race) in enumerate(every if folder == "train" else every[::9]):
            for face in range(crops):
                name = f"{i}_face{face}.jpg"
                (inside / name).write_bytes(jpeg(1000 * (folder == "val") + 2 * i + face))
                rows.append((f"{folder}/{name}", age, gender, race, bool(i % 2)))
        header = ("file", "age", "gender", "race", "service_test")
        table(place / f"fairface_label_{part}.csv", header, rows)
    return place


def utkface(place: Path) -> Path:
    """200 pictures, 20 of them equal to others, both odd names."""
    place.mkdir(parents=True, exist_ok=True)
    for i in range(180):
        name = f"{1 + i % 90}_{i % 2}_{i // 2 % 5}_2017{i:05}.jpg.chip.jpg"
        (place / name).write_bytes(jpeg(i))
        if i < 20:
            (place / f"30_{i % 2}_{i // 4 % 4}_copy{i:03}.jpg.chip.jpg").write_bytes(jpeg(i))
    (place / "55_0_0_20170116232725357jpg.chip.jpg").write_bytes(jpeg(901))
    (place / "24_0_1_20170116220224657 .jpg.chip.jpg").write_bytes(jpeg(902))
    return place


def celeba(place: Path, holder: str = "folder") -> Path:
    """80 pictures, 4 attributes, in a folder, a zip or a tar.gz."""
    place.mkdir(parents=True, exist_ok=True)
    pictures = {f"{i:06}.jpg": jpeg(i, (22, 26)) for i in range(1, 81)}
    if holder == "folder":
        (place / "img_align_celeba").mkdir()
        for name, content in pictures.items():
            (place / "img_align_celeba" / name).write_bytes(content)
    elif holder == "zip":
        with zipfile.ZipFile(place / "img_align_celeba.zip", "w") as archive:
            for name, content in pictures.items():
                archive.writestr(f"img_align_celeba/{name}", content)
    else:
        tar(place / "img_align_celeba.tar.gz", {f"./{n}": c for n, c in pictures.items()})
    names = ["Bald", "Male", "Smiling", "Young"]
    rows = [
        f"{name} " + " ".join(" 1" if (i >> k) & 1 else "-1" for k in range(4))
        for i, name in enumerate(pictures)
    ]
    text = "\n".join([str(len(rows)), " ".join(names), *rows]) + "\n"
    (place / "list_attr_celeba.txt").write_text(text)
    return place


def imagenet(place: Path, holder: str = "tar", each: int = 8) -> Path:
    """Three classes: the official tar of tars and the flat validation tar, or folders."""
    place.mkdir(parents=True, exist_ok=True)
    train = {
        s: {f"{s}_{i}.JPEG": jpeg(100 * k + i) for i in range(each)} for k, s in enumerate(SYNSETS)
    }
    val = {f"ILSVRC2012_val_{i:08}.JPEG": jpeg(1000 + i) for i in range(1, 7)}
    synsets = [SYNSETS[i % 3] for i in range(6)]
    if holder == "tar":
        inner = {}
        for synset, pictures in train.items():
            tar(place / "inner.tar", pictures)
            inner[f"{synset}.tar"] = (place / "inner.tar").read_bytes()
        (place / "inner.tar").unlink()
        tar(place / "ILSVRC2012_img_train.tar", inner)
        tar(place / "ILSVRC2012_img_val.tar", val)
        (place / "ILSVRC2012_validation_synsets.txt").write_text("\n".join(synsets))
        return place
    for split, pictures in (
        ("train", [(s, n, c) for s, each_of in train.items() for n, c in each_of.items()]),
        ("val", [(s, n, c) for s, (n, c) in zip(synsets, val.items(), strict=True)]),
    ):
        for synset, name, content in pictures:
            (place / split / synset).mkdir(parents=True, exist_ok=True)
            (place / split / synset / name).write_bytes(content)
    return place


def people(place: Path, each: int = 12) -> Path:
    """Five synsets of which two are kept, an unsure and a double label among their pictures."""
    images = place / "Images" / "Imagenet"
    images.mkdir(parents=True)
    said = []
    for k, synset in enumerate(PEOPLE):
        for i in range(3 if synset == "n10000005" else each):
            name = f"{synset}_{i}.JPEG"
            (images / name).write_bytes(jpeg(100 * k + i))
            gender = (
                ["unsure"]
                if i == 0
                else ["male", "female"]
                if i == 1
                else [("male", "female")[i % 2]]
            )
            said.append({"url": name, "gender": gender, "age": ["Adult Over 40"]})
    (place / "ImageNet demographics annotations.json").write_text(json.dumps(said))
    names = [(s, "a name, another", "a gloss") for s in PEOPLE]
    header = ("wnid", "synset", "gloss")
    safety = [(*n, PEOPLE[n[0]][0]) for n in names]
    table(place / "synsets_safety.csv", (*header, "safety"), safety)
    scores = [(*n, PEOPLE[n[0]][1]) for n in names]
    table(place / "imageability_scores.csv", (*header, "imageability score"), scores)
    return place


def folder(place: Path) -> Path:
    """30 pictures of 10 people, JPEG and PNG, with labels.csv."""
    rows = []
    for i in range(30):
        name = f"p{i % 10}/{i:03}.{'png' if i % 7 == 0 else 'jpg'}"
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(jpeg(i, kind="png" if i % 7 == 0 else "jpeg"))
        rows.append((name, ("no", "yes")[i % 2], ("young", "old")[i % 3 == 0], f"person {i % 10}"))
    table(place / "labels.csv", ("file", "label", "group", "person"), rows)
    return place


def celeba_of_kaggle(place: Path) -> Path:
    """The same as `celeba`, with the tables as CSV, the pictures one folder further down."""
    celeba(place)
    (place / "img_align_celeba").rename(place / "aligned")
    (place / "img_align_celeba").mkdir()
    (place / "aligned").rename(place / "img_align_celeba" / "img_align_celeba")
    text = (place / "list_attr_celeba.txt").read_text().splitlines()
    (place / "list_attr_celeba.txt").unlink()
    rows = [line.split() for line in text[2:]]
    table(place / "list_attr_celeba.csv", ("image_id", *text[1].split()), rows)
    splits = [(name, min(i // 30, 2)) for i, (name, *_) in enumerate(rows)]
    table(place / "list_eval_partition.csv", ("image_id", "partition"), splits)
    return place


def image_folder(place: Path, kind: str = "csv") -> Path:
    """30 pictures in train/ and test/, each with a metadata file of its own."""
    for split, numbers in (("train", range(24)), ("test", range(24, 30))):
        (place / split / "pictures").mkdir(parents=True)
        rows = []
        for i in numbers:
            name = f"pictures/{i:03}.jpg"
            (place / split / name).write_bytes(jpeg(i))
            rows.append((name, ("no", "yes")[i % 2], ("young", "old")[i % 3 == 0]))
        header = ("file_name", "label", "group")
        if kind == "csv":
            table(place / split / "metadata.csv", header, rows)
        else:
            lines = [json.dumps(dict(zip(header, row, strict=True))) for row in rows]
            (place / split / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return place


def hf_parquet(place: Path, *, named: bool = True) -> Path:
    """30 pictures as Hugging Face's `datasets` writes them, in two files of train, one of test.

    named: whether the pictures have paths, and the files the names of the classes.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    (place / "data").mkdir(parents=True)
    features = {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}, "group": {"dtype": "str"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if named else None
    for file, numbers in (
        ("train-00000-of-00002", range(12)),
        ("train-00001-of-00002", range(12, 24)),
        ("test-00000-of-00001", range(24, 30)),
    ):
        pictures = [{"bytes": jpeg(i), "path": f"{i:03}.jpg" if named else None} for i in numbers]
        columns = pa.table(
            {
                "image": pictures,
                "label": [i % 2 for i in numbers],
                "group": [("young", "old")[i % 3 == 0] for i in numbers],
            }
        )
        columns = columns.replace_schema_metadata(metadata)
        pq.write_table(columns, place / "data" / f"{file}.parquet", row_group_size=5)
    return place


LAYOUTS = {
    "fair_face": fairface,
    "utk_face": utkface,
    "celeb_a_attributes": celeba,
    "imagenet_people": people,
    "imagenet2012": imagenet,
    "folder_csv": folder,
    "image_folder": image_folder,
    "hf_parquet": hf_parquet,
}
