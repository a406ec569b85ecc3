"""`fairgrape plan`: a small run on processors, JSON, arithmetic without a compiler, refusals."""

import dataclasses
import json
import math
import subprocess

import jax
import numpy as np
import pytest

from fairgrape_jax import config, plan
from fairgrape_jax.cli.main import main
from fairgrape_jax.cli.plan import Plan
from fairgrape_jax.config import Execution, Experiment, Scoring, Stage
from fairgrape_jax.data import load, source
from fairgrape_jax.errors import UsageError
from fairgrape_jax.plan import compiled, described, planning, requests, run_time, shapes, targets
from fairgrape_jax.plan.compiled import Facts
from fairgrape_jax.plan.described import Description
from fairgrape_jax.remedies import Duals, Remedy
from fairgrape_jax.rounds.session import initial_network, open_session
from tests.helpers.command_line import EXPERIMENT

# A network of the user's own, which the experiment's file adds to the table.
OWN = '''"""A network of one's own."""
import flax.linen as nn
import jax.numpy as jnp
from fairgrape_jax import models


class Own(nn.Module):
    num_classes: int
    axis_name: str | None = None
    dtype: object = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Dense(5, dtype=self.dtype)(x.reshape(len(x), -1)))
        return nn.Dense(self.num_classes)(x)


models.MODELS["own"] = Own
'''
TINY = Experiment(
    data=source("synthetic", samples=200, groups=2, classes=2, size=8),
    model="mlp",
    methods=("fairgrape",),
    sparsity=0.75,
    keep_per_round=0.5,
    dense=Stage((2, 1), (1e-3, 1e-4), best=True),
    retrain=Stage((1,), (1e-3,)),
    final=Stage((3,), (1e-3,)),
    scoring=Scoring(fraction=0.5, micro_batch=16, select="greedy"),
    batch=16,
)
DATA = Description(160, 20, 20, (8, 8, 3), (2,), (100, 60))
DESCRIBED = ["--samples", "160", "--pixels", "8", "--classes", "2", "--groups", "2"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "tiny.py").write_text(EXPERIMENT)
    (tmp_path / "own.py").write_text(OWN + EXPERIMENT.replace('"mlp"', '"own"'))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(program, experiment=TINY, description=DATA, target="cpu:1", compile_it=True):
    return {
        "experiment": config.to_dict(experiment),
        "description": dataclasses.asdict(description),
        "target": target,
        "files": [],
        "program": program,
        "compile": compile_it,
    }


@pytest.mark.whole
def test_the_plan_of_a_network_of_ones_own(folder, capsys):
    """Through the command and a process of its own, as JSON that any reader takes."""
    arguments = ["plan", "own.py", "--on", "cpu:2", "--json", "--programs", "reduction"]
    assert main([*arguments, *DESCRIBED, "--execution.devices", "0"]) == 0
    result = json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(word))
    weights = 8 * 8 * 3 * 5 + 5 * 2
    assert result["network"]["weights"] == weights
    assert result["network"]["parameters"] == weights + 5 + 2
    reduction = result["programs"]["reduction"]
    assert reduction["status"] == "compiled"
    assert reduction["fits"] is True
    assert [c["kind"] for c in reduction["collectives"]] == ["all-reduce"]
    assert reduction["collectives"][0]["bytes"] == 4 * 2 * weights
    assert reduction["aliases"] >= reduction["donated"] > 0
    assert result["run"] is None  # a processor has no data sheet
    assert result["devices"]["count"] == 2
    assert set(result) == {
        "experiment", "data", "devices", "network", "programs", "groups", "largest_batch", "run",
        "disk", "notes",
    }  # fmt: skip


def test_every_program_of_a_small_run_compiles_on_a_processor():
    """As `fairgrape plan --on cpu` has them, in this process; and they are the run's own."""
    rest = dataclasses.replace(TINY, methods=("fairgrape", "snip", "grasp"))
    taught = dataclasses.replace(rest, remedy=Remedy(kd=1.0))
    names = requests.answer(words(None, taught)).names
    assert names == (
        "training", "retraining", "scoring", "scoring of snip", "scoring of grasp",
        "scoring of grasp 4", "reduction", "evaluation",
    )  # fmt: skip
    for name in ("training", "scoring", "reduction", "evaluation"):
        facts = requests.answer(words(name)).facts
        assert facts.status == "compiled"
        assert not facts.float64
        assert not facts.host_calls
        assert facts.aliases >= facts.donated
        assert facts.flops > 0
        assert facts.traffic > 0


@pytest.mark.parametrize(
    "remedy",
    [
        Remedy(duals=Duals(rate=0.1, held_out=True), kd=1.0),
        Remedy(dro=0.1),
        Remedy(transplant=1.0),
    ],
)
def test_the_program_of_retraining_has_what_its_ingredients_need(remedy):
    facts = requests.answer(words("retraining", dataclasses.replace(TINY, remedy=remedy))).facts
    assert facts.status == "compiled"
    assert facts.aliases >= facts.donated


def test_programs_follow_the_experiment():
    def names(**changes):
        return set(requests.answer(words(None, dataclasses.replace(TINY, **changes))).names)

    always = {"training", "evaluation"}
    assert names(methods=("magnitude", "random", "synflow")) == always
    assert names() == always | {"scoring", "reduction"}
    scoring = dataclasses.replace(TINY.scoring, select="threshold")
    assert "selection" in names(scoring=scoring)
    # Its layers are small: the host searches them.
    assert names(methods=("fairgrape-maxmin",)) == names(scoring=scoring)
    assert "reduction" not in names(execution=Execution(shard_groups=True))
    assert names(methods=("importance",)) == names()


def test_shapes_are_those_of_a_run():
    """Arguments of the training step and bytes of a checkpoint, beside those of a real session."""
    dataset = load(TINY.data)
    session = open_session(TINY, dataset, jax.devices()[:1])
    network = initial_network(session, 0)
    answer = requests.answer(words(None, description=described.describe(dataset)))
    held = jax.tree.leaves((network.state, network.masks))
    assert answer.counts["checkpoint_bytes"] == sum(leaf.nbytes for leaf in held)
    made = shapes.shapes_of(TINY, described.described_dataset(DATA), jax.devices()[:1])
    expected = jax.tree.map(lambda x: (x.shape, x.dtype), (network.state, network.masks))
    found = jax.tree.map(lambda x: (x.shape, x.dtype), tuple(made.network.__dict__.values()))
    assert found == expected


def test_operations_without_a_compiler_are_those_of_the_lowered_program():
    """Of 8 pictures more: three products with each kernel, but for the first layer's input."""
    few, many = (
        requests.answer(
            words(
                "training", dataclasses.replace(TINY, batch=n), target="v5e:2x2", compile_it=False
            )
        ).facts
        for n in (4, 36)
    )
    assert (few.status, many.status) == ("not compiled", "not compiled")
    first, rest = 8 * 8 * 3 * 300, 300 * 100 + 100 * 2
    assert many.flops - few.flops == pytest.approx(2 * 8 * (2 * first + 3 * rest), rel=0.1)
    assert few.arguments > 4 * 3 * (first + rest)


def facts(name, seconds, calls=1, per="round"):
    """A program that takes so long at the speed of a TPU v5e."""
    return Facts(name, "compiled", flops=seconds * 197e12, calls=calls, per=per)


def test_hours_are_what_the_stages_take():
    programs_ = {
        "training": facts("training", 1.0),
        "scoring": facts("scoring", 2.0, calls=3),
        "reduction": facts("reduction", 0.5),
        "evaluation": facts("evaluation", 0.25),
    }
    time = run_time.run_time(TINY, DATA, targets.parse("v5e"), programs_, 0.5)
    # Ten steps an epoch; a call over 256 pictures evaluates a split; two rounds.
    assert time.steps == 10
    assert time.epoch_seconds == pytest.approx(20)
    assert time.scoring_seconds == pytest.approx(13)
    assert time.round_seconds == pytest.approx(13 + 20 + 0.5 + 0.5)
    assert time.rounds == 2
    dense = 3 * (20 + 0.5) + 1
    assert time.hours == pytest.approx((dense + 2 * 34 + 3 * 20) / 3600)
    twice = run_time.run_time(
        dataclasses.replace(TINY, seeds=(0, 1)), DATA, targets.parse("v5e"), programs_, 0.5
    )
    assert twice.hours == pytest.approx(2 * time.hours)
    assert run_time.run_time(TINY, DATA, targets.parse("cpu"), programs_, 0.5) is None


def test_the_commands_default_is_the_librarys():
    flags = {field.name: field.default for field in dataclasses.fields(Plan)}
    options = plan.Options()
    assert (flags["utilisation"], flags["time_limit"]) == (options.utilisation, options.time_limit)


def test_the_disk_is_what_a_run_checks_before_it_begins():
    disk = run_time.disk(TINY, DATA, 1000)
    assert (disk.checkpoint, disk.checkpoints) == (1000, 3)  # dense, and two rounds
    assert disk.run > 8000


REFUSED = {
    "batch": (["--on", "v5e:4x8"], "--batch 32"),
    "batch between": (["--on", "cpu:3", "--batch", "16"], "--batch 15 or 18"),
    "pairs": (["--on", "cpu:3", "--batch", "15", "--mixup", "0.2"], "--batch 12 or 18"),
    "scoring": (["--scoring.gradients", "accumulated"], "--scoring.gradients cleared"),
    "devices": (["--on", "v5e:5x5"], "no such slice"),
    "utilisation": (["--utilisation", "0"], "--utilisation"),
    "utilisation above": (["--utilisation", "1.5"], "--utilisation"),
    "time limit": (["--time-limit", "0"], "--time-limit"),
    "samples": (["--samples", "0"], "--samples"),
    "groups": (["--groups", "1", *DESCRIBED[:6]], "groups"),
    "classes": (["--classes", "1", *DESCRIBED[:4], *DESCRIBED[6:]], "classes"),
    "unknown flag": (["--om", "cpu"], "--om"),
    "program": ([*DESCRIBED, "--programs", "pruning"], "training, scoring, reduction"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_planned_is_refused_in_a_line(case, folder, capsys):
    arguments, cure = REFUSED[case]
    assert main(["plan", "tiny.py", *arguments]) == 2
    message = capsys.readouterr().err
    assert message.startswith("fairgrape: error: ")
    assert message.count("\n") == 1
    assert cure in message


def test_data_that_is_not_here_names_the_flags_that_describe_it(folder, capsys):
    text = EXPERIMENT.replace('source("synthetic", samples=200, groups=2, classes=2, size=8)',
                              'source("prepared", path="nowhere")')  # fmt: skip
    (folder / "far.py").write_text(text)
    assert main(["plan", "far.py", "--samples", "100"]) == 2
    message = capsys.readouterr().err
    assert "nowhere" in message
    for flag in ("--pixels", "--classes", "--groups"):
        assert flag in message
    assert "--samples," not in message


def fixed_answers(monkeypatch, sizes):
    """Plans whose programs have the given facts, without a compile."""

    def ask(request, program, seconds):
        names = ("training", "scoring", "reduction", "evaluation")
        counts = {"parameters": 100, "weights": 90, "checkpoint_bytes": 1000}
        if program is None:
            return requests.Answer(names, counts, None)
        size = sizes(request, program)
        status = "compiled" if request.compile_it else "not compiled"
        made = Facts(program, status, arguments=10, temporaries=size, flops=1e9, traffic=1e6)
        return requests.Answer(names, counts, made)

    monkeypatch.setattr(planning, "ask", ask)


def plan_on(name, experiment=TINY, search=False):
    request = plan.Request(experiment, DATA, plan.parse(name))
    return plan.make_plan(request, plan.Options(search=search))


def test_without_the_compiler_the_extra_is_named_and_the_arithmetic_stands(monkeypatch):
    fixed_answers(monkeypatch, lambda request, program: 0)
    monkeypatch.setattr(targets, "missing_extra", lambda target: "tpu")
    made = plan_on("v5e:2x2", search=True)
    text = plan.text(made)
    assert "pip install 'fairgrape-jax[tpu]'" in text
    assert made.search is None
    assert made.time.hours > 0
    assert made.fits("training") is None
    assert "1.00" in text  # GFLOP
    assert json.dumps(plan.to_json(made), allow_nan=False)


def test_groups_are_sharded_where_whole_sums_do_not_fit(monkeypatch):
    monkeypatch.setattr(targets, "missing_extra", lambda target: "")
    room = targets.parse("v5e:2x2").memory

    def sizes(request, program):
        whole = not request.experiment.execution.shard_groups
        return int(2 * room) if program == "scoring" and whole else 0

    fixed_answers(monkeypatch, sizes)
    made = plan_on("v5e:2x2")
    assert "--execution.shard-groups" in made.sharding.advice
    assert made.sharding.whole == 4 * 2 * 90
    assert made.sharding.cut == 4 * 90
    assert "NO" in plan.text(made)
    fixed_answers(monkeypatch, lambda request, program: 0)
    assert "not sharded" in plan_on("v5e:2x2").sharding.advice
    fixed_answers(monkeypatch, lambda request, program: int(2 * room))
    assert "neither" in plan_on("v5e:2x2").sharding.advice


def test_the_largest_batch_is_of_all_devices_and_at_most_the_split(monkeypatch):
    monkeypatch.setattr(targets, "missing_extra", lambda target: "")
    fixed_answers(monkeypatch, lambda request, program: request.experiment.batch)
    made = plan_on("v5e:2x2", search=True)
    assert made.search.largest == 40
    assert made.search.whole_split
    assert "160 (40 a device), the whole training split" in plan.text(made)


def test_fewer_devices_than_the_target_has_are_no_plan(monkeypatch):
    monkeypatch.setattr(targets, "missing_extra", lambda target: "")
    fixed_answers(monkeypatch, lambda request, program: 0)
    one = dataclasses.replace(TINY, execution=Execution(devices=1))
    assert any("all 4 devices" in note for note in plan_on("v5e:2x2", one).notes)


class NoRoom:
    """A lowered program whose compile fails as libtpu's does."""

    def compile(self):
        raise RuntimeError(
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory "
            "space hbm. Used 20.00G of 15.75G hbm. Exceeded hbm capacity by 4.25G."
        )


def test_a_compiler_without_room_is_no_failure():
    found = compiled.compile_facts(Facts("training", "not compiled", arguments=2**30), NoRoom())
    assert found.status == "too large"
    assert found.total == 20 * 2**30
    assert "Exceeded hbm capacity" in found.message
    assert planning.fits(found, targets.parse("v5e")) is False


def test_another_failure_of_the_compiler_is_told(monkeypatch):
    request = plan.Request(TINY, DATA, plan.parse("cpu"))
    found = requests.ask(request, "training", 0.01).facts
    assert found.status == "not compiled"
    assert "--time-limit" in found.message


@pytest.mark.parametrize(("number", "words"), [(9, "too little memory"), (11, "crashed")])
def test_a_compiler_that_dies_is_not_always_short_of_memory(number, words, monkeypatch):
    died = subprocess.CompletedProcess([], -number, stdout="", stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: died)
    found = requests.ask(plan.Request(TINY, DATA, plan.parse("cpu")), "training", 1).facts
    assert found.status == "not compiled"
    assert words in found.message
    assert f"signal {number}" in found.message


def test_a_described_dataset_takes_no_memory():
    million = Description(10**6, 10, 10, (224, 224, 3), (1000,), (10**6 - 5, 5))
    made = described.described_dataset(million)
    assert made.train.images.shape == (10**6, 224, 224, 3)
    assert made.train.images.base.nbytes == 1
    assert np.bincount(made.train.groups).tolist() == [10**6 - 5, 5]
    assert described.describe(made) == million
    assert math.prod(made.train.labels.strides) == 0
    with pytest.raises(UsageError, match="groups: 1"):
        described.described_dataset(dataclasses.replace(million, group_sizes=(10,)))
