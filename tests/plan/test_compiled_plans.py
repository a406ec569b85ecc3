"""Programs compiled for TPUs and GPUs that are not here: a set that has all kinds of them.

`make test-plan` runs it, in an environment with the compilers; without them it is skipped.
"""

import dataclasses
import typing

import pytest

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
    facts, wrong = compile_case(case)
    assert not wrong
    assert facts.traffic > 0
    assert facts.flops > 0


def test_the_set_covers_every_kind():
    assert len(COVERING) <= 20
    assert {case.program for case in COVERING} == set(PROGRAMS)
    chips = {targets.parse(case.devices).chip.name for case in COVERING}
    assert chips == set(CHIPS)
    fields = typing.get_type_hints(Case)
    for name in ("lift", "precision"):
        assert {getattr(case, name) for case in COVERING} == set(typing.get_args(fields[name]))
    whole = {(c.groups, c.program) for c in COVERING if c.model == "resnet50"}
    assert {(7, "selection"), (14, "selection")} <= whole
    assert len({str(case) for case in grid()}) == len(list(grid()))


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
