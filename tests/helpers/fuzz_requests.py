"""The kinds of the fuzz that ask for something: command lines, experiments, configurations."""

import dataclasses
import json
import warnings

from hypothesis import strategies as st

from fairgrape_jax import config
from fairgrape_jax.data import source
from fairgrape_jax.methods import METHODS
from fairgrape_jax.rounds import steps
from tests.helpers.command_line import EXPERIMENT
from tests.helpers.fuzzing import TINY, AcceptedError, attempt, folder
from tests.helpers.strategies import altered_bytes, altered_json, arguments


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
             "global", "greedy", "official", "writers", "utkface", "prepared", "bfloat16", "1/2",
             "last:2", "last:0", "best", "none", "kmeans:2:cnn:x", "initial", "2"]
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
    "start": st.sampled_from(["dense", "initial", {"number": 1}, {"number": 2}]),
    "rewind": st.sampled_from(["dense", "initial", {"number": 1}]),
    "protocol": st.sampled_from(["equal", "official"]),
    "min_keep_per_layer": st.integers(0, 400),
    "dense": STAGES, "retrain": STAGES, "final": STAGES,
    "batch": st.sampled_from([1, 7, 16, 96, 1000]),
    "execution.evaluation_batch": st.sampled_from([1, 5, 1000]),
    "optimizer": st.sampled_from(["adam", "adamw", "sgd"]),
    "augmentation": st.sampled_from(["none", "flip", "shift", "paper", "imagenet"]),
    "seeds": st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=2, unique=True),
    "execution.devices": st.integers(0, 9),
    "execution.checkpoints": st.sampled_from(["all", "best", {"count": 1}, {"count": 2}]),
    "execution.rollback": st.sampled_from([{"retries": 0}, {"retries": 1, "factor": 0.1}]),
    "execution.micro_batches": st.sampled_from(["auto", "single", "unroll", "vmap"]),
    "execution.shard_groups": st.booleans(),
    "precision": st.sampled_from(["float32", "bfloat16"]),
    "execution.lift": st.sampled_from(["pmap", "shard_map"]),
    "scoring.fraction": st.floats(1e-6, 1.0),
    "scoring.micro_batch": st.sampled_from([1, 3, 500]),
    "scoring.select": st.sampled_from(["threshold", "greedy"]),
    "scoring.allocation": st.sampled_from(["uniform", "uniform+", "erk", "lamp", "global"]),
    "scoring.groups": st.sampled_from([None, {"count": 2}, {"count": 30}]),
    "scoring.minority": st.lists(st.sampled_from(["group 0", "group 1", "nobody"]), max_size=2),
    "scoring.samples": st.integers(0, 300),
    "scoring.form": st.sampled_from(["pure", "mixed"]),
    "scoring.gradients": st.sampled_from(["cleared", "accumulated"]),
    "scoring.divide": st.sampled_from(["every", "last"]),
    "data.samples": st.sampled_from([20, 40, 121]),
    "data.groups": st.integers(1, 3),
    "data.classes": st.integers(1, 3),
    "data.tasks": st.integers(1, 2),
    "data.channels": st.sampled_from([1, 3, 5]),
    "data.size": st.sampled_from([1, 2, 3, 5, 8]),
    "data.limit": st.sampled_from([1, 2, 10]),
    "data.limit_evaluation": st.sampled_from([1, 2, 10]),
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
