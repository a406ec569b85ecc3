"""Schedules: densities fall to the target; what is no number of their kind is refused by name."""

import fractions
import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import fairgrape_jax as fg
from fairgrape_jax.masks import kept
from fairgrape_jax.selection import allocate, schedules

NO_PARTS = [
    *(0, 1, 0.0, 1.0, -0.1, 1.5, -math.inf, math.inf, math.nan, True, np.float32(1), jnp.nan),
    *(None, "0.5", [0.5], np.array([0.5, 0.1]), 0.5j, 10**400),
]
PARTS = [
    0.5,
    np.float32(0.5),
    np.float16(0.5),
    np.array(0.5),
    jnp.array(0.5),
    fractions.Fraction(1, 2),
]
DOORS = {
    "rounds": lambda sparsity: schedules.rounds(sparsity, 0.9),
    "densities": lambda sparsity: schedules.densities(sparsity, 0.9),
    "densities, counted": lambda sparsity: schedules.densities(sparsity, 0.9, count=2),
    "front door": lambda sparsity: fg.densities(sparsity),
    "front door, counted": lambda sparsity: fg.densities(sparsity, rounds=2),
    **{name: lambda s, row=row: row(s, 2) for name, row in schedules.SCHEDULES.items()},
}
OF_RATE = {
    "rounds": lambda rate: schedules.rounds(0.9, rate),
    "densities": lambda rate: schedules.densities(0.9, rate),
    "front door": lambda rate: fg.densities(0.9, keep_per_round=rate),
    "front door, counted": lambda rate: fg.densities(0.9, rounds=2, keep_per_round=rate),
}
OF_COUNT = {
    "densities": lambda count: schedules.densities(0.9, 0.5, count=count),
    "front door": lambda count: fg.densities(0.9, rounds=count),
    **{name: lambda n, row=row: row(0.9, n) for name, row in schedules.SCHEDULES.items()},
}


@pytest.mark.parametrize("value", NO_PARTS, ids=lambda v: f"{v!r:.20}")
def test_a_part_that_is_not_between_0_and_1_is_refused_at_every_door(value):
    for name, doors in (("sparsity", DOORS), ("keep_per_round", OF_RATE)):
        for door in doors.values():
            with pytest.raises(ValueError, match=f"{name}: .* is not between 0 and 1"):
                door(value)


@pytest.mark.parametrize("value", PARTS, ids=lambda v: f"{v!r:.20}")
def test_a_part_of_any_type_of_number_is_taken(value):
    for doors in (DOORS, OF_RATE):
        for door in doors.values():
            assert door(value) == door(0.5)


@pytest.mark.parametrize("count", [-1, 1.5, math.nan, math.inf, "2", None, 100_001, [2], 1e300])
def test_a_number_of_rounds_that_is_none_is_refused_at_every_door(count):
    for door in OF_COUNT.values():
        with pytest.raises(ValueError, match=r"rounds: .* is not a whole number"):
            door(count)


@pytest.mark.parametrize(
    "count", [2, 2.0, np.int8(2), np.array(2), jnp.array(2)], ids=lambda v: f"{v!r:.20}"
)
def test_a_number_of_rounds_of_any_type_is_taken(count):
    for door in OF_COUNT.values():
        assert door(count) == door(2)


def test_a_number_below_none_names_none():
    for door in (OF_COUNT["densities"], OF_COUNT["front door"]):
        with pytest.raises(ValueError, match="rounds: -1 is not a whole number of 0 to"):
            door(-1)


def test_no_rounds_are_none_where_0_does_not_stand_for_the_formula():
    for row in schedules.SCHEDULES.values():
        with pytest.raises(ValueError, match="rounds: 0 is not a whole number of 1"):
            row(0.9, 0)


@pytest.mark.parametrize("sparsity", [5e-324, 1e-13, 1 - 1e-13, math.nextafter(1, 0)])
def test_a_sparsity_that_rounds_to_nothing_or_to_everything_is_refused(sparsity):
    for door in (fg.densities, lambda s: fg.densities(s, rounds=3)):
        with pytest.raises(ValueError, match=r"sparsity: .* leaves a density of [01], rounded"):
            door(sparsity)


def test_a_rate_that_takes_for_ever_is_refused_before_a_list_is_made():
    for rate in (math.nextafter(1, 0), 0.999999):
        with pytest.raises(ValueError, match=r"keep_per_round: .* takes .* rounds, more than"):
            fg.densities(0.9, keep_per_round=rate)


@pytest.mark.parametrize(
    "densities",
    [
        (1.0, 0.5),
        (0.5, 0.5),
        (0.5, 0.0),
        (math.nan,),
        (0.5, math.nan),
        (math.inf,),
        ("0.5",),
        (-1,),
    ],
)
def test_listed_densities_that_do_not_fall_are_refused(densities):
    with pytest.raises(ValueError, match="must fall from below 1 to above 0"):
        schedules.check_falling(densities)


@settings(max_examples=200, deadline=None)
@given(
    st.floats(1e-12, 1 - 1e-12),
    st.floats(1e-6, 0.999),
    st.sampled_from(sorted(schedules.SCHEDULES)),
    st.integers(0, 60),
)
@example(1.2919164658873583e-12, 0.5, "cubic", 2)  # the rounded target is above the step before it
def test_every_schedule_falls_to_the_target_and_stays_within_0_to_1(sparsity, rate, name, count):
    found = schedules.densities(sparsity, rate, schedule=name, count=count)
    assert found[-1] == round(1 - sparsity, 12)
    assert all(0 < density <= 1 for density in found)
    assert all(after <= before for before, after in zip([1.0, *found], found, strict=False))
    assert len(found) == (1 if name == "one-shot" else count or schedules.rounds(sparsity, rate))


MASKS = {"a": {"kernel": np.ones((4, 5), bool)}, "b": {"kernel": np.ones((3, 2), bool)}}


@pytest.mark.parametrize(
    "value", [v for v in NO_PARTS if np.ndim(v) or v not in (0, 1)], ids=lambda v: f"{v!r:.20}"
)
def test_a_density_that_is_none_is_refused_by_every_allocation(value):
    for allocation in ("uniform", "uniform+", "erk", "global", {"a": 0.5}):
        with pytest.raises(ValueError, match=r"density: .* is not between 0 and 1"):
            allocate(MASKS, value, allocation)
    with pytest.raises(ValueError, match=r"allocation: density .* of layer 'a' is not in 0\.\.1"):
        allocate(MASKS, 0.5, {"a": value})
    with pytest.raises(ValueError, match="density: "):
        kept(10, value)


@pytest.mark.parametrize(
    "minimum", [-1, 0.5, math.nan, math.inf, "1", None, [1]], ids=lambda v: f"{v!r:.20}"
)
def test_a_least_number_that_is_none_is_refused(minimum):
    with pytest.raises(ValueError, match="minimum: "):
        allocate(MASKS, 0.5, minimum=minimum)


# -- formulas -------------------------------------------------------------------------------------
TARGETS = (0.01, 0.3, 0.5, 0.75, 0.9, 0.98, 0.999)


@pytest.mark.parametrize("sparsity", TARGETS)
@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_each_schedule_by_its_formula(sparsity, count):
    i = np.arange(1, count + 1)
    expected = {
        "geometric": (1 - sparsity) ** (i / count),
        "linear": 1 - sparsity * i / count,
        "cubic": 1 - (sparsity - sparsity * (1 - i / count) ** 3),
        "one-shot": [1 - sparsity],
    }
    assert set(expected) == set(schedules.SCHEDULES)
    for name, formula in schedules.SCHEDULES.items():
        found = formula(sparsity, count)
        assert len(found) == len(expected[name])
        np.testing.assert_allclose(found, expected[name], rtol=1e-12, atol=1e-15)
        whole = schedules.densities(sparsity, 0.6, schedule=name, count=count)
        if name != "geometric" or count != schedules.rounds(sparsity, 0.6):
            np.testing.assert_allclose(whole, expected[name], rtol=1e-12)
        # The target itself, without what 1 - sparsity rounds off.
        assert whole[-1] == round(1 - sparsity, 12)


@pytest.mark.parametrize("keep", [0.25, 0.5, 0.7, 0.9, 0.975])
@pytest.mark.parametrize("sparsity", TARGETS)
def test_as_many_rounds_as_the_formula_gives_and_each_keeps_its_part(sparsity, keep):
    count = schedules.rounds(sparsity, keep)
    # The smallest count, at least one, at which nothing more than the target is left.
    left = [keep**i for i in range(1, 2000)]
    assert count == next(i for i, x in enumerate(left, 1) if x <= (1 - sparsity) * (1 + 1e-9))
    for rounds in (0, count):
        found = schedules.densities(sparsity, keep, count=rounds)
        np.testing.assert_allclose(found[:-1], left[: count - 1], rtol=1e-12)
        assert found[-1] == round(1 - sparsity, 12)
    for name in set(schedules.SCHEDULES) - {"one-shot"}:
        assert len(schedules.densities(sparsity, keep, schedule=name)) == count
        assert len(schedules.densities(sparsity, keep, schedule=name, count=count + 1)) == count + 1
    assert len(schedules.densities(sparsity, keep, schedule="one-shot")) == 1


@pytest.mark.parametrize(("keep", "count"), [(0.5, 3), (0.7, 5), (0.9, 22), (0.1, 1)])
def test_a_target_met_exactly_takes_no_round_more(keep, count):
    assert schedules.rounds(1 - keep**count, keep) == count
    found = schedules.densities(1 - keep**count, keep)
    np.testing.assert_allclose(found, [keep**i for i in range(1, count + 1)], rtol=1e-11)
    # A little beyond it does; no round falls below the target.
    assert schedules.rounds(1 - keep**count * 0.99, keep) == count + 1
    assert min(schedules.densities(1 - keep**count * 0.99, keep)[:-1]) >= keep**count * 0.99


@pytest.mark.parametrize("schedule", schedules.SCHEDULES)
@pytest.mark.parametrize(
    ("sparsity", "target"), [(0.98, 0.02), (0.9000000000004, 0.1), (0.900000000004, 0.099999999996)]
)
def test_a_target_has_twelve_digits(schedule, sparsity, target):
    for count in (0, 1, 3):
        assert schedules.densities(sparsity, 0.5, schedule=schedule, count=count)[-1] == target
        assert schedules.falling_densities(sparsity, count, schedule=schedule)[-1] == target


@pytest.mark.parametrize("sparsity", TARGETS)
@pytest.mark.parametrize("schedule", schedules.SCHEDULES)
def test_the_front_doors_densities(schedule, sparsity):
    for rounds in (0, 1, 2, 3, 22):
        found = schedules.falling_densities(sparsity, rounds, schedule=schedule)
        assert found[-1] == round(1 - sparsity, 12)
        assert all(after < before for before, after in zip([1, *found], found, strict=False))
        if schedule == "one-shot":
            assert len(found) == 1
        else:
            assert len(found) == (rounds or schedules.rounds(sparsity, 0.9))
        if rounds and schedule == "geometric":
            steps = np.diff(np.log([1, *found]))
            np.testing.assert_allclose(steps, math.log(1 - sparsity) / rounds, rtol=1e-6)
        if not rounds:
            assert found == schedules.densities(sparsity, 0.9, schedule=schedule)
    one = schedules.falling_densities(sparsity, keep_per_round=0.5, schedule=schedule)
    assert one == schedules.densities(sparsity, 0.5, schedule=schedule)


@pytest.mark.parametrize("listed", [[0.5], [0.9, 0.5, 1e-6], (0.99, np.float32(0.5))])
def test_listed_densities_that_fall_are_taken_as_they_are(listed):
    assert schedules.check_falling(listed) == [float(x) for x in listed]


def test_no_listed_densities_are_refused():
    with pytest.raises(ValueError, match="must fall"):
        schedules.check_falling(())


def test_the_most_rounds_are_taken_and_one_more_is_not():
    most = schedules.MOST_ROUNDS
    assert len(schedules.linear(0.5, most)) == most
    assert schedules.rounds(0.5, 0.5 ** (1 / (most - 0.5))) == most
    with pytest.raises(ValueError, match="takes 100001 rounds, more than 100000"):
        schedules.rounds(0.5, 0.5 ** (1 / (most + 0.5)))
