"""Cells as names: which are one, in which order they stand, and crossed groups that stay apart."""

import itertools
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairgrape_jax import spelling
from fairgrape_jax.reports import names
from fairgrape_jax.reports.names import Categorical


def column(*words):
    distinct = tuple(dict.fromkeys(word for word in words if word is not None))
    codes = [-1 if word is None else distinct.index(word) for word in words]
    return Categorical(np.array(codes, np.int32), distinct)


UNIFIED = {
    "numbers": (["10", "9", "2.0", "-0.0", "0"], ("0", "2", "9", "10")),
    "fractions": (["0.50", ".5", "0.5"], ("0.5", "0.50", ".5")),  # .5 is no canonical number
    "exponents": (["1e3", "1000", "1E+3", "1000.0"], ("1000",)),
    "large": (["9007199254740993", "9007199254740992.0"], ("9007199254740992", "9007199254740993")),
    "leading zeros": (["007", "7", "7.0"], ("007", "7", "7.0")),
    "versions": (["1.10", "1.1", "beta"], ("1.1", "1.10", "beta")),
    "truth": (["true", "False", "TRUE"], ("False", "True")),
    "truth and more": (["true", "True", "maybe"], ("True", "maybe", "true")),
    "nan is a word": (["8", "10", "nan", "9"], ("8", "9", "10", "nan")),
    "words with numbers": (["c 10", "c 9", "c 09"], ("c 09", "c 9", "c 10")),
    "huge exponents": (["1e400", "2e400", "10e399"], ("1E+400", "2E+400")),
    "more digits than int() takes": (["1" * 5000, "b"], ("1" * 5000, "b")),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNIFIED)
def test_names_of_one_column(kind):
    words, expected = UNIFIED[kind]
    (unified,) = names.unify([column(*words)])
    assert unified.names == expected


def test_columns_of_one_kind_decide_together():
    label, says_one, says_both = (
        column("1.0", "1.10", "beta"), column("1.0", None, "1.0"), column("1.10", "1.1", "1.0"),
    )  # fmt: skip
    unified = names.unify([label, says_one, says_both])
    assert unified[0].names == ("1.0", "1.1", "1.10", "beta")
    assert unified[1].codes.tolist() == [0, -1, 0]
    assert unified[2].codes.tolist() == [2, 1, 0]
    assert names.unify([says_both])[0].codes.tolist() == [1, 1, 0]  # alone they are numbers


@given(
    st.lists(
        st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30),
        min_size=1,
    )
)
def test_equal_numbers_are_one_name_and_stay_the_number(numbers):
    for number in numbers:
        word = f"{number:f}"
        assert spelling.NUMBER.fullmatch(word)
        assert Decimal(spelling.number_name(word)) == number
        assert spelling.number_name(spelling.number_name(word)) == spelling.number_name(word)
    ordered = spelling.in_order(spelling.number_name(f"{number:f}") for number in numbers)
    assert [Decimal(word) for word in ordered] == sorted(set(numbers))


@given(st.lists(st.text(max_size=6)), st.randoms())
def test_the_order_of_names_does_not_depend_on_that_of_rows(words, random):
    shuffled = list(words)
    random.shuffle(shuffled)
    assert spelling.in_order(words) == spelling.in_order(shuffled)
    assert sorted(spelling.in_order(words)) == sorted(set(words))


def test_crossed_groups_that_join_to_one_text_stay_apart():
    parts = ["a", "a / b", "b", "b / c", '"', '"a / b"', "a /", "/ b", "\\", '\\"']
    values = list(itertools.product(parts, repeat=2)) + [(p,) for p in parts]
    two = [v for v in values if len(v) == 2]
    groups = names.cross([column(*[v[0] for v in two]), column(*[v[1] for v in two])], ["g", "h"])
    assert len(set(groups.values)) == len(set(groups.names)) == len(two)
    assert [groups.values[code] for code in groups.codes] == two


def test_crossed_groups_and_empty_cells():
    groups = names.cross([column("x", None, "y", "x"), column("p", "p", None, "q")], ["g", "h"])
    assert groups.codes.tolist() == [0, -1, -1, 1]
    assert groups.names == ("x / p", "x / q")
    taken = groups.take(np.array([1, 3])).used()
    assert (taken.codes.tolist(), taken.values) == ([-1, 0], (("x", "q"),))


def test_many_columns_are_crossed_without_running_over():
    rng = np.random.default_rng(0)
    columns = [column(*map(str, rng.integers(0, 1000, 300))) for _ in range(9)]  # 1000^9 > 2^64
    groups = names.cross(columns, [str(i) for i in range(9)])
    rows = list(zip(*[[c.names[code] for code in c.codes] for c in columns], strict=True))
    assert [groups.values[code] for code in groups.codes] == rows
