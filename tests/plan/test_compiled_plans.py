"""Programs compiled for TPUs and GPUs that are not here: a set that has all kinds of them.

`make test-plan` runs it, in an environment with the compilers; without them it is skipped.
"""

import dataclasses
import itertools
import math
import operator
import re

import pytest

from fairgrape_jax.models.torchvision import NETWORKS
from fairgrape_jax.plan import targets
from fairgrape_jax.plan.chips import CHIPS
from fairgrape_jax.plan.compiled import Facts
from fairgrape_jax.plan.hlo import Collectives
from tools.plan_check import COVERING, PROGRAMS, Case, compile_case, grid, wrong_with


@pytest.mark.plan
@pytest.mark.parametrize("case", COVERING, ids=str)
def test_a_program_compiles_and_is_as_it_should_be(case):
    extra = targets.missing_extra(targets.parse(case.devices))
    if extra:
        pytest.skip(f"the compiler is not installed: pip install 'fairgrape-jax[{extra}]'")
    facts, wrong = compile_case(case, 600)
    assert not wrong
    assert facts.traffic > 0
    assert facts.flops > 0


FORWARD = ("training", "retraining", "scoring", "evaluation")  # programs that call the network


def family(case):
    """`resnet` of `resnet50`."""
    return re.match("[a-z]+", case.model)[0]


def compiler(case):
    """Whose compiler makes the case's program."""
    return targets.parse(case.devices).chip.kind


CHIP = operator.attrgetter("chip"), {*CHIPS, "cpu"}
PROGRAM = operator.attrgetter("program"), set(PROGRAMS)
FAMILY = family, {"mlp", "cnn", "resnet", "mobilenet", "vit", "convnext"}
LIFT = operator.attrgetter("lift"), {"pmap", "shard_map"}
PRECISION = operator.attrgetter("precision"), {"float32", "bfloat16"}
COMPILER = compiler, {"tpu", "cuda"}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        *itertools.product((CHIP, PROGRAM, FAMILY), (LIFT, PRECISION)),
        *itertools.product((PROGRAM, FAMILY), [COMPILER]),
        (LIFT, PRECISION),
    ],
)
def test_the_set_covers_every_pair(first, second):
    (one, ones), (other, others) = first, second
    pairs = {(one(case), other(case)) for case in COVERING}
    assert set(itertools.product(ones, others)) <= pairs
    assert {pair[0] for pair in pairs} == ones


def test_the_set_is_small_and_calls_every_network_of_the_table():
    assert len(set(COVERING)) == len(COVERING) <= 20
    assert {case.model for case in COVERING if case.program in FORWARD} == {*NETWORKS, "cnn", "mlp"}
    whole = {(c.groups, c.program) for c in COVERING if (c.model, c.size) == ("resnet50", 224)}
    assert {(7, "selection"), (14, "selection")} <= whole


def test_the_grid_has_every_kind():
    cases = list(grid())
    assert len(set(cases)) == len(cases)
    kinds = [(case.model, case.program, case.devices, case.lift, case.precision) for case in cases]
    sizes = [len(set(values)) for values in zip(*kinds, strict=True)]
    assert math.prod(sizes) == len(cases)
    assert {case.chip for case in cases} == {*CHIPS, "cpu"}
    assert {case.model for case in cases} >= {*NETWORKS, "cnn"}


SOUND = Facts("scoring", "compiled", arguments=10, aliases=5, donated=5, resident=10**6)
SUMS = Collectives("all-reduce", 2, 4 * 3 * 10, 100, 1)


@pytest.mark.parametrize(
    ("program", "changes", "word"),
    [
        ("scoring", {}, ""),
        ("scoring", {"float64": True}, "float64"),
        ("scoring", {"host_calls": True}, "host"),
        ("scoring", {"aliases": 4}, "donated"),
        ("scoring", {"collectives": (SUMS,)}, "wait"),
        ("scoring", {"temporaries": 10**12}, "fit"),
        ("scoring", {"status": "not compiled", "message": "killed"}, "killed"),
        ("reduction", {"collectives": (SUMS,)}, ""),
        ("reduction", {}, "one reduction"),
        ("reduction", {"collectives": (dataclasses.replace(SUMS, bytes=121),)}, "one reduction"),
        ("reduction", {"collectives": (SUMS, dataclasses.replace(SUMS, kind="all-gather"))}, "one"),
        ("selection", {}, ""),
        ("selection", {"resident": 119}, "sums"),
    ],
)
def test_what_is_wrong_is_seen(program, changes, word):
    wrong = wrong_with(Case("v5e:2x2", program), dataclasses.replace(SOUND, **changes), 10)
    assert bool(wrong) == bool(word)
    assert not word or word in wrong[0]
