"""The checks of what a choice is made from, and the forms in which scores rank, by themselves."""

import warnings

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from fairgrape_jax.selection import inputs

SMALL = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
    "float32": np.float32,
}
INTEGERS = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64]


@pytest.mark.parametrize("order", ["<", ">", "="])
@pytest.mark.parametrize("dtype", [*SMALL.values(), np.float64, *INTEGERS, bool])
def test_rankable_scores_have_the_same_values(dtype, order):
    array = np.array([[0, 1, 0], [1, 0, 1]]).astype(dtype)
    if np.dtype(dtype).kind in "fiu":
        array = array.astype(array.dtype.newbyteorder(order))
    found = inputs.rankable(array)
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, [[0, 1, 0], [1, 0, 1]])
    if dtype is bool:
        assert found.dtype == np.uint8
    elif np.dtype(dtype).kind in "iu":
        assert found.dtype == np.dtype(dtype).newbyteorder("=")
    else:
        assert found.dtype == (np.float64 if dtype is np.float64 else np.float32)


def test_rankable_scores_of_other_kinds():
    for dtype in (ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.int2):
        assert inputs.rankable(np.array([0, 1]).astype(dtype)).dtype == np.int8
    assert inputs.rankable(np.array([1e400, 1], np.longdouble)).tolist() == [np.inf, 1]
    assert inputs.rankable(np.array([1, 2], np.longdouble)).dtype == np.float64
    on_device = inputs.rankable(jnp.arange(3.0))
    assert isinstance(on_device, np.ndarray)
    assert on_device.dtype == np.float32
    same = np.arange(3.0)
    assert inputs.rankable(same) is same
    for dtype in (np.complex64, object, "U3", "datetime64[s]"):
        with pytest.raises(ValueError, match="scores: real numbers are expected, not dtype"):
            inputs.rankable(np.ones(2, int).astype(dtype))
    with pytest.raises(ValueError, match=r"^fish: real"):
        inputs.rankable([1j], "fish")


def test_what_lies_on_a_device_is_moved_explicitly():
    with jax.transfer_guard("disallow"):
        moved = inputs.on_host(jax.device_put(np.arange(3)))
    assert type(moved) is np.ndarray
    assert inputs.on_host([1, 2]).tolist() == [1, 2]


def test_integers_are_summed_as_float64_and_floats_as_they_are():
    for dtype in INTEGERS:
        assert inputs.as_float(np.ones(2, dtype)).dtype == np.float64
    for dtype in (np.float32, np.float64):
        array = np.ones(2, dtype)
        assert inputs.as_float(array) is array


LIMIT = 2**24


@pytest.mark.parametrize(
    ("values", "dtype", "fits"),
    [
        ([0.5, 1e-45, 3e38], np.float32, True),
        ([0.5, 2.0**-149, 2.0**127], np.float64, True),
        ([0.1], np.float64, False),
        ([1.0, 0.1], np.float64, False),
        ([2.0**-150], np.float64, False),
        ([1e300], np.float64, False),
        ([LIMIT, 0, -LIMIT], np.int64, True),
        ([LIMIT + 1], np.int64, False),
        ([-LIMIT - 1], np.int64, False),
        ([LIMIT + 1, -1], np.int32, False),
        ([1, -LIMIT - 1], np.int32, False),
        ([LIMIT], np.uint32, True),
        ([LIMIT + 1], np.uint64, False),
        ([-(2**63)], np.int64, False),
        ([2**64 - 1], np.uint64, False),
        ([-128, 127], np.int8, True),
        ([], np.int64, True),
        ([], np.float64, True),
    ],
)
def test_what_float32_holds(values, dtype, fits):
    array = np.array(values, dtype)
    narrow = inputs.float32_exactly(array)
    if not fits:
        assert narrow is None
        return
    assert narrow.dtype == np.float32
    np.testing.assert_array_equal(narrow.astype(dtype), array)
    assert (narrow is array) == (dtype is np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_cannot_be_ranked(bad, dtype):
    for signed in (True, False):
        with pytest.raises(ValueError, match=r"^name: negative, NaN or infinite"):
            inputs.check_values(np.array([1, bad], dtype), "name", signed=signed)


def test_what_is_negative_can_be_ranked_where_that_is_meant():
    for dtype in (np.float32, np.int8):
        values = np.array([3, -1], dtype)
        inputs.check_values(values, "name", signed=True)
        for call in (
            lambda values=values: inputs.check_values(values, "name"),
            lambda values=values: inputs.check_values(values, "name", signed=False),
        ):
            with pytest.raises(ValueError, match="negative, NaN"):
                call()
        for fine in ([0, 1], [0, 0], [-0.0, 2], []):
            inputs.check_values(np.array(fine, dtype), "name")


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3), np.array(3), np.array([3]), True])
def test_a_whole_number_of_any_kind(value):
    assert inputs.whole_number(value, "keep") == int(np.asarray(value).item())
    assert inputs.whole_number(jnp.int32(3), "keep") == 3


@pytest.mark.parametrize(
    "value", [3.0, np.float32(3), "3", None, [3], np.array([1, 2]), jnp.ones(())]
)
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(ValueError, match=r"^keep: .* is not a whole number"):
        inputs.whole_number(value, "keep")


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray, lambda rows: rows.tolist()])
def test_groups_come_first_unless_they_cannot(kind):
    rows = np.arange(6.0).reshape(2, 3)
    given = kind(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert inputs.groups_first(given, 3) is given
        square = kind(np.arange(9.0).reshape(3, 3))
        assert inputs.groups_first(square, 3) is square
    with pytest.warns(FutureWarning, match=r"\(2, 3\) is taken as \(n, G\) and transposed"):
        np.testing.assert_array_equal(inputs.groups_first(given, 2), rows.T)
    for shape, weights in (((2, 3), 4), ((3,), 3), ((3, 3, 3), 3), ((), 1), ((2, 3, 3), 2)):
        with pytest.raises(ValueError, match=f"does not fit the {weights} weights"):
            inputs.groups_first(kind(np.ones(shape)), weights)


def test_a_layer_comes_back_checked_and_on_the_host():
    previous = np.array([True, False, True])
    rows = np.arange(6.0).reshape(2, 3)
    for given in (rows, jnp.asarray(rows), rows.astype(np.int16)):
        for keep in (0, 1, 2):
            scores, before, number = inputs.check_layer(given, jnp.asarray(previous), keep)
            np.testing.assert_array_equal(scores, rows)
            np.testing.assert_array_equal(before, previous)
            assert (type(scores), type(before)) == (np.ndarray, np.ndarray)
            assert number == keep
    scores, *_ = inputs.check_layer(-rows, previous, 1, signed=True)
    np.testing.assert_array_equal(scores, -rows)


@pytest.mark.parametrize(
    ("rows", "previous", "keep", "message"),
    [
        (np.ones((1, 4)), np.ones((2, 2), bool), 1, r"previous \(2, 2\): \(n,\) bool is expected"),
        (np.ones((1, 1)), np.array(True), 1, r"previous \(\): \(n,\) bool"),
        (np.ones((1, 2)), np.ones(2), 1, "previous: dtype bool is expected, not float64"),
        (np.ones((1, 2)), np.ones(2, np.int8), 1, "previous: dtype bool is expected, not int8"),
        (np.ones((1, 3)), np.ones(2, bool), 1, r"importance \(1, 3\) does not fit the 2"),
        (np.full((1, 2), -1), np.ones(2, bool), 1, "importance: negative, NaN"),
        (np.ones((1, 2), complex), np.ones(2, bool), 1, "importance: real numbers"),
        (np.ones((1, 2)), np.ones(2, bool), 1.5, "keep: 1.5 is not a whole number"),
        (np.ones((1, 2)), np.ones(2, bool), 3, "keep: 3 weights .* of the 2 that are alive"),
        (np.ones((1, 2)), np.array([True, False]), 2, "keep: 2 weights .* of the 1 that are"),
        (np.ones((1, 2)), np.ones(2, bool), -1, "keep: -1 weights"),
    ],
)
def test_a_layer_that_cannot_be_chosen_from_is_refused(rows, previous, keep, message):
    with pytest.raises(ValueError, match=message):
        inputs.check_layer(rows, previous, keep)
