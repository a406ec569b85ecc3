"""Columns of any library as arrays and codes: kinds of cells, missing ones, what is refused."""

import datetime

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from fairgrape_jax.metrics import columns


def objects(*values):
    array = np.empty(len(values), object)
    array[:] = values
    return array


@pytest.mark.parametrize("table", [dict, pd.DataFrame, pl.DataFrame, pa.table])
def test_a_frame_is_its_columns_by_name(table):
    found = columns.frame(table({"a": [1, 2], "b": [3, 4]}))
    assert {name: [int(v) for v in np.asarray(each)] for name, each in found.items()} == {
        "a": [1, 2],
        "b": [3, 4],
    }
    assert columns.column("labels", table({"a": [1, 2]})).tolist() == [1, 2]
    with pytest.raises(ValueError, match="labels: a frame of 2 columns; give one of them"):
        columns.column("labels", table({"a": [1, 2], "b": [3, 4]}))


def test_names_of_columns_are_words_and_each_its_own():
    assert list(columns.frame({1: [0]})) == ["1"]
    assert list(columns.frame(pd.DataFrame({1: [0], 2: [0]}))) == ["1", "2"]
    with pytest.raises(ValueError, match="two columns of one name"):
        columns.frame(pd.DataFrame([[1, 2]], columns=[1, "1"]))
    assert columns.frame([1, 2]) is columns.frame(pd.Series([1])) is None


PLAIN = {
    "a list": ([1, 0], np.array([1, 0])),
    "a tuple of words": (("a", "bc"), np.array(["a", "bc"])),
    "a list of whole numbers and floats": ([1, 0.5], np.array([1.0, 0.5])),
    "one row each": (np.array([[1.5], [2.0]]), np.array([1.5, 2.0])),
    "bytes": (np.array([b"a", b"\xc3\xa9"]), np.array(["a", "é"])),
    "bfloat16": (jnp.array([1.5, -2], jnp.bfloat16), np.array([1.5, -2.0])),
    "words as objects": (objects("a", "b"), np.array(["a", "b"])),
    "whole numbers as objects": (objects(np.int64(3), 4), np.array([3, 4])),
    "floats as objects": (objects(0.5, np.float32(1.5)), np.array([0.5, 1.5])),
    "truth as objects": (objects(True, np.bool_(False)), np.array([True, False])),
    "bytes as objects": (objects(b"a", "b"), np.array(["a", "b"])),
    "a JAX array": (jnp.array([1, 2]), np.array([1, 2], np.int32)),
    "no null": (pa.array([1, 2]), np.array([1, 2])),
    "no null of polars": (pl.Series([1, 2]), np.array([1, 2])),
}


@pytest.mark.parametrize(("values", "expected"), PLAIN.values(), ids=PLAIN)
def test_a_column_is_an_array_of_its_kind(values, expected):
    found = columns.column("x", values)
    assert found.dtype == expected.dtype
    assert found.tolist() == expected.tolist()


WITH_GAPS = {
    "a list with none": ([1, None], [1, None]),
    "a tuple with none": ((None, "a"), [None, "a"]),
    "words and numbers": (["a", 1], ["a", 1]),
    "bytes and numbers": ([b"a", 1], ["a", 1]),
    "pyarrow": (pa.array([2**60 + 1, None]), [2**60 + 1, None]),
    "polars": (pl.Series([2**60 + 1, None]), [2**60 + 1, None]),
    "empty words": (objects("", "a"), [None, "a"]),
    "not a number": (objects(float("nan"), 1), [None, 1]),
    "whole numbers and floats": (objects(1, 0.5), [1, 0.5]),
    "nothing at all": (objects(), []),
}


@pytest.mark.parametrize(("values", "expected"), WITH_GAPS.values(), ids=WITH_GAPS)
def test_what_is_of_no_one_kind_is_objects(values, expected):
    found = columns.column("x", values)
    assert found.dtype == object
    assert found.tolist() == expected


@pytest.mark.parametrize("shape", [(), (2, 2), (2, 1, 1), (1, 2)])
def test_another_shape_is_refused_by_name(shape):
    with pytest.raises(ValueError, match=r"^x: \(.*\); one value for each sample, \(N,\), is"):
        columns.column("x", np.zeros(shape))


def test_a_jax_array_is_moved_explicitly():
    values = jax.device_put(np.arange(3))
    with jax.transfer_guard("disallow"):
        assert columns.column("x", values).tolist() == [0, 1, 2]


MISSING = {
    "floats": (np.array([0.0, np.nan, -1.0]), [False, True, False]),
    "times": (np.array(["2020-01-01", "NaT"], "M8[D]"), [False, True]),
    "spans": (np.array([1, "NaT"], "m8[D]"), [False, True]),
    "words": (np.array(["a", "", "nan"]), [False, True, False]),
    "whole numbers": (np.array([0, -1]), [False, False]),
    "truth": (np.array([True, False]), [False, False]),
    "objects": (
        objects(None, np.nan, pd.NaT, pd.NA, "", 0, "a", False),
        [True, True, True, True, True, False, False, False],
    ),
}


@pytest.mark.parametrize(("array", "expected"), MISSING.values(), ids=MISSING)
def test_which_cells_are_empty(array, expected):
    found = columns.missing(array)
    assert found.dtype == bool
    assert found.tolist() == expected


def test_classes_are_those_of_all_columns_in_order():
    values, codes = columns.classes({"x": np.array([3, 1]), "y": np.array([2.0, 3.0])})
    assert values == [1, 2, 3]
    assert {name: each.tolist() for name, each in codes.items()} == {"x": [2, 0], "y": [1, 2]}
    assert all(each.dtype == np.int64 for each in codes.values())
    values, codes = columns.classes({"x": np.array(["10", "9"]), "y": np.array(["b", "9"])})
    assert values == ["9", "10", "b"]
    assert [each.tolist() for each in codes.values()] == [[1, 0], [2, 0]]


def test_cells_without_a_value_are_no_classes():
    with pytest.raises(ValueError, match=r"^y: 2 samples have none$"):
        columns.classes({"x": np.array([1.0]), "y": np.array([np.nan, 1.0, np.nan])})
    with pytest.raises(ValueError, match=r"^y: 1 samples have none$"):
        columns.classes({"y": np.array(["", "a"])})


def test_words_and_numbers_are_not_compared():
    with pytest.raises(
        ValueError, match=r"^x, y: are of several kinds, {'x': 'numbers', 'y': 'wor"
    ):
        columns.classes({"x": np.array([1]), "y": np.array(["1"])})
    with pytest.raises(ValueError, match=r"^x: values of several kinds, int and str; give one"):
        columns.classes({"x": objects("a", 1)})


GROUPS = {
    "numbers": (np.array([2, -1, 0, 2]), [0, 2], [1, -1, 0, 1]),
    "floats": (np.array([1.0, np.nan, -2.0, 0.0]), [0, 1], [1, -1, -1, 0]),
    "words": (np.array(["b", "", "a"]), ["a", "b"], [1, -1, 0]),
    "words with none": (objects("b", None, "a"), ["a", "b"], [1, -1, 0]),
    "numbers with none": (objects(1, None, -1, 0), [0, 1], [1, -1, -1, 0]),
    "floats with none": (objects(0.5, None, -0.5), [0.5], [0, -1, -1]),
    "nobody": (np.array([-1, -1]), [], [-1, -1]),
    "nobody at all": (objects(None, None), [], [-1, -1]),
    "days": (
        np.array(["2020-01-02", "NaT", "2020-01-01"], "M8[D]"),
        [datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)],
        [1, -1, 0],
    ),
    "truth": (np.array([True, False]), [False, True], [1, 0]),
}


@pytest.mark.parametrize(("array", "values", "codes"), GROUPS.values(), ids=GROUPS)
def test_groups_are_what_occurs_and_is_neither_negative_nor_empty(array, values, codes):
    found, numbers = columns.groups(array)
    assert found == values
    assert numbers.tolist() == codes
    assert numbers.dtype == np.int64


def test_groups_of_several_kinds_are_refused_by_name():
    with pytest.raises(ValueError, match=r"^groups: values of several kinds, float and str"):
        columns.groups(objects("a", 0.5, None))
    with pytest.raises(ValueError, match=r"^race: values of several kinds, int and str"):
        columns.groups(objects("a", 1), "race")
    values, codes = columns.encode("x", objects("a", 1), np.array([False, True]))
    assert values == ["a"]
    assert codes.tolist() == [0, -1]
