"""N:M and tiles: the choices within them against all choices there are, and every border."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from fairgrape_jax.config.forms import as_word
from fairgrape_jax.selection import select_first, select_greedy
from fairgrape_jax.selection.patterns import (
    NofM,
    Tiles,
    block_numbers,
    joined_blocks,
    limits,
    most_in_block,
    outputs_first,
    parse_pattern,
)
from fairgrape_jax.selection.within import (
    PASSES,
    select_first_within,
    select_greedy_within,
    select_maxmin_within,
)

CHOICES = {
    "top": select_first_within,
    "greedy": select_greedy_within,
    "absolute": lambda *layer: select_greedy_within(*layer, deficit="absolute", advances=2),
    "maxmin": select_maxmin_within,
}
PATTERNS = [NofM(2, 4), NofM(1, 4), NofM(1, 2), NofM(3, 8), NofM(2, 4, offset=3), NofM(1, 4, 128)]


def layer(rng, n, groups=3, alive=1.0):
    importance = rng.lognormal(0, 2, (groups, n))
    importance[:, rng.random(n) < 0.2] = 0
    return importance, rng.random(n) < alive


def within(mask, blocks, most):
    return (np.bincount(blocks[mask], minlength=blocks.max() + 1) <= most).all()


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("choice", CHOICES)
def test_exact_counts_in_every_block_at_every_density(pattern, choice):
    """Down through the rounds to less than the pattern allows: nested, exact, and N of every M."""
    rng = np.random.default_rng(0)
    for shape in ((3, 3, 4, 2), (16, 5), (pattern.of * pattern.offset, 3), (7, 3)):
        n = int(np.prod(shape))
        blocks = block_numbers(pattern, shape)
        importance, mask = layer(rng, n)[0], np.ones(n, bool)
        sizes = np.bincount(blocks)
        room = int(np.minimum(sizes, pattern.kept).sum())
        for keep in (n, (n + room) // 2, room + 1, room, room // 2, 1, 0):
            if keep > mask.sum():
                continue
            bounds = limits(pattern, blocks, mask, keep)
            new = CHOICES[choice](importance, mask, keep, bounds)
            assert new.sum() == keep
            assert not (new & ~mask).any()
            kept = np.bincount(blocks[new], minlength=len(sizes))
            assert (kept <= bounds.most).all()
            assert (kept >= bounds.least).all()
            if keep <= room:
                assert kept.max() <= pattern.kept
            if keep == room:
                np.testing.assert_array_equal(kept, np.minimum(sizes, pattern.kept))
            mask = new


@pytest.mark.parametrize("seed", range(12))
def test_the_best_sum_of_all_choices(seed):
    """Every choice of 12 weights within the limits is tried."""
    rng = np.random.default_rng(seed)
    n, pattern = 12, PATTERNS[seed % 4]
    importance, alive = layer(rng, n, groups=1, alive=0.9)
    blocks = block_numbers(pattern, (n, 1))
    keep = int(rng.integers(0, alive.sum() + 1))
    bounds = limits(pattern, blocks, alive, keep)
    best = max(
        importance[0, list(chosen)].sum()
        for chosen in itertools.combinations(np.flatnonzero(alive), keep)
        if (counts := np.bincount(blocks[list(chosen)], minlength=len(bounds.most))) is not None
        and (counts >= bounds.least).all()
        and (counts <= bounds.most).all()
    )
    mask = select_first_within(importance, alive, keep, bounds)
    np.testing.assert_allclose(importance[0, mask].sum(), best, rtol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_maxmin_is_near_the_best_of_all_choices(seed):
    rng = np.random.default_rng(seed)
    n, pattern, keep = 12, NofM(2, 4), 5
    importance, alive = rng.lognormal(0, 1, (2, n)), np.ones(n, bool)
    blocks = block_numbers(pattern, (n, 1))
    parts = importance / importance.sum(axis=1, keepdims=True)
    best = max(
        parts[:, list(chosen)].sum(axis=1).min()
        for chosen in itertools.combinations(range(n), keep)
        if np.bincount(blocks[list(chosen)]).max() <= 2
    )
    mask = select_maxmin_within(importance, alive, keep, limits(pattern, blocks, alive, keep))
    top = select_first_within(
        parts.sum(axis=0)[None], alive, keep, limits(pattern, blocks, alive, keep)
    )
    assert best >= parts[:, mask].sum(axis=1).min() >= 0.9 * best
    assert parts[:, mask].sum(axis=1).min() >= parts[:, top].sum(axis=1).min()


@pytest.mark.parametrize("seed", range(6))
def test_maxmin_is_the_best_answer_to_a_hedging_opponent(seed):
    """Hedge in its closed form: weights fall with all that a group has retained so far."""
    rng = np.random.default_rng(seed)
    (importance, alive), groups = layer(rng, 60, groups=4), 4
    bounds = limits(NofM(2, 4), np.repeat(np.arange(15), 4), alive, 20)
    parts = importance / importance.sum(axis=1, keepdims=True)
    answers, sums = [], np.zeros(groups)
    for _ in range(PASSES):
        weights = np.exp(-np.sqrt(8 * np.log(groups) / PASSES) * (sums - sums.min()))
        answers.append(select_first_within((weights @ parts)[None], alive, 20, bounds))
        sums += parts[:, answers[-1]].sum(axis=1)
    best = max(answers, key=lambda mask: parts[:, mask].sum(axis=1).min())
    mask = select_maxmin_within(importance, alive, 20, bounds)
    np.testing.assert_array_equal(mask, best)


@pytest.mark.parametrize("seed", range(8))
def test_one_block_is_the_choice_without_a_pattern(seed):
    rng = np.random.default_rng(seed)
    importance, alive = layer(rng, 40, alive=0.8)
    keep = int(rng.integers(0, alive.sum() + 1))
    whole = limits(NofM(39, 40), np.zeros(40, np.int64), alive, keep)
    for advances in (1, 3):
        np.testing.assert_array_equal(
            select_greedy_within(importance, alive, keep, whole, advances=advances),
            select_greedy(importance, alive, keep, advances=advances),
        )
    np.testing.assert_array_equal(
        select_first_within(importance, alive, keep, whole), select_first(importance, alive, keep)
    )


def test_a_group_whose_weights_have_no_room_left_is_not_asked_again():
    """It has less than its share and nothing to choose: the other goes on with its best."""
    importance = np.array([[0, 0, 100, 100, 0, 0, 0, 0], [0.5, 0.6, 0, 0, 1, 2, 3, 4]])
    alive, blocks = np.ones(8, bool), np.repeat(np.arange(4), 2)
    mask = select_greedy_within(importance, alive, 4, limits(NofM(1, 2), blocks, alive, 4))
    assert np.flatnonzero(mask).tolist() == [1, 2, 5, 7]


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("power", [-60, 60])
def test_the_scale_of_importance_does_not_matter(choice, power):
    importance, alive = layer(np.random.default_rng(0), 40, alive=0.8)
    bounds = limits(NofM(2, 4), np.repeat(np.arange(10), 4), alive, 12)
    mask, scaled = (
        CHOICES[choice](x, alive, 12, bounds) for x in (importance, np.ldexp(importance, power))
    )
    np.testing.assert_array_equal(mask, scaled)


def test_the_first_row_alone_is_looked_at():
    scores, alive = np.array([[1.0, 3.0, 2.0], [np.nan, 0, 9]]), np.ones(3, bool)
    whole = limits(NofM(2, 3), np.zeros(3, np.int64), alive, 2)
    assert select_first_within(scores, alive, 2, whole).tolist() == [False, True, True]
    assert select_first(scores, alive, 2).tolist() == [False, True, True]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32, ">f4", bool])
@pytest.mark.parametrize("choice", CHOICES)
def test_every_dtype_and_nothing_to_choose_from(choice, dtype):
    select = CHOICES[choice]
    importance = np.array([[3, 2, 1, 0], [0, 1, 2, 3]]).astype(dtype)
    blocks, alive = np.array([0, 0, 1, 1]), np.ones(4, bool)
    bounds = limits(NofM(1, 2), blocks, alive, 2)
    assert within(select(importance, alive, 2, bounds), blocks, 1)
    # No group has importance: the lowest index of each block.
    none = select(np.zeros((2, 4), dtype), alive, 2, bounds)
    assert none.tolist() == [True, False, True, False]
    empty = np.zeros(0, np.int64)
    nothing = select(
        np.zeros((2, 0), dtype), empty.astype(bool), 0, limits(NofM(), empty, empty.astype(bool), 0)
    )
    assert nothing.shape == (0,)
    dead = np.zeros(4, bool)
    assert not select(importance, dead, 0, limits(NofM(1, 2), blocks, dead, 0)).any()


def test_blocks_lie_along_the_inputs_of_one_output():
    """As sparse tensor cores read (outputs, inputs): the channel is the fastest input."""
    kernel = np.arange(2 * 2 * 8 * 3).reshape(2, 2, 8, 3)
    blocks = block_numbers(NofM(2, 4), kernel.shape).reshape(kernel.shape)
    for y, x, c, o in np.ndindex(2, 2, 2, 3):
        of_block = blocks[y, x, 4 * c : 4 * c + 4, o]
        assert len(set(of_block.tolist())) == 1
        assert (blocks == of_block[0]).sum() == 4
    torch_order = np.moveaxis(kernel, (3, 2), (0, 1))
    same = block_numbers(NofM(2, 4), torch_order.shape, outputs_first=True)
    np.testing.assert_array_equal(np.moveaxis(blocks, (3, 2), (0, 1)).reshape(-1), same)
    lanes = block_numbers(NofM(1, 4, offset=128), (1024, 2)).reshape(1024, 2)
    assert np.flatnonzero(lanes[:, 0] == lanes[5, 0]).tolist() == [5, 133, 261, 389]


@pytest.mark.parametrize("shape", [(1, 1), (3, 3, 1, 5), (9, 4), (5, 7), (8, 8)])
@pytest.mark.parametrize("tile", [Tiles(1, 2), Tiles(2, 2), Tiles(4, 4), Tiles(16, 16)])
def test_tiles_divide_a_kernel(shape, tile):
    matrix = block_numbers(tile, shape).reshape(-1, shape[-1])
    for number in range(matrix.max() + 1):
        rows, columns = np.nonzero(matrix == number)
        assert np.ptp(rows) < tile.inputs
        assert np.ptp(columns) < tile.outputs
        assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    per_axis = -(-len(matrix) // tile.inputs), -(-shape[-1] // tile.outputs)
    assert matrix.max() + 1 == np.prod(per_axis)


@pytest.mark.parametrize("inputs", [1, 3, 4, 5, 127, 128, 129, 511, 512, 513, 700])
@pytest.mark.parametrize("pattern", [*PATTERNS, Tiles(4, 4), Tiles(200, 1)], ids=str)
def test_blocks_are_numbered_without_a_gap(pattern, inputs):
    for shape, first in (((inputs, 3), False), ((3, inputs), True)):
        numbers = block_numbers(pattern, shape, first)
        assert sorted(set(numbers.tolist())) == list(range(numbers.max() + 1))


def test_numbers_of_several_layers():
    assert joined_blocks([np.array([0, 1]), np.zeros(0, int), np.array([0, 0])]).tolist() == [
        0,
        1,
        2,
        2,
    ]
    masks = [{"kernel": np.ones((8, 2), bool)}, {"weight": np.ones((2, 8), bool)}, {"w": None}]
    assert outputs_first(masks) == [False, True]
    assert most_in_block(NofM(2, 4), jax.tree.map(np.asarray, masks)) == 4


@pytest.mark.parametrize("word", ["none", "2:4", "1:4@128", "4x4", "1x16"])
def test_words(word):
    assert as_word(parse_pattern(word)) == word


@pytest.mark.parametrize(
    "word", ["4:4", "0:4", "2:4@0", "1x1", "0x4", "2:4:8", "2-4", "2:4@", "x4", "@4", "4x4@2"]
)
def test_words_that_are_no_pattern(word):
    with pytest.raises(ValueError, match=r"pattern|is not none|tile"):
        parse_pattern(word)


def test_patterns_are_values():
    assert dataclasses.replace(NofM(), kept=1) == NofM(1, 4) != NofM(1, 4, 128)
