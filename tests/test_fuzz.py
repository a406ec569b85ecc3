"""Near-valid and senseless input of every kind: each is done, or refused in one of our lines.

The short form makes the same cases every time; `make fuzz CASES=n` makes n new ones of all kinds
together and prints how many of each kind ended how.
"""

import collections
import contextlib
import csv
import dataclasses
import io
import json
import math
import os
import re
import shutil
import signal
import tempfile
import warnings
import zipfile
from pathlib import Path

import jax
import layouts
import numpy as np
import pytest
import strategies
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save
from strategies import altered_bytes, altered_json, arguments, words
from test_cli import EXPERIMENT

from fairgrape_jax import cli, config, integrity, models, resume, rounds, steps
from fairgrape_jax.config import Experiment, Scoring, Stage
from fairgrape_jax.data import source
from fairgrape_jax.errors import UsageError
from fairgrape_jax.methods import METHODS

CASES = int(os.environ.get("CASES", "2400"))  # of all kinds together in the long form
PATIENCE = 60  # seconds after which a case hangs
ENDED = collections.Counter()  # (kind, how): cases

TINY = Experiment(
    data=source("synthetic", samples=120, groups=2, classes=2, size=8, seed=1),
    model="mlp",
    methods=("magnitude",),
    sparsity=0.75,
    keep_per_round=0.5,
    dense=Stage((1,), (1e-3,)),
    retrain=Stage((1,), (1e-3,)),
    final=Stage(),
    scoring=Scoring(fraction=0.5, micro_batch=16),
    batch=16,
    devices=1,
)


class AcceptedError(Exception):
    """All that is looked at before the first step is compiled has been."""


class Printed(io.TextIOWrapper):
    """A standard output or error that is a file: UTF-8, as strict as the real one."""

    def __init__(self, errors):
        super().__init__(io.BytesIO(), "utf-8", errors, write_through=True)

    def text(self):
        return self.buffer.getvalue().decode("utf-8")


@contextlib.contextmanager
def patience():
    def late(*_):
        raise AssertionError(f"hangs: nothing after {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def attempt(kind, given_arguments, *, stops=False):
    """The command in this process: (exit code, standard output). Every failure must be one line.

    stops: a run may also stop for what its numbers come to, a layer without weights say.
    """
    out, err = Printed("strict"), Printed("backslashreplace")
    with patience(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.attempt([str(word) for word in given_arguments])
            how = "refused" if code else "done"
        except AcceptedError:
            code, how = 0, "accepted"
        except SystemExit as stop:  # argparse and tyro: an option, or the value of one
            code, how = stop.code, "refused by the parser" if stop.code else "help"
    said = err.text()
    if stops and code == 1:
        assert re.fullmatch(r"(note: .*\n)*fairgrape: stopped: [^\n]+\n", said), said
        code, how = 0, "stopped"
    if how == "refused":
        assert code == 2, said
        assert re.fullmatch(r"(note: .*\n)*fairgrape: error: [^\n]+\n", said), said
    assert code in (0, 2), (code, said)
    assert "Traceback" not in said
    if how != "refused by the parser":  # which repeats what was typed
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", said + out.text()), said
    ENDED[kind, how] += 1
    return code, out.text()


@contextlib.contextmanager
def folder():
    """A folder with a place to break out to: nothing may be written beside the inner one."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as outer:
        inside = Path(outer, "a", "b", "c")
        inside.mkdir(parents=True)
        before = Path.cwd()
        os.chdir(inside)
        try:
            yield inside
        finally:
            os.chdir(before)
        found = [path for path in Path(outer).rglob("*owned*") if path != inside]
        assert not [path for path in found if inside not in path.parents], found
        assert len(list(Path(outer).iterdir())) == len(list(Path(outer, "a").iterdir())) == 1


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What cases begin with: a finished run, prepared data, weights."""
    place = tmp_path_factory.mktemp("made")
    with contextlib.redirect_stdout(io.StringIO()):
        rounds.run(TINY, place / "run")
        assert cli.attempt(["report", str(place / "run")]) == 0
        layouts.folder(place / "pictures")
        code = ["data", "prepare", "folder_csv", "--from", place / "pictures", "--data-dir", place]
        assert cli.attempt([str(word) for word in code]) == 0
    return place


# --- the kinds. Each draws a case and tries it.


def refused_before_compute(monkeypatch):
    def stop(*_):
        raise AcceptedError

    monkeypatch.setattr(steps, "build", stop)


def fields(kind, prefix=""):
    """The flags of the fields of an experiment, with their defaults."""
    found = {}
    for name, value in dataclasses.asdict(kind).items() if prefix == "" else kind.items():
        flag = f"{prefix}{name.replace('_', '-')}"
        if isinstance(value, dict):
            found |= fields(value, f"{flag}.")
        else:
            found[flag] = value
    return found


FLAGS = fields(TINY)
OTHER_FLAGS = ("--out", "--dataset", "--shard", "--distributed", "--num-processes", "--process-id",
               "--coordinator-address", "--start-timeout", "--sparcity", "-h")  # fmt: skip


@st.composite
def command_lines(draw):
    """`fairgrape run` with a few overrides, most of them near a good one; or another command."""
    head = draw(
        st.sampled_from(
            [["run", "tiny.py"]] * 6
            + [["run"], ["report"], ["list"], ["audit", "--dense", "x.csv", "--compressed"]]
            + [["data"], ["data", "check"], ["data", "list"], ["data", "sheet"]]
            + [["data", "prepare"], ["data", "prepare", "folder_csv", "--from", "."]]
        )
    )
    if head == ["data", "list"] or (head[-1] == "sheet" and draw(st.booleans())):
        head = [*head, "--size" if head[-1] == "sheet" else "--data-dir"]
    line = list(head)
    for _ in range(draw(st.integers(0, 3))):
        flag = draw(st.sampled_from(sorted(FLAGS)))
        now = FLAGS[flag]
        near = st.just(str(now if not isinstance(now, list | tuple) else "1"))
        some = st.integers(-3, 70).map(str) | st.floats(-2, 2).map(str)
        known = st.sampled_from(
            ["magnitude", "fairgrape", "cnn", "mlp", "resnet18", "adam", "sgd", "kmeans:2", "cubic",
             "global", "greedy", "official", "writers", "utkface", "prepared", "bfloat16", "1/2"]
        )  # fmt: skip
        value = draw(near | some | known | arguments)
        if draw(st.integers(0, 5)):
            line += [f"--{flag}", value] if draw(st.booleans()) else [f"--{flag}={value}"]
        else:
            line += [draw(st.sampled_from(OTHER_FLAGS) | arguments), value]
    return line + draw(st.lists(arguments, max_size=1))


LINE = '''"""Tiny."""
from fairgrape_jax.config import from_dict
EXPERIMENT = from_dict({})
'''


def command_line(data, made, monkeypatch):
    refused_before_compute(monkeypatch)
    line = data.draw(command_lines())
    with folder() as place:
        (place / "tiny.py").write_text(LINE.format(config.to_dict(TINY)))
        monkeypatch.setenv("TFDS_DATA_DIR", str(place / "data"))
        attempt("command line", line)


def experiment_file(data, made, monkeypatch):
    """A Python file of values with a slip of the keyboard in it."""
    refused_before_compute(monkeypatch)
    content = EXPERIMENT.encode()
    for _ in range(data.draw(st.integers(1, 2))):
        content = data.draw(altered_bytes(content))
    with folder() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        (place / "tiny.py").write_bytes(content)
        attempt("experiment file", ["run", "tiny.py"])


def configuration(data, made, monkeypatch):
    """config.json of a run directory: fields, types, names, the file's own bytes."""
    refused_before_compute(monkeypatch)
    stored = json.loads((made / "run" / "config.json").read_text())
    if data.draw(st.booleans()):
        kind = data.draw(st.sampled_from(("writers", "utkface", "prepared")))
        options = {"name": kind, "path": str(made), "dataset": "folder_csv"}
        known = dataclasses.asdict(source(kind))
        stored["experiment"]["data"] = {k: v for k, v in options.items() if k in ("name", *known)}
        if kind != "prepared":
            stored["experiment"]["data"]["path"] = ""
    stored["experiment"] = data.draw(altered_json(stored["experiment"]))
    if data.draw(st.integers(0, 5)) == 0:
        stored = data.draw(altered_json(stored))
    content = json.dumps(stored).encode("utf-8", "surrogatepass")
    if data.draw(st.integers(0, 5)) == 0:
        content = data.draw(altered_bytes(content))
    with folder() as place:
        (place / "run").mkdir()
        (place / "run" / "config.json").write_bytes(content)
        attempt("configuration", ["run", "run"])


STAGES = st.sampled_from(
    [{"epochs": [], "rates": [], "best": False}, {"epochs": [1], "rates": [1e-2], "best": True},
     {"epochs": [1, 1], "rates": [1e-2, 1e-3], "best": False}]
)  # fmt: skip
POSSIBLE = {  # values that somebody may well ask for, alone or together
    "model": st.sampled_from(["mlp", "cnn"]),
    "methods": st.lists(st.sampled_from(sorted(METHODS)), min_size=1, max_size=2, unique=True),
    "sparsity": st.floats(0.01, 0.999),
    "keep_per_round": st.floats(0.3, 0.7),
    "schedule": st.sampled_from(["geometric", "linear", "cubic", "one-shot"]),
    "rounds": st.integers(0, 3),
    "densities": st.lists(st.floats(0.01, 1.0), max_size=3),
    "start": st.sampled_from(["dense", "initial", "1", "2"]),
    "rewind": st.sampled_from(["dense", "initial", "1"]),
    "protocol": st.sampled_from(["equal", "official"]),
    "min_keep_per_layer": st.integers(0, 400),
    "dense": STAGES, "retrain": STAGES, "final": STAGES,
    "batch": st.sampled_from([1, 7, 16, 96, 1000]),
    "evaluation_batch": st.sampled_from([1, 5, 1000]),
    "optimizer": st.sampled_from(["adam", "adamw", "sgd"]),
    "augmentation": st.sampled_from(["none", "flip", "shift", "paper", "imagenet"]),
    "seeds": st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=2, unique=True),
    "devices": st.integers(0, 9),
    "checkpoints": st.sampled_from(["all", "last"]),
    "precision": st.sampled_from(["float32", "bfloat16"]),
    "lift": st.sampled_from(["pmap", "shard_map"]),
    "scoring.fraction": st.floats(1e-6, 1.0),
    "scoring.micro_batch": st.sampled_from([1, 3, 500]),
    "scoring.select": st.sampled_from(["threshold", "greedy"]),
    "scoring.scope": st.sampled_from(["layer", "global"]),
    "scoring.groups": st.sampled_from(["", "kmeans:2", "kmeans:30"]),
    "scoring.minority": st.lists(st.sampled_from(["group 0", "group 1", "nobody"]), max_size=2),
    "scoring.samples": st.integers(0, 300),
    "scoring.form": st.sampled_from(["pure", "mixed"]),
    "data.samples": st.sampled_from([20, 40, 121]),
    "data.groups": st.integers(1, 3),
    "data.classes": st.integers(1, 3),
    "data.tasks": st.integers(1, 2),
    "data.channels": st.sampled_from([1, 3, 5]),
    "data.size": st.sampled_from([1, 2, 3, 5, 8]),
    "data.limit": st.sampled_from([1, 2, 10]),
    "data.noise": st.sampled_from([0.0, 1e6]),
    "data.imbalance": st.sampled_from([0.01, 1.0]),
    "remedy.kd": st.sampled_from([0.0, 1.0]),
    "remedy.temperature": st.sampled_from([1e-3, 4.0]),
}  # fmt: skip


def whole_run(data, made, monkeypatch):
    """What passes every check must also run: no check is left out, no step fails in between."""
    experiment = config.to_dict(TINY)
    for field in data.draw(st.lists(st.sampled_from(sorted(POSSIBLE)), min_size=1, max_size=4)):
        *outer, name = field.split(".")
        part = experiment[outer[0]] if outer else experiment
        part[name] = data.draw(POSSIBLE[field])
    with folder() as place:
        (place / "run").mkdir()
        stored = json.loads((made / "run" / "config.json").read_text())
        stored["experiment"] = experiment
        (place / "run" / "config.json").write_text(json.dumps(stored))
        attempt("whole run", ["run", "run"], stops=True)


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


def written(path, header, rows):
    with path.open("w", newline="", encoding="utf-8", errors="surrogatepass") as file:
        csv.writer(file).writerows([header, *rows])


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


def harmless(out):
    """No name of a file or cell is markup, breaks a table, or is a formula in what was written."""
    page = (out / "report.html").read_text(encoding="utf-8")
    _, _, body = page.partition("</style>")
    assert not re.search(r"<(script|img|iframe|object|a)\b|<svg/|\son\w+\s*=\s*[^\"]*\(", body), (
        body
    )
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", page.replace("\t", ""))
    assert body.count("<svg ") == body.count("</svg>")
    text = (out / "report.md").read_text(encoding="utf-8")
    assert not re.search(r"<\w|\]\(javascript|[\x00-\x08\x0b-\x1f\x7f]", text), text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        lines = [re.sub(r"\\.", "", line) for line in block.splitlines()]
        assert len({line.count("|") for line in lines}) == 1, block
    for path in out.glob("*.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.reader(file):
                for cell in row:
                    assert not re.match(r"[=@\t\r]|[+-](?!inf$|nan$|[\d.])", cell), cell


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
        if code == 0:
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


def state_dict(data, made, monkeypatch):
    """Weights under torchvision's names: bytes, header, keys, shapes, types and values altered."""
    content = WEIGHTS
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
            arrays = dict(STATE)
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
            variables = models.load_pretrained(NETWORK, place / f"weights{suffix}", FRESH)
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


NETWORK = "mobilenet_v2"
IMAGE = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
FRESH = jax.tree.map(
    lambda leaf: np.zeros(leaf.shape, leaf.dtype),
    jax.eval_shape(models.create(NETWORK, 2).init, jax.random.key(0), IMAGE),
)
STATE = models.to_torchvision(NETWORK, FRESH)
WEIGHTS = save(STATE)


def run_directory(data, made, monkeypatch):
    """A finished run with one to three files damaged, reported on or gone on with."""
    with folder() as place:
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
        record = integrity.unseal(path)
        record = data.draw(altered_json(record))
        try:
            integrity.seal(path, record)
        except ValueError:  # not finite, which JSON has no sign for
            return
        code, _ = attempt("record of a stage", ["report", "run"])
        if code == 0:
            harmless(place / "run")


# A kind: what draws and tries a case; its cases in the fast suite; its share of 2,400 in the long.
KINDS = {
    "command line": (command_line, 32, 380),
    "experiment file": (experiment_file, 10, 100),
    "configuration": (configuration, 40, 400),
    "audit table": (audit_table, 30, 320),
    "picture table": (picture_table, 20, 200),
    "layout of pictures": (layout_of_pictures, 18, 200),
    "prepared dataset": (prepared_dataset, 18, 200),
    "archive": (archive_of_faces, 20, 200),
    "state dict": (state_dict, 16, 200),
    "run directory": (run_directory, 4, 80),
    "record of a stage": (record_of_a_stage, 10, 80),
    "whole run": (whole_run, 0, 40),
}
HEALTH = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


def fuzz(kind, count, made, *, again):
    """`count` cases of a kind; again: the same ones every time."""

    @settings(max_examples=count, deadline=None, derandomize=again, database=None, print_blob=True,
              suppress_health_check=HEALTH)  # fmt: skip
    @given(st.data())
    def cases(data):
        with pytest.MonkeyPatch.context() as patch:
            KINDS[kind][0](data, made, patch)

    cases()


@pytest.mark.parametrize("kind", [kind for kind, (_, count, _) in KINDS.items() if count])
def test_every_case_is_done_or_refused_in_one_line(kind, made):
    fuzz(kind, KINDS[kind][1], made, again=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_new_cases(kind, made, capfd):
    fuzz(kind, math.ceil(KINDS[kind][2] * CASES / 2400), made, again=False)
    ended = {how: count for (of, how), count in sorted(ENDED.items()) if of == kind}
    line = ", ".join(f"{count} {how}" for how, count in ended.items())
    with capfd.disabled():
        print(f"\n{kind:<19}{sum(ended.values()):>6} cases: {line}", flush=True)


# --- the newest round, damaged at any place


def damaged(content, how, place):
    if how == "truncated":
        return content[: place % len(content)]
    if how == "a bit flipped":
        at = place % len(content)
        return content[:at] + bytes([content[at] ^ 1 << place % 8]) + content[at + 1 :]
    return b"" if how == "emptied" else None


def test_two_hundred_damages_to_the_newest_round_are_found_and_named(made, tmp_path, capsys):
    """Every file, each way, bits and cuts at random places: found before use, the round before
    it is gone on from, and said by name (unless nothing is left that could tell of a round)."""
    shutil.copytree(made / "run" / "seed_0" / "magnitude", tmp_path / "magnitude")
    newest = tmp_path / "magnitude" / "round_02"
    files = sorted(path for path in newest.rglob("*") if path.is_file() and path.stat().st_size)
    rng = np.random.default_rng(0)
    tried = 0
    while tried < 200:
        for path in files:
            content = path.read_bytes()
            for how in ("truncated", "a bit flipped", "emptied", "deleted"):
                changed = damaged(content, how, int(rng.integers(1 << 40)))
                path.unlink() if changed is None else path.write_bytes(changed)
                assert resume.last_intact(newest.parent, 2) == 1, (path, how)
                said = capsys.readouterr().out
                assert path.name in said or (path.name, how) == ("metrics.json", "deleted"), said
                path.write_bytes(content)
                tried += 1
    assert resume.last_intact(newest.parent, 2) == 2


def test_half_a_line_of_metrics_is_made_whole_by_the_same_command(made, tmp_path):
    """Though every stage is complete, and whatever stood in the file."""
    shutil.copytree(made / "run", tmp_path / "run")
    log = tmp_path / "run" / "metrics.jsonl"
    whole = log.read_bytes()
    for damage in (
        whole[:-20],
        whole + b'{"seed": 0, "meth',
        b"\xff\x00",
        b"",
        whole[len(whole) // 2 :],
    ):
        log.write_bytes(damage)
        rounds.run(TINY, tmp_path / "run")
        assert log.read_bytes() == whole
