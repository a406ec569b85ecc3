"""A network is initialised without compiling a generator for each shape, to the same bits."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.linen import initializers

from fairgrape_jax import models
from fairgrape_jax.training import OPTIMIZERS, initialise
from fairgrape_jax.training.initialise import LARGEST, SMALLEST, quick_initializer

KEY = jax.random.key(7)
SHAPE = (3, 3, 5, 29)


def of_network(name):
    """The initialisation of a network of the table."""
    side = 28 if name in ("cnn", "mlp") else 64
    module = models.create(name, 10)
    return lambda key: module.init(key, jnp.zeros((1, side, side, 3)), train=False)


def of_layers(initializer, shape=SHAPE, dtype=jnp.float32):
    """An initialisation of two parameters by one initialiser, a constant and statistics."""

    def init(key):
        first, second = jax.random.split(key)
        return {
            "kernel": initializer(first, shape, dtype),
            "head": {"kernel": initializer(second, shape[-2:], dtype), "bias": jnp.zeros(3)},
            "count": jnp.arange(4),
        }

    return init


def draws_of(init, key=KEY):
    """The leaves that are drawn without compiling them."""
    return initialise.write_recipe(jax.jit(init).trace(key).jaxpr).draws


def assert_same_bits(init, key=KEY):
    """The tree is that of the compiled initialisation: structure, types and bits."""
    expected, result = jax.jit(init)(key), quick_initializer(init)(key)
    assert jax.tree.structure(result) == jax.tree.structure(expected)
    for a, b in zip(*map(jax.tree.leaves, (result, expected)), strict=True):
        assert (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type)
        assert (a.devices(), a.committed) == (b.devices(), b.committed)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize(
    "name",
    [n if n in ("cnn", "mlp") else pytest.param(n, marks=pytest.mark.slow) for n in models.MODELS],
)
def test_every_network_has_the_bits_of_its_compiled_initialisation(name):
    for seed in (0, 2**31 + 5):
        assert_same_bits(of_network(name), jax.random.key(seed))


@pytest.mark.parametrize("name", models.MODELS)
def test_every_kernel_of_a_network_is_drawn_and_few_programs_are_compiled(name):
    init = of_network(name)
    draws = draws_of(init)
    shapes = jax.eval_shape(init, KEY)["params"]
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)]
    assert len(draws) >= sum("kernel" in path for path in paths)
    drawn = {
        (d.sampler, d.bounds, initialise.shared_size(np.prod(d.shape))) for d in draws.values()
    }
    assert len(drawn) <= 6
    # Nothing that is left for the compiler draws numbers.
    recipe = initialise.write_recipe(jax.jit(init).trace(KEY).jaxpr)
    assert "random" not in str(jax.make_jaxpr(recipe.rest)(KEY))


# Initialisers, and how many of the two kernels are drawn without compiling.
INITIALISERS = {
    "lecun_normal": (initializers.lecun_normal(), 2),
    "he_normal": (initializers.he_normal(), 2),
    "xavier_normal": (initializers.xavier_normal(), 2),
    "lecun_uniform": (initializers.lecun_uniform(), 2),
    "xavier_uniform": (initializers.xavier_uniform(), 2),
    "fan_out": (initializers.variance_scaling(2.0, "fan_out", "normal"), 2),
    "normal": (initializers.normal(0.02), 2),
    "normal of 1": (initializers.normal(1.0), 2),
    "truncated": (initializers.truncated_normal(0.02), 2),
    "truncated elsewhere": (initializers.truncated_normal(0.3, lower=-1.0, upper=2.5), 2),
    "uniform": (initializers.uniform(0.07), 2),
    "bare normal": (jax.random.normal, 2),
    "bare uniform": (jax.random.uniform, 2),
    "scale first": (lambda key, *type: np.float32(0.3) * jax.random.normal(key, *type), 2),
    "between": (lambda key, *type: jax.random.uniform(key, *type, -0.37, 0.61), 2),
    "zeros": (initializers.zeros, 0),
    "ones": (initializers.ones, 0),
    "orthogonal": (initializers.orthogonal(), 0),
    "moved": (lambda key, *type: 0.1 * jax.random.normal(key, *type) + 1.0, 0),
    "divided": (lambda key, *type: jax.random.normal(key, *type) / 3.0, 0),
    "scaled twice": (lambda key, *type: jax.random.normal(key, *type) * 0.3 * 0.7, 0),
    "a scale each": (lambda key, *type: jax.random.normal(key, *type) * jnp.arange(29.0), 0),
    "exponential": (jax.random.exponential, 0),
    "bernoulli": (lambda key, shape, _: jax.random.bernoulli(key, 0.5, shape), 0),
    "drawn bounds": (
        lambda key, *type: jax.random.uniform(key, *type, 0.0, jax.random.uniform(key)),
        0,
    ),
}


@pytest.mark.whole(but=8)
@pytest.mark.parametrize("name", INITIALISERS)
def test_every_initialiser_has_the_bits_of_its_compiled_form(name):
    initializer, drawn = INITIALISERS[name]
    assert len(draws_of(of_layers(initializer))) == drawn
    assert_same_bits(of_layers(initializer))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("lecun_normal", "bfloat16"), ("uniform", "float16"), ("normal", "complex64")],
)
def test_other_types_are_compiled(name, dtype):
    init = of_layers(INITIALISERS[name][0], dtype=dtype)
    assert not draws_of(init)
    assert_same_bits(init)


@pytest.mark.whole(but=3)
@pytest.mark.parametrize("count", [0, 1, SMALLEST, SMALLEST + 1, LARGEST, LARGEST + 1])
def test_sizes_around_those_that_are_shared(count):
    init = lambda key: {"table": 0.1 * jax.random.normal(key, (count, 1))}  # noqa: E731
    assert len(draws_of(init)) == 1
    assert_same_bits(init)


@pytest.mark.usefixtures("all_passes")
def test_a_scalar_and_a_key_for_two_leaves():
    def init(key):
        return {
            "temperature": jax.random.normal(key, ()),
            "one": 0.1 * jax.random.normal(key, SHAPE),
            "same key": 0.2 * jax.random.normal(key, SHAPE),
            "literal": 0.5,
        }

    assert len(draws_of(init)) == 3
    assert_same_bits(init)


@pytest.mark.usefixtures("all_passes")
def test_numbers_that_are_used_twice_are_compiled():
    def init(key):
        table = jax.random.normal(key, SHAPE)
        return {"one": table, "two": table * 0.3, "three": jax.random.normal(key, SHAPE)}

    draws = draws_of(init)
    assert list(draws) == [1]  # "three": keys are sorted
    assert_same_bits(init)

    def twice(key):
        table = 0.3 * jax.random.normal(key, SHAPE)
        return [table, table]

    assert not draws_of(twice)
    assert_same_bits(twice)


def test_a_function_of_the_name_of_a_sampler_is_not_taken_for_it():
    @jax.jit
    def _normal(key):
        return jax.random.normal(key, SHAPE) + 1

    @jax.jit
    def _uniform(key):
        return jax.random.uniform(key, SHAPE)

    for sampler in (_normal, _uniform):
        assert not draws_of(sampler)
        assert_same_bits(sampler)


@pytest.mark.whole(but=4)
@pytest.mark.parametrize(
    ("setting", "drawn"),
    [
        (lambda: jax.enable_x64(True), 2),
        (lambda: jax.threefry_partitionable(False), 2),
        (lambda: jax.default_prng_impl("rbg"), 0),
        (lambda: jax.numpy_rank_promotion("raise"), 2),
        (lambda: jax.numpy_dtype_promotion("strict"), 2),
        (lambda: jax.debug_nans(True), 2),
        (contextlib.nullcontext, 2),
    ],
)
@pytest.mark.parametrize("name", ["he_normal", "uniform"])
def test_under_settings(setting, drawn, name):
    with setting():
        init = of_layers(INITIALISERS[name][0])
        key = jax.random.key(7)
        assert len(draws_of(init, key)) == drawn
        assert_same_bits(init, key)
        assert_same_bits(init, jax.random.PRNGKey(7))  # a key as plain numbers


def test_a_change_of_settings_between_two_calls():
    make = quick_initializer(of_layers(initializers.he_normal()))
    new = make(KEY)["kernel"]
    with jax.threefry_partitionable(False):
        old = make(KEY)["kernel"]
    assert not (new == old).all()
    np.testing.assert_array_equal(make(KEY)["kernel"], new)


def test_under_transformations_and_on_other_devices():
    init = of_layers(initializers.he_normal())
    make, keys = quick_initializer(init), jax.random.split(KEY, 2)
    for a, b in zip(
        *map(jax.tree.leaves, (jax.vmap(make)(keys), jax.vmap(jax.jit(init))(keys))), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    shapes = jax.eval_shape(make, KEY)
    assert shapes["kernel"].shape == SHAPE
    with jax.disable_jit():
        np.testing.assert_array_equal(make(KEY)["kernel"], init(KEY)["kernel"])
    device = jax.devices()[-1]
    assert_same_bits(init, jax.device_put(KEY, device))
    with jax.default_device(device):
        assert_same_bits(init, jax.random.key(7))


def filled(key, params):
    """Leaves of one number, one of them given twice, and arguments."""
    zeros = jnp.zeros((3, 4))
    return {
        "zeros": [zeros, zeros],
        "types": [
            jnp.full((2, 5), 3, dtype) for dtype in ("bfloat16", "int8", "uint32", "complex64")
        ],
        "truth": jnp.ones(7, bool),
        "weak": jax.lax.full((3,), 1.5),
        "special": [jnp.full(3, value, jnp.float32) for value in (jnp.nan, -jnp.inf, -0.0, 1e-42)],
        "count": jnp.zeros((), jnp.int32),
        "none": jnp.zeros((0, 3)),
        "like": jax.tree.map(jnp.zeros_like, params),
        "params": params,
        "scaled": 0.1 * jax.random.normal(key, SHAPE),
    }


def test_numbers_everywhere_are_arrays_of_their_own():
    params = {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(4, jnp.bfloat16)}
    make, expected = quick_initializer(filled), jax.jit(filled)(KEY, params)
    result = make(KEY, params)
    recipe = initialise.write_recipe(jax.jit(filled).trace(KEY, params).jaxpr)
    assert len(recipe.fills) == 14
    for a, b in zip(*map(jax.tree.leaves, (result, expected)), strict=True):
        assert (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    # A step takes over the memory of every leaf, so no two may share it.
    jax.jit(
        lambda tree: jax.tree.map(lambda x: ~x if x.dtype == bool else x + x, tree),
        donate_argnums=0,
    )(result)
    assert params["kernel"].sum() == 15


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_state_of_an_optimizer_is_that_without_any_compiling(optimizer):
    rule = OPTIMIZERS[optimizer](0.9, 1e-4)
    params = {"kernel": jnp.ones((3, 4)), "half": jnp.ones(5, jnp.bfloat16)}
    result, expected = quick_initializer(rule.init)(params), rule.init(params)
    assert jax.tree.structure(result) == jax.tree.structure(expected)
    for a, b in zip(*map(jax.tree.leaves, (result, expected)), strict=True):
        assert (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type)
        np.testing.assert_array_equal(a, b)


def test_an_effect_of_an_initialiser_is_kept():
    seen = []

    def init(key):
        jax.debug.callback(lambda: seen.append(1))
        return 0.1 * jax.random.normal(key, SHAPE)

    quick_initializer(init)(KEY)
    jax.effects_barrier()
    assert seen == [1]


def test_a_second_seed_compiles_and_traces_nothing():
    calls = []

    def init(key):
        calls.append(key)
        return of_layers(initializers.he_normal())(key)

    make = quick_initializer(init)
    first = make(jax.random.key(0))
    recipes = initialise.write_recipe.cache_info().misses
    second = make(jax.random.key(1))
    assert len(calls) == 1
    assert initialise.write_recipe.cache_info().misses == recipes
    assert not (first["kernel"] == second["kernel"]).any()


def test_a_network_of_layers():
    module = nn.Sequential([nn.Conv(6, (3, 3)), nn.BatchNorm(False), nn.Dense(4)])
    init = lambda key: module.init(key, jnp.zeros((1, 8, 8, 3)))  # noqa: E731
    assert len(draws_of(init)) == 2
    assert_same_bits(init)
