"""Sparse storage: exact for any arrays and masks, near its entropy, small for a large network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fairgrape_jax as fg
from fairgrape_jax import models
from fairgrape_jax.errors import UsageError
from fairgrape_jax.exporters import sparse
from fairgrape_jax.exporters.sparse import decode, encode, sizes
from fairgrape_jax.models.weights import DTYPES
from tests.helpers.golden_networks import golden_state


def assert_exact(arrays, masks):
    content = encode(arrays, masks)
    back, back_masks = decode(content)
    assert list(back) == list(arrays)
    assert set(back_masks) == set(masks)
    for name, array in arrays.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape)
        assert back[name].tobytes() == np.ascontiguousarray(array).tobytes()
    for name, mask in masks.items():
        np.testing.assert_array_equal(back_masks[name], mask)
    return content


def pruned(rng, shape, share, dtype=np.float32):
    mask = rng.random(shape) < share
    return np.where(mask, rng.normal(size=shape).astype(dtype), np.zeros((), dtype)), mask


@pytest.mark.parametrize("size", [0, 1, 2, 254, 255, 256, 257, 511, 65_535, 65_536, 65_537])
@pytest.mark.parametrize("kept", ["none", "first", "last", "ends", "all", "all but one"])
def test_places_around_every_border(size, kept):
    mask = np.zeros(size, bool)
    places = {"first": [0], "last": [-1], "ends": [0, -1], "all": ..., "all but one": ...}
    if size:
        mask[places.get(kept, [])] = True
        mask[size // 2] &= kept != "all but one"
    array = np.where(mask, np.arange(1, size + 1, dtype=np.float32), np.float32(0))
    assert_exact({"w": array}, {"w": mask})


@pytest.mark.parametrize("gap", [0, 1, 253, 254, 255, 256, 509, 510, 511, 65_278, 65_279, 70_000])
@pytest.mark.parametrize("count", [1, 2, 300])
def test_gaps_around_every_border(gap, count):
    mask = np.zeros(count * (gap + 1), bool)
    mask[gap :: gap + 1] = True
    assert_exact({"w": mask.astype(np.float32)}, {"w": mask})


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_network_comes_back_to_the_bit(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    arrays, masks = {}, {}
    for number in range(data.draw(st.integers(0, 4))):
        shape = tuple(data.draw(st.lists(st.integers(0, 9), max_size=4)))
        dtype = np.dtype(DTYPES[data.draw(st.sampled_from(sorted(DTYPES)))])
        bits = rng.integers(0, 256, (*shape, dtype.itemsize), np.uint8)
        if dtype.kind == "b":
            bits &= 1
        array = bits.view(dtype).reshape(shape)  # NaN of any payload, infinities, negative zeros
        if data.draw(st.booleans()):
            mask = rng.random(shape) < data.draw(st.sampled_from([0, 0.01, 0.5, 0.9, 1]))
            array, masks[f"a{number}"] = np.where(mask, array, np.zeros((), dtype)), mask
        arrays[f"a{number}"] = array
    assert_exact(arrays, masks)


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_order_in_memory_is_no_matter(order):
    array, mask = pruned(np.random.default_rng(0), (30, 40), 0.3)
    assert_exact({"w": np.array(array, order=order)}, {"w": np.array(mask, order=order)})


def test_zeros_that_are_alive_stay_alive():
    assert_exact({"w": np.zeros(4, np.float32)}, {"w": np.array([True, False, True, True])})


SHARES = [1e-4, 1e-3, 2e-3, 4e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.9, 0.99, 0.999]


@pytest.mark.whole(but=6)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("share", SHARES)
def test_any_density_comes_within_15_percent_of_its_entropy(share, dtype):
    rng = np.random.default_rng(1)
    arrays, masks = {}, {}
    for number, side in enumerate((200, 700)):
        name = str(number)
        arrays[name], masks[name] = pruned(rng, (side, side), share, dtype)
    took = sizes(assert_exact(arrays, masks))
    assert took.file <= 1.15 * took.bound + 500
    kept = sum(int(mask.sum()) for mask in masks.values())
    assert took.bound <= kept * np.dtype(dtype).itemsize + sum(m.size for m in masks.values()) / 8


@pytest.fixture(scope="module")
def resnet34():
    """At 1 % of its weights, of normal distribution: nothing in them is easy to compress."""
    variables = models.from_torchvision("resnet34", golden_state("resnet34"))
    masks, _ = fg.prune(
        variables["params"], fg.full_masks(variables["params"]), 0.01, method="magnitude"
    )
    params = jax.device_get(fg.apply_masks(masks, variables["params"]))
    no_masks = jax.tree.map(lambda _: None, variables["batch_stats"])
    return {**variables, "params": params}, {"params": masks, "batch_stats": no_masks}


@pytest.mark.whole
@pytest.mark.parametrize(("values", "most"), [("exact", 1.3e6), ("float16", 0.9e6)])
def test_a_resnet34_of_one_percent(values, most, resnet34, tmp_path):
    variables, masks = resnet34
    leaves = jax.tree.leaves(variables)
    made = fg.export(variables, tmp_path / "o", to="sparse", masks=masks, values=values)
    size = made.sizes["model.sparse"]
    assert size <= most
    assert "of the entropy" in made.lines[0]
    assert "zipped" in made.lines[0]
    assert "read in" in made.lines[0]
    took = sizes((tmp_path / "o/model.sparse").read_bytes())
    assert size <= 1.15 * took.bound
    assert size < took.zipped < took.dense
    if values == "exact":
        assert took.dense == sum(leaf.nbytes for leaf in leaves)
    assert made.lines[0] in (tmp_path / "o/README.md").read_text()


def test_float16_rounds_pruned_layers_alone(tmp_path):
    rng = np.random.default_rng(0)
    w, mask = pruned(rng, (40, 50), 0.2)
    params = {"w": w, "scale": rng.normal(size=50).astype(np.float32)}
    masks = {"w": mask, "scale": None}
    fg.export(params, tmp_path / "o", to="sparse", masks=masks, values="float16")
    arrays, read = sparse.read(tmp_path / "o/model.sparse")
    np.testing.assert_array_equal(arrays["w"], w.astype(np.float16))
    np.testing.assert_array_equal(arrays["scale"], params["scale"])
    np.testing.assert_array_equal(read["w"], mask)


def test_weights_too_large_for_float16_are_named(tmp_path):
    params, masks = {"w": np.full((2, 2), 7e4, np.float32)}, {"w": np.ones((2, 2), bool)}
    with pytest.raises(UsageError, match=r"'w' holds weights beyond 65,504; give exact"):
        fg.export(params, tmp_path / "o", to="sparse", masks=masks, values="float16")
    assert not list(tmp_path.iterdir())


def test_a_network_without_masks_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no weight is pruned"):
        fg.export({"w": jnp.ones((2, 2))}, tmp_path / "o", to="sparse")


def test_every_damage_is_seen(tmp_path):
    array, mask = pruned(np.random.default_rng(0), (20, 30), 0.1)
    content = encode({"w": array}, {"w": mask})
    path = tmp_path / "w.sparse"
    for length in (0, 5, len(sparse.MAGIC), len(sparse.MAGIC) + 40, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(UsageError, match=r"w\.sparse: cannot be read \("):
            sparse.read(path)
    for place in range(0, len(content), 7):
        altered = bytearray(content)
        altered[place] ^= 16
        path.write_bytes(altered)
        with pytest.raises(UsageError, match=r"w\.sparse: cannot be read \("):
            sparse.read(path)
    for other in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UsageError, match="cannot be read"):
            sparse.read(other)
