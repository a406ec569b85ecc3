"""Networks in int8: integer arithmetic, qwix's convolution, every kind of layer, training."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import qwix
from jax import lax

import fairgrape_jax as fg
from fairgrape_jax import models
from fairgrape_jax.quantize import numbers
from tests.helpers.small_networks import NETWORKS, arrays, conv, image

rng = np.random.default_rng(0)
W = {"a": rng.normal(size=(6, 16)), "bias": rng.normal(size=16), "b": rng.normal(size=(16, 3))}
W = jax.tree.map(np.float32, W)
X = rng.normal(size=(32, 6)).astype(np.float32)


def mlp(params, x):
    return jax.nn.relu(x @ params["a"] + params["bias"]) @ params["b"]


def half_of(params):
    """Masks of half of the weights of every array of two or more axes."""
    full = fg.full_masks(params, lambda path, leaf: leaf.ndim > 1)
    return fg.prune(params, full, 0.5, method="magnitude")[0]


def whole_dot(x, weights):
    """A matrix product in NumPy's whole numbers, of what is calibrated on x itself."""
    lower, upper = min(x.min(), 0), max(x.max(), 0)
    step = np.float32((upper - lower) / np.float32(255))
    zero = np.clip(np.rint(-128 - lower / step), -128, 127)
    q = np.clip(np.rint(x / step) + zero, -128, 127).astype(np.int64)
    scale = (np.abs(weights).max(0) / np.float32(127)).astype(np.float32)
    w = np.rint(weights / scale).astype(np.int64)
    return ((q - int(zero)) @ w).astype(np.float64) * step * scale


def test_a_network_is_that_of_integer_arithmetic_in_numpy():
    network = fg.quantize_int8(W, apply=mlp, inputs=X)
    exact = np.maximum(X @ W["a"] + W["bias"], 0)  # what the second layer was calibrated on
    assert network.bounds["b"] == (0.0, pytest.approx(exact.max(), rel=1e-6))
    first = whole_dot(X, W["a"])
    one = fg.quantize_int8({"a": W["a"]}, apply=lambda p, x: x @ p["a"], inputs=X)
    for apply in (one.apply, one.apply_integer):
        np.testing.assert_allclose(apply(one.params, X), first, rtol=2e-5, atol=1e-5)
    hidden = np.maximum(first.astype(np.float32) + W["bias"], 0)
    step = np.float32(exact.max() / 255)
    q = np.clip(np.rint(hidden / step), 0, 255)
    scale = np.abs(W["b"]).max(0) / 127
    second = q @ np.rint(W["b"] / scale) * step * scale
    np.testing.assert_allclose(network.apply_integer(network.params, X), second, rtol=1e-4)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("positive", [True, False])
def test_a_convolution_is_that_of_qwix(groups, positive):
    """Padding, strides and zero points, in int32."""
    x = np.abs(image(4, 6)) if positive else image(4, 6)
    kernel = arrays(k=(3, 3, 4 // groups, 8))["k"]
    numbers_of = ("NHWC", "HWIO", "NHWC")
    options = {"dimension_numbers": numbers_of, "feature_group_count": groups}

    def apply(params, x):
        return lax.conv_general_dilated(x, params["k"], (2, 1), "SAME", **options)

    network = fg.quantize_int8({"k": kernel}, apply=apply, inputs=x)
    scale, zero = network.params["activations"]["k"]
    held = numbers.to_int8(jnp.asarray(x), numbers.Scale(scale, zero))
    lhs = qwix.QArray(held, jnp.full((1, 1, 1, 1), scale), jnp.full((1, 1, 1, 1), zero, jnp.int8))
    rhs = qwix.QArray(
        jnp.asarray(network.params["int8"]["k"]), jnp.asarray(network.params["scales"]["k"])
    )
    expected = qwix.conv_general_dilated(lhs, rhs, (2, 1), "SAME", **options)
    for function in (network.apply, network.apply_integer):
        np.testing.assert_allclose(function(network.params, x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.whole(but=5)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_network_goes_through(name):
    network = NETWORKS[name]()
    masks = half_of(network.params)
    made = fg.quantize_int8(network.params, apply=network.apply, inputs=network.x, masks=masks)
    exact = np.asarray(jax.jit(network.apply)(fg.apply_masks(masks, network.params), network.x))
    outputs = np.asarray(made.apply(made.params, network.x))
    assert outputs.dtype == exact.dtype
    assert np.abs(outputs - exact).max() <= 0.06 * np.abs(exact).max() + 1e-6
    for title, held in made.params["int8"].items():
        mask = masks[title.split(" (")[0]]
        if np.shape(mask) == held.shape:
            assert not held[~mask].any()


def test_the_batch_may_be_another_one_and_batches_are_calibrated_together():
    made = fg.quantize_int8(W, apply=mlp, inputs=[X[:3], X[3:]])
    whole = fg.quantize_int8(W, apply=mlp, inputs=X)
    for name, bounds in whole.bounds.items():
        assert made.bounds[name] == pytest.approx(bounds)
    for rows in (1, 5, 32):
        np.testing.assert_allclose(
            made.apply(made.params, X[:rows]), made.apply(made.params, X)[:rows], atol=1e-5
        )
    assert made.bytes == sum(W[k].size for k in "ab") + 4 * (16 + 3) + 2 * 2 * 4 + W["bias"].nbytes


def test_shared_weights_are_held_once_and_transposed_ones_by_their_channels():
    def tied(params, x):
        return (jnp.tanh(x @ params["w"]) @ params["w"].T, x @ params["w"])

    weights = {"w": W["a"]}
    made = fg.quantize_int8(weights, apply=tied, inputs=X)
    assert {n: w.shape for n, w in made.params["int8"].items()} == {"w": (6, 16), "w (2)": (16, 6)}
    assert made.params["scales"]["w"].shape == (1, 16)
    assert made.params["scales"]["w (2)"].shape == (1, 6)
    for one, other in zip(tied(weights, X), made.apply(made.params, X), strict=True):
        assert np.abs(one - other).max() < 0.03 * np.abs(one).max()


def test_what_is_no_layer_stays_and_is_named():
    def attention(params, x):
        scores = (x @ params["q"]) @ (x @ params["k"]).T
        carried, _ = lax.scan(lambda c, _: (c @ params["loop"], None), scores @ x, length=2)
        return carried

    params = arrays(q=(6, 4), k=(6, 4), loop=(6, 6))
    made = fg.quantize_int8(params, apply=attention, inputs=X[:4])
    assert made.left == (
        "dot_general of two activations",
        "dot_general of two activations",
        "dot_general within scan",
    )
    assert set(made.params["float"]) == {"loop"}
    exact = attention(params, X[:4])
    assert np.abs(made.apply(made.params, X[:4]) - exact).max() < 0.05 * np.abs(exact).max()


@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_the_networks_of_the_table_are_a_quarter_of_the_bytes(name):
    module = models.create(name, 3)
    x = image(3, 8)
    variables = jax.jit(module.init)(jax.random.key(0), x)
    made = fg.quantize_int8(variables, apply=module.apply, inputs=x)
    assert made.left == ()
    assert all("kernel" in title for title in made.params["int8"])
    assert not any("kernel" in title for title in made.params["float"])
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(variables))
    assert 0.25 * size < made.bytes < 0.3 * size


def test_training_in_int8_gets_better_in_int8_and_keeps_zeros():
    labels = np.argmax(X @ rng.normal(size=(6, 3)), 1)
    masks = half_of(W)
    simulated = fg.simulate_int8(W, apply=mlp, inputs=X, masks=masks)
    params, optimizer = fg.apply_masks(masks, W), fg.masked(optax.adam(3e-2), masks)

    def loss(params):
        logits = simulated(params, X)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    state, before = optimizer.init(params), float(loss(params))
    for _ in range(30):
        params, state = step(params, state)
    assert float(loss(params)) < 0.5 * before
    made = simulated.convert(params)
    np.testing.assert_allclose(made.apply(made.params, X), simulated(params, X), atol=1e-5)
    for name in "ab":
        assert not made.params["int8"][name][~np.asarray(masks[name])].any()


def test_gradients_pass_straight_through():
    """Of a product of whole numbers they are those of the product itself."""
    x = np.float32([[1, 2, 255]])
    params = {"w": np.float32([[127], [3], [-5]])}
    simulated = fg.simulate_int8(params, apply=lambda p, x: x @ p["w"], inputs=x)
    assert float(simulated(params, x)[0, 0]) == 127 + 6 - 5 * 255
    gradient = jax.grad(lambda p: simulated(p, x).sum())(params)["w"]
    np.testing.assert_allclose(gradient[:, 0], x[0])
    cut = jax.grad(lambda x: simulated(params, x).sum())(np.float32([[-9, 2, 300]]))
    np.testing.assert_allclose(cut[0], [0, 3, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": X[:0]}, "inputs: at least one"),
        ({"inputs": []}, "inputs: at least one"),
        ({"inputs": np.where(X > 2, np.nan, X)}, "an activation before 'a' is not finite"),
        ({"apply": lambda params, x: x.sum() + params["bias"]}, "takes parameters"),
        ({"masks": {"a": np.ones((2, 2), bool)}}, "masks"),
    ],
)
@pytest.mark.parametrize("function", [fg.quantize_int8, fg.simulate_int8])
def test_what_cannot_be_int8_is_refused(function, change, message):
    with pytest.raises(ValueError, match=message):
        function(W, **({"apply": mlp, "inputs": X} | change))


def test_it_leaves_as_a_program_of_any_batch_and_as_arrays(tmp_path):
    made = fg.quantize_int8(W, apply=mlp, inputs=X)
    for to, name in (("stablehlo", "model.stablehlo"), ("npz", "model.npz")):
        fg.export(made.params, tmp_path / to, to=to, apply=made.apply, inputs=X)
        assert (tmp_path / to / name).exists()
    with np.load(tmp_path / "npz/model.npz") as held:
        assert held["int8/a"].dtype == np.int8


def test_functions_of_other_libraries_hold_what_is_no_array():
    model = eqx.nn.MLP(6, 3, 16, 1, key=jax.random.key(0))
    made = fg.quantize_int8(model, apply=lambda model, x: jax.vmap(model)(x), inputs=X)
    assert len(made.params["int8"]) == 2
    exact = jax.vmap(model)(X)
    assert np.abs(made.apply(made.params, X) - exact).max() < 0.05 * np.abs(exact).max()


def test_convolutions_of_this_package_are_layers_too():
    """They are a primitive of its own, of the same name."""
    made = fg.quantize_int8(
        arrays(k=(3, 3, 2, 4)),
        apply=lambda p, x: models.convolution.conv_general_dilated(
            x, p["k"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        inputs=image(),
    )
    plain = conv(image(), arrays(k=(3, 3, 2, 4))["k"])
    assert np.abs(made.apply(made.params, image()) - plain).max() < 0.03 * np.abs(plain).max()
