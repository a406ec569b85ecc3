"""A column of labels, predictions or groups from any library, as a NumPy array and as codes.

NumPy and JAX arrays, lists, series and frames of pandas, polars and pyarrow: none of them is
imported here.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from fairgrape_jax import spelling

NUMBERS, WORDS = "biuf", "U"  # kinds of NumPy's dtypes
Column: TypeAlias = Any  # (N,): a list, an array, a series or a frame of one column


def frame(values: Column) -> dict[str, Column] | None:
    """The columns of a mapping or a data frame by name; None for what is a single column.

    Args:
        values: of any library.

    Raises:
        ValueError: two columns of one name.

    Example:
        >>> frame({"a": [1, 2]}), frame([1, 2])
        ({'a': [1, 2]}, None)
    """
    if isinstance(values, Mapping):
        return {str(name): column for name, column in values.items()}
    names = getattr(values, "column_names", None)  # pyarrow's `columns` are the columns
    names = getattr(values, "columns", None) if names is None else names
    if names is None:
        return None
    names = list(names)
    if len({str(name) for name in names}) < len(names):
        raise ValueError(f"a data frame has two columns of one name: {names}")
    return {str(name): values[name] for name in names}


def column(name: str, values: Column) -> np.ndarray:
    """One value for each sample, (N,), of a plain dtype: numbers, words, or objects.

    Args:
        name: of the argument, for messages.
        values: (N,) or (N, 1) of any library, or a data frame of one column.

    Raises:
        ValueError: another shape.

    Example:
        >>> column("labels", [1, 0]), column("labels", np.array([[b"a"], [b"b"]]))
        (array([1, 0]), array(['a', 'b'], dtype='<U1'))
    """
    columns = frame(values)
    if columns is not None:
        if len(columns) != 1:
            raise ValueError(f"{name}: a frame of {len(columns)} columns; give one of them")
        (values,) = columns.values()
    array = _array(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(f"{name}: {array.shape}; one value for each sample, (N,), is expected")
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8")
    if array.dtype.kind == "V":  # bfloat16 and its kin
        return array.astype(np.float64)
    if array.dtype.kind == "O":
        return _plain(array)
    return array


def _array(values: Column) -> np.ndarray:
    jax = sys.modules.get("jax")
    if jax is not None and isinstance(values, jax.Array):
        return jax.device_get(values)  # a transfer that is meant
    nulls = getattr(values, "null_count", 0)
    if nulls() if callable(nulls) else nulls:  # NumPy would make floats of whole numbers
        return _objects(values.to_pylist() if hasattr(values, "to_pylist") else values.to_list())
    if isinstance(values, list | tuple):  # of which NumPy would make words, if one is
        words = [isinstance(x, str | bytes) for x in values]
        if any(x is None for x in values) or (any(words) and not all(words)):
            return _objects(values)
    return np.asarray(values)


def _objects(values: Sequence[Any]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _plain(array: np.ndarray) -> np.ndarray:
    """Objects that are all words, or all numbers, in a dtype of that kind; None where missing."""
    gone = missing(array)
    values = [x.item() if isinstance(x, np.generic) else x for x in array.tolist()]
    values = [
        None if no else x.decode() if isinstance(x, bytes) else x
        for x, no in zip(values, gone.tolist(), strict=True)
    ]
    if not gone.any() and values:
        kinds = {type(x) for x in values}
        if kinds <= {str} or kinds <= {bool} or kinds <= {int} or kinds <= {float}:
            return np.array(values)
    return _objects(values)


def missing(array: np.ndarray) -> np.ndarray:
    """Which cells are empty: None, NaN, NaT, pandas' NA, "".

    Args:
        array: (N,) of `column`.

    Example:
        >>> missing(np.array(["a", "", None, np.nan], object)).tolist()
        [False, True, True, True]
    """
    if array.dtype.kind == "f":
        return np.isnan(array)
    if array.dtype.kind in "mM":
        return np.isnat(array)
    if array.dtype.kind == "U":
        return array == ""
    if array.dtype.kind == "O":
        return np.array([_is_missing(x) for x in array.tolist()], bool)
    return np.zeros(len(array), bool)


def _is_missing(value: Any) -> bool:
    if value is None or (isinstance(value, str | bytes) and not value):
        return True
    try:
        return bool(value != value)
    except TypeError:  # pandas' NA is neither true nor false
        return True


def classes(arrays: Mapping[str, np.ndarray]) -> tuple[list[Any], dict[str, np.ndarray]]:
    """The classes that occur in any of several columns, in order, and each column as their numbers.

    Args:
        arrays: columns of `column` by the name of the argument.

    Returns:
        Numbers in order of value, words as a reader expects (9 before 10); (N,) int64 of each.

    Raises:
        ValueError: cells without a value, or words in one column and numbers in another.

    Example:
        >>> classes({"labels": np.array([3, 1]), "predictions": np.array([1.0, 1.0])})
        ([1, 3], {'labels': array([1, 0]), 'predictions': array([0, 0])})
    """
    for name, array in arrays.items():
        if (count := int(missing(array).sum())) > 0:
            raise ValueError(f"{name}: {count} samples have none")
    return _codes(arrays)


def groups(array: np.ndarray, name: str = "groups") -> tuple[list[Any], np.ndarray]:
    """The groups that occur, in order, and the number of each sample's: -1 for a sample of none.

    A negative number and an empty cell are no group.

    Args:
        array: (N,) of `column`.
        name: of the argument, for messages.

    Example:
        >>> groups(np.array([2, -1, 0]))
        ([0, 2], array([ 1, -1,  0]))
    """
    out = missing(array)
    if array.dtype.kind in NUMBERS:
        out = out | (array < 0)
    elif array.dtype.kind == "O":
        negative = [isinstance(x, int | float) and x < 0 for x in array.tolist()]
        out = out | np.array(negative, bool)
    return encode(name, array, out)


def encode(name: str, array: np.ndarray, absent: np.ndarray) -> tuple[list[Any], np.ndarray]:
    """The values that occur, in order, and the number of each cell's: -1 for what is absent.

    Args:
        name: of the argument, for messages.
        array: (N,) of `column`.
        absent: (N,) bool.

    Raises:
        ValueError: words and numbers in one column.
    """
    codes = np.full(len(array), -1, np.int64)
    if absent.all():
        return [], codes
    present = _plain(array[~absent]) if array.dtype.kind == "O" else array[~absent]
    values, numbers = _codes({name: present})
    codes[~absent] = numbers[name]
    return values, codes


def _codes(arrays: Mapping[str, np.ndarray]) -> tuple[list[Any], dict[str, np.ndarray]]:
    distinct, inverse, kinds = {}, {}, {}
    for name, array in arrays.items():
        kind = "words" if array.dtype.kind == "U" else "numbers"
        if array.dtype.kind == "O":
            kinds[name] = " and ".join(sorted({type(x).__name__ for x in array.tolist()}))
            raise ValueError(f"{name}: values of several kinds, {kinds[name]}; give one of them")
        kinds[name] = kind
        values, inverse[name] = np.unique(array, return_inverse=True)
        distinct[name] = values.tolist()
    if len(set(kinds.values())) > 1:
        raise ValueError(f"{', '.join(kinds)}: are of several kinds, {kinds}")
    every = {value: None for values in distinct.values() for value in values}
    words = "words" in kinds.values()
    order = list(spelling.in_order(every)) if words else sorted(every)
    place = {value: code for code, value in enumerate(order)}
    return order, {
        name: np.array([place[v] for v in values], np.int64)[inverse[name]]
        for name, values in distinct.items()
    }
