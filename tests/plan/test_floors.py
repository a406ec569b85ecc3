"""Floors: operations, traffic and collectives over the figures of a data sheet."""

import dataclasses

import pytest

from fairgrape_jax.plan import floors
from fairgrape_jax.plan.compiled import Facts, compilers_bytes
from fairgrape_jax.plan.hlo import Collectives
from fairgrape_jax.plan.planning import fits
from fairgrape_jax.plan.targets import parse

FACTS = Facts("training", "compiled", flops=197e12, traffic=819e9 / 2, arguments=10)


def all_reduce(size):
    return Collectives("all-reduce", 1, int(size), int(size), 1)


def test_the_largest_part_is_the_floor():
    target = parse("v5e:2x2")
    floor = floors.floor_of(FACTS, target, "bfloat16")
    assert (floor.compute, floor.memory, floor.links) == pytest.approx((1.0, 0.5, 0.0))
    assert (floor.seconds, floor.bound) == (1.0, "compute")
    slow = dataclasses.replace(FACTS, traffic=819e9 * 3)
    assert floors.floor_of(slow, target, "bfloat16").bound == "memory"
    chatty = dataclasses.replace(FACTS, collectives=(all_reduce(400e9),))
    floor = floors.floor_of(chatty, target, "bfloat16")
    assert (floor.bound, floor.seconds) == ("links", pytest.approx(2 * 0.75 * 2))


def test_without_a_compile_every_argument_is_read_once():
    facts = dataclasses.replace(FACTS, traffic=0, arguments=819 * 10**9)
    assert floors.floor_of(facts, parse("v5e"), "bfloat16").memory == pytest.approx(1)


def test_a_processor_has_no_floor():
    assert floors.floor_of(FACTS, parse("cpu"), "float32") is None


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("h100:1", 0.0),
        ("h100:2", 2 * 0.5 * 450 / 450),
        ("h100:8", 2 * 7 / 8 * 450 / 450),
        # Between hosts every GPU sends an eighth over its own adapter.
        ("h100:16", 2 * 0.5 * 450 / 8 / 50),
        ("v5e:16x16", 2 * 255 / 256 * 450 / 200),
    ],
)
def test_all_reduce_goes_twice_around(name, seconds):
    expected = max(seconds, 2 * 7 / 8) if name == "h100:16" else seconds
    assert floors.exchange(all_reduce(450e9), parse(name)) == pytest.approx(expected)


def test_fit_is_what_lies_beside_it_too():
    target = parse("v5e")
    room = int(target.memory)
    whole = dataclasses.replace(FACTS, arguments=room - 100, temporaries=60, outputs=50, aliases=20)
    assert whole.alone == room - 10
    assert fits(whole, target)
    assert fits(dataclasses.replace(whole, resident=10), target)
    assert not fits(dataclasses.replace(whole, resident=11), target)
    assert not fits(dataclasses.replace(whole, status="too large"), target)
    unknown = dataclasses.replace(FACTS, status="not compiled", arguments=10)
    assert fits(unknown, target) is None
    assert fits(dataclasses.replace(unknown, arguments=room + 1), target) is False


@pytest.mark.parametrize(
    ("message", "size"),
    [
        (
            "Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm. Exceeded",
            20.5 * 2**30,
        ),
        ("Used 900.00M of 15.75G hbm", 900 * 2**20),
        ("nothing of the kind", 0),
    ],
)
def test_the_compilers_own_numbers_are_read(message, size):
    assert compilers_bytes(message) == int(size)
