"""The kinds of the fuzz that give files: tables, pictures, archives, weights, runs."""

import json
import shutil
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import jax
import numpy as np
from hypothesis import strategies as st
from safetensors.numpy import save

from fairgrape_jax import models, storage
from fairgrape_jax.errors import UsageError
from tests.helpers import layouts, strategies, unrendered
from tests.helpers.fuzzing import ENDED, attempt, folder, harmless, patience, written
from tests.helpers.strategies import altered_bytes, altered_json, arguments, words


@st.composite
def tables(draw):
    """A table of predictions: rows of nasty words where ids, classes and groups should be."""
    count = draw(st.integers(1, 8))
    pool = draw(st.lists(words, min_size=2, max_size=4))
    ids = [f"i{k}" for k in range(count)]
    if draw(st.booleans()):
        ids[0] = draw(words)
    cell = st.sampled_from(pool)
    rows = [[i, draw(cell), draw(cell), draw(cell)] for i in ids]
    header = ["id", "label", "prediction", "group"]
    if draw(st.integers(0, 5)) == 0:
        header[draw(st.integers(0, 3))] = draw(words)
    return header, rows


def audit_table(data, made, monkeypatch):
    header, rows = data.draw(tables())
    pruned = [[i, label, data.draw(st.sampled_from(rows))[1], g] for i, label, _, g in rows]
    name = data.draw(arguments.filter(lambda word: word and "/" not in word and len(word) < 50))
    with folder() as place:
        written(place / "dense.csv", header, rows)
        written(place / "pruned.csv", header, pruned)
        if data.draw(st.integers(0, 2)) == 0:
            content = data.draw(altered_bytes((place / "pruned.csv").read_bytes()))
            (place / "pruned.csv").write_bytes(content)
        more = ["--compressed", f"{name}=pruned.csv", "--replicates", 5, "--out", "out"]
        code, _ = attempt("audit table", ["audit", "--dense", "dense.csv", *more])
        if code == 0:
            harmless(place / "out")


def picture_table(data, made, monkeypatch):
    """The CSV of folder_csv: nasty names, columns and splits; the dataset is written and read."""
    count = 12
    header = ["file", "label", "group", "person", "part"]
    if data.draw(st.integers(0, 3)) == 0:
        header[data.draw(st.integers(0, 4))] = data.draw(words)
    pool = data.draw(st.lists(words, min_size=2, max_size=3))
    cell = st.sampled_from([*pool, "a", "b"])
    split = st.sampled_from(["train", "test", data.draw(words)])
    names = [f"{i}.jpg" for i in range(count)]
    rows = [[n, data.draw(cell), data.draw(cell), n, data.draw(split)] for n in names]
    if data.draw(st.integers(0, 3)) == 0:
        rows[0][0] = data.draw(words)
    options = ["--labels", header[1], "--groups", header[2]]
    options += data.draw(st.sampled_from(([], ["--split", header[4]], ["--source", header[3]])))
    with folder() as place:
        (place / "from").mkdir()
        for i, name in enumerate(names):
            (place / "from" / name).write_bytes(PICTURES[i])
        written(place / "from" / "labels.csv", header, rows)
        if data.draw(st.integers(0, 4)) == 0:
            path = place / "from" / "labels.csv"
            path.write_bytes(data.draw(altered_bytes(path.read_bytes())))
        words_of = [o.encode("utf-8", "replace").decode().replace("\x00", "") for o in options]
        line = [
            "data",
            "prepare",
            "folder_csv",
            "--from",
            "from",
            "--data-dir",
            "to",
            "--name",
            "x",
        ]
        code, _ = attempt("picture table", [*line, *words_of])
        if code == 0 and "--help" not in line + words_of:
            assert {path.name for path in (place / "to").iterdir()} <= {"x", "downloads"}
            assert attempt("its check", ["data", "check", "x", "--data-dir", "to"])[0] == 0


PICTURES = [layouts.jpeg(i) for i in range(12)]


def layout_of_pictures(data, made, monkeypatch):
    """Folders of FairFace, CelebA, ImageNet and so on with a file or two damaged."""
    name = data.draw(st.sampled_from(sorted(layouts.LAYOUTS)))
    with folder() as place:
        layouts.LAYOUTS[name](place / "from")
        inside = sorted(
            str(p.relative_to(place / "from")) for p in (place / "from").rglob("*") if p.is_file()
        )
        tables_of = [p for p in inside if not p.lower().endswith((".jpg", ".jpeg"))] or inside
        for _ in range(data.draw(st.integers(1, 2))):
            files = data.draw(st.sampled_from((tables_of, inside)))
            strategies.apply(place / "from", data.draw(strategies.damage(tuple(files))))
        lenient = data.draw(st.sampled_from(([], ["--lenient"])))
        line = ["data", "prepare", name, "--from", "from", "--data-dir", "to", *lenient]
        attempt("layout of pictures", line)


def prepared_dataset(data, made, monkeypatch):
    """A prepared dataset whose files were damaged, or whose description was edited."""
    with folder() as place:
        shutil.copytree(made / "folder_csv", place / "folder_csv")
        root = place / "folder_csv" / "1.0.0"
        if data.draw(st.booleans()):
            about = json.loads((root / "fairgrape.json").read_text())
            text = json.dumps(data.draw(altered_json(about)))
            (root / "fairgrape.json").write_text(text, encoding="utf-8", errors="surrogatepass")
        else:
            files = tuple(sorted(path.name for path in root.iterdir()))
            strategies.apply(root, data.draw(strategies.damage(files)))
        check = ["data", "check", "folder_csv", "--data-dir", "."]
        sheet = ["data", "sheet", "prepared", "--path", ".", "--dataset", "folder_csv"]
        sheet += ["--size", "8", "--augmentation", "none"]
        line = data.draw(st.sampled_from((check, sheet, ["data", "list", "--data-dir", "."])))
        attempt("prepared dataset", line)


def packed(form):
    """The bytes of an archive of 40 faces."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, f"faces.{form}")
        names = {f"faces/{i + 1}_{i % 2}_{i % 4}_2017.jpg": layouts.jpeg(i) for i in range(40)}
        if form == "zip":
            with zipfile.ZipFile(path, "w") as archive:
                for name, content in names.items():
                    archive.writestr(name, content)
        else:
            layouts.tar(path, names)
        return path.read_bytes()


ARCHIVES = {form: packed(form) for form in ("tar", "tar.gz", "zip")}


def archive_of_faces(data, made, monkeypatch):
    """A tar or zip of pictures, damaged, as the sources and the builders read it."""
    form = data.draw(st.sampled_from(("tar", "tar.gz", "zip")))
    with folder() as place:
        (place / "from").mkdir()
        path = place / "from" / f"faces.{form}"
        path.write_bytes(data.draw(altered_bytes(ARCHIVES[form])))
        builder = ["data", "prepare", "utk_face", "--from", "from", "--data-dir", "to", "--lenient"]
        reader = ["data", "sheet", "utkface", "--path", str(path), "--size", "8"]
        attempt(
            "archive", data.draw(st.sampled_from((builder, [*reader, "--augmentation", "none"])))
        )


NETWORK = "mobilenet_v2"


@cache
def network():
    """Variables of a network, all zero, and the same under torchvision's names."""
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    init = models.create(NETWORK, 2).init
    shapes = jax.eval_shape(init, jax.random.key(0), image)
    fresh = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    return fresh, models.to_torchvision(NETWORK, fresh)


def state_dict(data, made, monkeypatch):
    """Weights under torchvision's names: bytes, header, keys, shapes, types and values altered."""
    fresh, state = network()
    content = save(state)
    match data.draw(st.sampled_from(("bytes", "header", "arrays", "name"))):
        case "bytes":
            at = 8 + data.draw(st.integers(0, 2000))
            content = data.draw(altered_bytes(content[:at])) + content[at:]
        case "header":
            size = int.from_bytes(content[:8], "little")
            header = data.draw(altered_json(json.loads(content[8 : 8 + size])))
            text = json.dumps(header).encode("utf-8", "surrogatepass")
            content = len(text).to_bytes(8, "little") + text + content[8 + size :]
        case "arrays":
            arrays = dict(state)
            name = data.draw(st.sampled_from(sorted(arrays)))
            array = arrays.pop(name)
            change = data.draw(st.sampled_from(("cast", "reshape", "rename", "nan", "gone")))
            if change == "cast":
                kinds = (np.float16, np.int64, np.bool_, np.uint8, np.float64, np.complex64)
                arrays[name] = array.astype(data.draw(st.sampled_from(kinds)))
            elif change == "reshape":
                arrays[name] = data.draw(st.sampled_from((array[..., None], array.ravel()[:0])))
            elif change == "rename":
                arrays[data.draw(words).encode("utf-8", "replace").decode()] = array
            elif change == "nan":
                arrays[name] = np.full_like(array, data.draw(st.sampled_from((np.nan, np.inf))))
            content = save(arrays)
    suffix = data.draw(st.sampled_from((".safetensors", ".pt", ".pth", ".npz", ".pkl", "")))
    with folder() as place, patience():
        (place / f"weights{suffix}").write_bytes(content)
        try:
            variables = models.load_pretrained(NETWORK, place / f"weights{suffix}", fresh)
        except UsageError as refused:
            said = str(refused)
        else:
            said = ""
    if said:
        assert "\n" not in said
        ENDED["state dict", "refused"] += 1
        return
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables))
    models.to_torchvision(NETWORK, variables)
    ENDED["state dict", "done"] += 1


def run_directory(data, made, monkeypatch):
    """A finished run with one to three files damaged, reported on or gone on with."""
    with folder() as place, unrendered.charts():
        shutil.copytree(made / "run", place / "run")
        files = tuple(
            sorted(
                str(p.relative_to(made / "run")) for p in (made / "run").rglob("*") if p.is_file()
            )
        )
        for _ in range(data.draw(st.integers(1, 3))):
            strategies.apply(place / "run", data.draw(strategies.damage(files)))
        line = data.draw(st.sampled_from((["report"], ["report"], ["run"])))
        attempt("run directory", [*line, "run"])


def record_of_a_stage(data, made, monkeypatch):
    """metrics.json edited and sealed again, as somebody may who knows how: still our errors."""
    with folder() as place:
        shutil.copytree(made / "run", place / "run")
        stages = sorted((place / "run").rglob("metrics.json"))
        path = data.draw(st.sampled_from(stages))
        record = storage.read_checksummed(path)
        record = data.draw(altered_json(record))
        try:
            storage.write_checksummed(path, record)
        except ValueError:  # not finite, which JSON has no sign for
            return
        code, _ = attempt("record of a stage", ["report", "run"])
        if code == 0:
            harmless(place / "run")


# A kind: what draws and tries a case; its cases in the fast suite; its share of 2,400 in the long.
