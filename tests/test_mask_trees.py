"""Trees of masks: what of a tree is prunable, its names and counts, and trees that do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairgrape_jax import masks


def two_layers():
    """Seven weights alive of ten."""
    first = np.array([[True, False, True], [True, False, False]])
    return {"a": {"kernel": first, "bias": None}, "b": {"kernel": np.array([[True], [True]] * 2)}}


def test_the_density_and_the_table_count_weights():
    tree = two_layers()
    assert masks.density(tree) == pytest.approx(7 / 10)
    assert masks.sparsity_table(tree) == [
        {"layer": "a", "weights": 6, "alive": 3},
        {"layer": "b", "weights": 4, "alive": 4},
    ]


@pytest.mark.parametrize("tree", [{}, {"bias": None}, {"kernel": np.ones((0, 3), bool)}])
def test_a_density_of_nothing_is_refused(tree):
    with pytest.raises(ValueError, match="no weight is prunable"):
        masks.density(tree)


@pytest.mark.parametrize("density", [-1e-9, 1 + 1e-9, np.nan, -1, 2, np.inf])
def test_a_density_outside_0_to_1_is_refused(density):
    for call in (masks.check_density, lambda density: masks.kept(10, density)):
        with pytest.raises(ValueError, match="not between 0 and 1"):
            call(density)


def test_the_borders_are_densities():
    for density, count in ((0, 0), (1, 10), (0.0, 0), (1.0, 10), (np.float32(0.5), 5)):
        masks.check_density(density)
        assert masks.kept(10, density) == count


def test_a_name_is_the_whole_path_but_for_kernel():
    leaf = np.ones((1, 2), bool)
    tree = {"block": {"conv": {"kernel": leaf}, "kernel": leaf, "scale": leaf}, "kernel": leaf}
    assert masks.layer_names(tree) == ["block/conv", "block", "block/scale", ""]
    assert masks.layer_names({"a": {"b": {"c": leaf}}}) == ["a/b/c"]


@pytest.mark.parametrize("missing", ["new", "previous"])
def test_trees_of_another_number_of_layers_are_not_nested(missing):
    trees = {"new": two_layers(), "previous": two_layers()}
    del trees[missing]["b"]
    with pytest.raises(ValueError, match=r"zip\(\)"):
        masks.check_nested(**trees)


def test_every_layer_is_looked_at_for_weights_that_came_back():
    before = two_layers()
    after = two_layers()
    after["a"]["kernel"] = after["a"]["kernel"] & False
    masks.check_nested(after, before)
    before["b"]["kernel"] = before["b"]["kernel"] & np.array([[True], [True], [True], [False]])
    with pytest.raises(ValueError, match="layer b revives"):
        masks.check_nested(after, before)


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.array([1.5, 2.0], ">f4"), np.float32),
        (np.array([1.5, 2.0], "<f8"), np.float64),
        (np.array([1, 2], ">i2"), np.int16),
        (np.array([1.5, 2.0], np.longdouble), np.float64),
        (np.array([True, False]), np.bool_),
        ([1.5, 2.0], np.float64),
    ],
)
def test_a_native_array_has_the_same_values(array, dtype):
    found = masks.native(array)
    assert found.dtype == dtype
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, np.asarray(array))


def test_an_array_that_is_native_is_not_copied():
    array = np.arange(3.0)
    assert np.shares_memory(masks.native(array), array)


def test_arrays_of_the_host_are_moved_explicitly_and_those_of_devices_stay():
    array = jnp.arange(3)
    with jax.transfer_guard("disallow"):
        moved = masks.put_on_device(np.arange(3))
        stays = masks.put_on_device(array)
    assert isinstance(moved, jax.Array)
    np.testing.assert_array_equal(moved, [0, 1, 2])
    assert stays is array


def test_masked_params_keep_dtype_and_what_is_not_prunable():
    tree = two_layers()
    params = {
        "a": {"kernel": np.full((2, 3), 3, np.float16), "bias": np.ones(3)},
        "b": {"kernel": np.full((4, 1), -2.0, np.float32)},
    }
    found = masks.apply_masks(tree, params)
    assert found["a"]["bias"] is params["a"]["bias"]
    assert found["a"]["kernel"].dtype == np.float16
    np.testing.assert_array_equal(found["a"]["kernel"], 3 * tree["a"]["kernel"])
    np.testing.assert_array_equal(found["b"]["kernel"], params["b"]["kernel"])
    assert masks.select_prunable(tree, params)["a"] == {
        "kernel": params["a"]["kernel"],
        "bias": None,
    }
    seen = []
    masks.map_masked(lambda *leaves: seen.append(leaves), tree, params)
    assert [len(leaves) for leaves in seen] == [2, 2, 2]
    assert seen[0][0] is None


def test_masks_that_do_not_fit_are_refused_by_name():
    params = {
        "a": {"kernel": np.ones((2, 3)), "bias": np.ones(3)},
        "b": {"kernel": np.ones((4, 1))},
    }
    masks.check_masks(two_layers(), params)
    with pytest.raises(ValueError, match="no layer is prunable"):
        masks.check_masks({"a": {"kernel": None, "bias": None}, "b": {"kernel": None}}, params)
    with pytest.raises(ValueError, match="not of the structure of the parameters"):
        masks.check_masks(two_layers(), {"a": params["a"]})
    for wrong, said in (
        (np.ones((4, 1), np.uint8), r"layer b: uint8 \(4, 1\); bool \(4, 1\) is expected"),
        (np.ones((1, 4), bool), r"layer b: bool \(1, 4\); bool \(4, 1\) is expected"),
    ):
        changed = two_layers()
        changed["b"]["kernel"] = wrong
        with pytest.raises(ValueError, match=said):
            masks.check_masks(changed, params)
