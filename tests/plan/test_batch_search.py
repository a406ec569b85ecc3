"""The largest batch: found by few compiles, and right for any memory."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairgrape_jax.plan.batch_search import MOST_TRIALS, search, sizes
from fairgrape_jax.plan.compiled import Facts


def facts_of(images, fixed, slope, room):
    """A step whose memory grows by `slope` a picture; the compiler refuses it above `room`."""
    size = fixed + int(slope * images)
    if size > room:
        return Facts("training", "too large", arguments=fixed, temporaries=size - fixed)
    return Facts("training", "compiled", arguments=fixed, temporaries=size - fixed)


@given(
    fixed=st.integers(0, 10**9),
    slope=st.floats(1e3, 1e8),
    room=st.integers(10**8, 10**11),
    first=st.sampled_from([1, 8, 64, 100, 4096]),
    most=st.integers(1, 10**6),
)
def test_the_largest_size_that_fits_is_found(fixed, slope, room, first, most):
    found = search(
        lambda n: facts_of(n, fixed, slope, room),
        facts_of(first, fixed, slope, room),
        first,
        room,
        most,
    )
    looked_at = sorted({*sizes(max(most, first)), first})
    fitting = [n for n in looked_at if fixed + int(slope * n) <= room]
    assert len(found.trials) <= MOST_TRIALS
    best = max(fitting, default=0)
    assert found.largest <= best
    if found.next_size or found.whole_split:
        # Proven: the next size was tried and does not fit, or there is none.
        assert found.largest >= max((n for n in fitting if n in sizes(10**7)), default=0)
    if found.largest:
        assert {t.images: t.fits for t in found.trials}[found.largest]


def test_growth_that_is_even_needs_few_compiles():
    room = 16 * 2**30
    found = search(
        lambda n: facts_of(n, 10**9, 40e6, room), facts_of(64, 10**9, 40e6, room), 64, room, 10**6
    )
    best = max(n for n in sizes(10**6) if 10**9 + 40e6 * n <= room)
    assert (found.largest, len(found.trials)) == (best, 3)
    assert found.next_size == min(n for n in sizes(10**6) if n > best)


def test_a_network_that_is_too_large_fits_no_picture():
    found = search(lambda n: facts_of(n, 10**9, 1e6, 10), facts_of(4, 10**9, 1e6, 10), 4, 10, 100)
    assert (found.largest, found.whole_split) == (0, False)


def test_a_compile_that_fails_ends_the_search():
    failed = Facts("training", "not compiled")
    found = search(lambda n: failed, facts_of(4, 0, 1e6, 10**9), 4, 10**9, 10**6)
    assert (found.largest, found.next_size) == (4, 0)


@pytest.mark.parametrize("most", [1, 2, 16, 17, 1000])
def test_sizes_grow_by_an_eighth_at_most(most):
    every = sizes(most)
    assert every[0] == 1
    assert every[-1] <= most
    assert all(b - a <= max(1, a / 8) for a, b in itertools.pairwise(every))
