"""Trees as layers and back: members, joined arrays, and trees that do not fit."""

import numpy as np
import pytest

from fairgrape_jax.selection.counts import as_tree, check_trees, joined, members

MASKS = {
    "a": {"bias": None, "kernel": np.arange(6).reshape(2, 3) % 2 == 0},
    "b": {"kernel": np.array([True, False, True, True])},
    "c": {"kernel": np.zeros((0, 5), bool)},
    "d": {"kernel": np.ones((1, 1, 2), bool)},
}
LEAVES = [MASKS[name]["kernel"] for name in "abcd"]


def test_members_are_the_layers_or_all_of_them():
    assert members(MASKS, "uniform") == {"a": [0], "b": [1], "c": [2], "d": [3]}
    assert members(MASKS, {"a": 0.5}) == members(MASKS, "erk") == members(MASKS, "uniform")
    assert members(MASKS, "global") == {"network": [0, 1, 2, 3]}
    for allocation in ("uniform", "global"):
        with pytest.raises(ValueError, match="no layer is prunable"):
            members({"bias": None}, allocation)
    with pytest.raises(ValueError, match="'fair' is none of"):
        members(MASKS, "fair")


@pytest.mark.parametrize("numbers", [[0], [1], [2], [3], [0, 1], [3, 2, 0], [0, 1, 2, 3]])
def test_joined_is_the_leaves_one_after_the_other(numbers):
    flat = joined(LEAVES, numbers)
    assert flat.tolist() == [x for i in numbers for x in LEAVES[i].reshape(-1).tolist()]
    for groups in (0, 1, 3):
        rows = [np.arange(groups * x.size).reshape(groups, *x.shape) for x in LEAVES]
        found = joined(rows, numbers, lead=1)
        assert found.shape == (groups, flat.size)
        for k in range(groups):
            expected = [x for i in numbers for x in rows[i][k].reshape(-1).tolist()]
            assert found[k].tolist() == expected
    assert joined([np.ones((2, 3, 4, 5))], [0], lead=2).shape == (2, 3, 20)


def test_one_leaf_is_not_copied():
    assert np.shares_memory(joined(LEAVES, [0]), LEAVES[0])


@pytest.mark.parametrize("parts", [[6, 4, 0, 2], [12], [10, 2]])
def test_flat_masks_have_the_form_of_the_tree_again(parts):
    whole = np.concatenate([leaf.reshape(-1) for leaf in LEAVES])
    tree = as_tree(MASKS, np.split(whole, np.cumsum(parts)[:-1]))
    assert list(tree) == list(MASKS)
    assert tree["a"]["bias"] is None
    for name, layer in MASKS.items():
        np.testing.assert_array_equal(tree[name]["kernel"], layer["kernel"])
        assert tree[name]["kernel"].shape == layer["kernel"].shape


def scores(groups=2, **changed):
    tree = {
        name: {"kernel": np.ones((groups, *layer["kernel"].shape))} for name, layer in MASKS.items()
    }
    tree["a"]["bias"] = None
    return tree | {name: {"kernel": leaf} for name, leaf in changed.items()}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (scores(b=None), "importance has 3 arrays, masks 4"),
        (scores(b=np.ones((2, 5))), r"layer b: \(2, 5\) is not \(G, \*\(4,\)\), groups first"),
        (scores(b=np.ones((4, 2))), r"layer b: \(4, 2\) is not"),
        (scores(d=np.ones((2, 2))), r"layer d: \(2, 2\) is not"),
        (scores(d=np.ones((3, 1, 1, 2))), "importance of layer d: 3 groups, of a 2"),
        (scores(b=np.ones((1, 4))), "importance of layer b: 1 groups, of a 2"),
    ],
)
def test_trees_that_do_not_fit_are_named(tree, message):
    with pytest.raises(ValueError, match=message):
        check_trees(tree, MASKS)


def test_trees_that_fit_and_masks_that_are_none():
    for groups in (0, 1, 5):
        check_trees(scores(groups), MASKS)
    for dtype in (np.uint8, np.float32):
        wrong = MASKS | {"d": {"kernel": np.ones((1, 1, 2), dtype)}}
        with pytest.raises(ValueError, match="masks of layer d: dtype bool is expected"):
            check_trees(scores(), wrong)
