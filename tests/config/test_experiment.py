"""Every field of an experiment: its own check, its path in the message, its word, its JSON."""

import dataclasses
import json
from typing import get_args, get_type_hints

import numpy as np
import pytest

from fairgrape_jax import config
from fairgrape_jax.cli.command import parse_flags
from fairgrape_jax.config import Clusters, Embedding, Epoch, Execution, Experiment, KeepLast
from fairgrape_jax.config.forms import WORD_FORMS, as_word, parse_checkpoints
from fairgrape_jax.data import Reading, source
from fairgrape_jax.errors import UsageError

PLAIN = Experiment(source("synthetic"), "cnn")


def with_field(path, value):
    """PLAIN with another value at a dotted path."""

    def changed(part, names):
        first, *rest = names
        inner = changed(getattr(part, first), rest) if rest else value
        return dataclasses.replace(part, **{first: inner})

    return changed(PLAIN, path.split("."))


# Just outside of the range of each number; just inside is the next value.
EDGES = [
    ("scoring.micro_batch", 0, 1, "is less than 1"),
    ("scoring.fraction", 0.0, 1.0, "is not in (0, 1]"),
    ("scoring.fraction", 1.0001, 1e-9, "is not in (0, 1]"),
    ("scoring.advances", 0, 1, "is less than 1"),
    ("scoring.samples", -1, 0, "is negative"),
    ("scoring.groups", Clusters(1), Clusters(2), "groups.count: 1 is less than 2"),
    ("batch", 0, 1, "is less than 1"),
    ("rounds", -1, 0, "is negative"),
    ("min_keep_per_layer", -1, 0, "is negative"),
    ("sparsity", 0.0, 1e-6, "is not between 0 and 1"),
    ("sparsity", 1.0, 0.999999, "is not between 0 and 1"),
    ("keep_per_round", 1.0, 0.999, "is not between 0 and 1"),
    ("mixup", -1e-9, 0.0, "is no alpha"),
    ("weight_decay", -1e-9, 0.0, "is negative"),
    ("momentum", 1.0, 0.0, "is not in [0, 1)"),
    ("momentum", -0.1, 0.99, "is not in [0, 1)"),
    ("seeds", (), (0,), "must be one or more"),
    ("seeds", (1, 1), (1, 0), "must be one or more, each named once"),
    ("seeds", (-1,), (2**31 - 1,), "-1 is negative"),
    ("seeds", (2**31,), (0,), "is too large"),
    ("methods", (), ("magnitude",), "must be one or more"),
    ("dense.epochs", (1, 0, 1), (1, 2, 1), "must be 1 or more"),
    ("dense.rates", (1.0, 0.0, 1.0), (1.0, 1e-9, 1.0), "must be positive"),
    ("dense.rates", (1.0, float("nan"), 1.0), (1.0, 1.0, 1.0), "is not a finite number"),
    ("retrain.rates", (), (1e-3,), "1 numbers of epochs and 0 rates"),
    ("start", Epoch(20), Epoch(19), "epoch 20 is not one of the 19"),
    ("rewind", Epoch(0), Epoch(1), "rewind.number: 0 is less than 1"),
    ("remedy.kd", -0.1, 0.0, "is negative"),
    ("remedy.ce", 0.0, 1e-9, "all its weights are zero"),
    ("remedy.temperature", 0.0, 1e-9, "is not positive"),
    ("remedy.pw.alpha", 1.1, 1.0, "is not in [0, 1]"),
    ("remedy.pw.gamma", -1.0, 0.0, "is negative"),
    ("execution.devices", -1, 0, "is negative"),
    ("execution.evaluation_batch", 0, 1, "is less than 1"),
    ("execution.rollback.retries", -1, 0, "is negative"),
    ("execution.rollback.factor", 1.0, 0.5, "is not between 0 and 1"),
    ("execution.checkpoints", KeepLast(0), KeepLast(1), "checkpoints.count: 0 is less than 1"),
    ("execution.reading.workers", -1, 0, "is negative"),
]


@pytest.mark.parametrize(("path", "outside", "inside", "message"), EDGES, ids=str)
def test_the_message_begins_with_the_path_of_the_field(path, outside, inside, message):
    config.check(with_field(path, inside))
    with pytest.raises(UsageError) as error:
        config.check(with_field(path, outside))
    first, _, rest = str(error.value).partition(": ")
    assert path.startswith(first) or first.startswith(path)
    assert message in str(error.value)
    assert rest


TYPES = [
    ("batch", True),
    ("batch", "16"),
    ("batch", 1.5),
    ("batch", np.float32(16)),
    ("sparsity", "0.5"),
    ("sparsity", None),
    ("model", 3),
    ("methods", "magnitude"),
    ("methods", {"magnitude"}),  # a set has no order
    ("methods", (1,)),
    ("dense", ((1,), (1e-3,))),
    ("protocol", "fair"),
    ("precision", "float16"),
    ("start", 3),
    ("start", "3"),
    ("rewind", KeepLast(3)),
    ("scoring.groups", "kmeans:7"),
    ("scoring.groups", Epoch(7)),
    ("scoring.form", "both"),
    ("execution.checkpoints", "last"),
    ("execution.checkpoints", None),
    ("execution.lift", "vmap"),
    ("execution.micro_batches", "many"),
    ("execution.reading.cache", "ram"),
    ("remedy.pw.labels", 1),
    ("data.samples", "all"),
]


@pytest.mark.parametrize(("path", "value"), TYPES, ids=str)
def test_a_value_of_another_type_is_named(path, value):
    with pytest.raises(UsageError) as error:
        config.check(with_field(path, value))
    line = str(error.value)
    assert "\n" not in line
    first = line.partition(": ")[0]
    jsonless = isinstance(value, set | np.floating)
    assert jsonless or first.startswith(path), line


def test_lists_and_whole_numbers_are_what_was_meant():
    loose = dataclasses.replace(PLAIN, seeds=[0, 1], mixup=1, densities=[0.5])
    exact = dataclasses.replace(PLAIN, seeds=(0, 1), mixup=1.0, densities=(0.5,))
    found = config.check_types(loose)
    assert found == exact
    assert hash(found) == hash(exact)


UNIONS = [
    ("start", "dense"),
    ("start", Epoch(2)),
    ("rewind", "initial"),
    ("execution.checkpoints", "all"),
    ("execution.checkpoints", "best"),
    ("execution.checkpoints", KeepLast()),
    ("execution.checkpoints", KeepLast(12)),
    ("scoring.groups", None),
    ("scoring.groups", Clusters(7)),
    ("scoring.groups", Clusters(2, Embedding("resnet34", "C:/a b/weights.safetensors"))),
]


@pytest.mark.parametrize(("path", "value"), UNIONS, ids=str)
def test_a_union_survives_json_and_the_command_line(path, value):
    experiment = with_field(path, value)
    stored = json.loads(json.dumps(config.to_dict(experiment)))
    assert config.from_dict(stored) == experiment
    flag = f"--{path.replace('_', '-')}"
    for default in (PLAIN, experiment):  # the help and the parser show and take the default, too
        read = parse_flags(Experiment, [flag, as_word(value)], "run", default=default)
        assert read == experiment
    assert parse_flags(Experiment, [], "run", default=experiment) == experiment


NO_WORDS = {
    "start": ["", "soon", "-1", "1.5", "dense:1", "²"],
    "execution.checkpoints": [
        "",
        "some",
        "last:",
        "last:-1",
        "last:x",
        "best:2",
        "all:1",
        "last:²",
    ],
    "scoring.groups": ["kmeans", "kmeans:", "kmeans:x", "kmeans:2:cnn", "means:2", "7"],
}


@pytest.mark.parametrize(("path", "word"), [(p, w) for p, words in NO_WORDS.items() for w in words])
def test_a_word_that_is_none_is_refused_with_those_that_there_are(path, word):
    with pytest.raises(UsageError, match=f"--{path}: '{word}' is ") as error:
        parse_flags(Experiment, [f"--{path}={word}"], "run", default=PLAIN)
    assert "(see `run --help`)" in str(error.value)


def test_every_union_has_a_word():
    """Else tyro would ask for subcommands."""

    for kind in (Experiment, config.Scoring, Execution):
        for name, hint in get_type_hints(kind).items():
            if len(get_args(hint)) > 1 and any(map(dataclasses.is_dataclass, get_args(hint))):
                assert hint in WORD_FORMS, name


def test_what_a_run_may_change_on_resuming_is_one_part():
    other = dataclasses.replace(PLAIN, execution=Execution(devices=3, reading=Reading("disk", 2)))
    assert config.identity(other) == config.identity(PLAIN)
    assert config.identity(PLAIN).keys() == config.to_dict(PLAIN).keys() - {"execution"}


def test_the_last_checkpoints_are_those_of_the_word():
    assert parse_checkpoints("last:3") == KeepLast(3)
    assert str(KeepLast(3)) == "last:3"
