"""Networks of every way in which channels are coupled, as plain functions of their parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

NHWC = ("NHWC", "HWIO", "NHWC")


class Network(NamedTuple):
    """A network and its groups: the members of each, and how many structures it has."""

    apply: Any
    params: Any
    x: Any
    groups: dict[tuple[str, ...], int]
    whole: dict[str, str] = {}  # noqa: RUF012
    reads_shapes: bool = True  # takes the small parameters as it is


def arrays(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {k: rng.normal(size=s).astype(np.float32) / 2 for k, s in shapes.items()}


def conv(x, kernel, groups=1, numbers=NHWC):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=numbers, feature_group_count=groups
    )


def image(channels=2, side=4):
    return arrays(x=(2, side, side, channels))["x"]


OUTPUT = "an output of the network"


def mlp():
    def apply(p, x):
        return jnp.tanh(jax.nn.relu(x @ p["a"] + p["a_bias"]) @ p["b"]) @ p["c"]

    params = arrays(a=(3, 6), a_bias=(6,), b=(6, 4), c=(4, 2))
    groups = {("a[1]", "a_bias[0]", "b[0]"): 6, ("b[1]", "c[0]"): 4}
    return Network(apply, params, arrays(x=(5, 3))["x"], groups, {"c": OUTPUT})


def torch_layout():
    """Channels first, kernels (out, in, h, w), dense layers (out, in)."""

    def apply(p, x):
        x = jax.nn.relu(
            conv(x, p["a"], numbers=("NCHW", "OIHW", "NCHW")) + p["bias"][:, None, None]
        )
        return x.reshape(len(x), -1) @ p["d"].T

    params = arrays(a=(5, 2, 3, 3), bias=(5,), d=(3, 5 * 16))
    x = image().transpose(0, 3, 1, 2)
    return Network(apply, params, x, {("a[0]", "bias[0]", "d[1]"): 5}, {"d": OUTPUT})


def residual():
    def apply(p, x):
        x = jax.nn.relu(conv(x, p["stem"]))
        for i in "12":
            x = x + conv(jax.nn.relu(conv(x, p["up" + i])), p["down" + i])
        return x.mean((1, 2)) @ p["head"]

    params = arrays(
        stem=(3, 3, 2, 4),
        up1=(1, 1, 4, 6),
        down1=(1, 1, 6, 4),
        up2=(3, 3, 4, 5),
        down2=(1, 1, 5, 4),
        head=(4, 3),
    )
    stage = ("down1[3]", "down2[3]", "head[0]", "stem[3]", "up1[2]", "up2[2]")
    groups = {stage: 4, ("down1[2]", "up1[3]"): 6, ("down2[2]", "up2[3]"): 5}
    return Network(apply, params, image(), groups, {"head": OUTPUT})


def depthwise():
    def apply(p, x):
        x = conv(x, p["up"])
        x = conv(jnp.clip(x, 0, 6), p["deep"], groups=x.shape[-1])
        return conv(x, p["down"]).sum((1, 2))

    params = arrays(up=(1, 1, 2, 6), deep=(3, 3, 1, 6), down=(1, 1, 6, 3))
    return Network(apply, params, image(), {("deep[3]", "down[2]", "up[3]"): 6}, {"down": OUTPUT})


def depthwise_twice():
    """Two kernels for each channel: what a channel gives is pruned with it, as a whole."""

    def apply(p, x):
        x = conv(x, p["up"])
        return conv(conv(x, p["deep"], groups=x.shape[-1]), p["down"]).sum((1, 2))

    params = arrays(up=(1, 1, 2, 4), deep=(3, 3, 1, 8), down=(1, 1, 8, 3))
    return Network(apply, params, image(), {("deep[3]", "down[2]", "up[3]"): 4}, {"down": OUTPUT})


def grouped():
    """A convolution in 3 groups of 2 channels: a group is a structure."""

    def apply(p, x):
        x = conv(x, p["up"])
        return conv(conv(x, p["wide"], groups=x.shape[-1] // 2), p["down"]).sum((1, 2))

    params = arrays(up=(1, 1, 2, 6), wide=(3, 3, 2, 9), down=(1, 1, 9, 3))
    return Network(apply, params, image(), {("down[2]", "up[3]", "wide[3]"): 3}, {"down": OUTPUT})


def concatenation():
    def apply(p, x):
        x = jnp.concatenate([jax.nn.relu(conv(x, p["a"])), conv(x, p["b"]), x], axis=-1)
        return conv(x, p["c"]).mean((1, 2)) @ p["d"]

    params = arrays(a=(1, 1, 2, 3), b=(3, 3, 2, 4), c=(1, 1, 9, 5), d=(5, 2))
    groups = {("a[3]", "c[2]"): 3, ("b[3]", "c[2]"): 4, ("c[3]", "d[0]"): 5}
    return Network(apply, params, image(), groups, {"d": OUTPUT})


def dense_blocks():
    """Every layer reads all before it."""

    def apply(p, x):
        for name in "abc":
            x = jnp.concatenate([x, jax.nn.relu(x @ p[name])], axis=-1)
        return x @ p["d"]

    params = arrays(a=(3, 4), b=(7, 4), c=(11, 4), d=(15, 2))
    groups = {("a[1]", "b[0]", "c[0]", "d[0]"): 4, ("b[1]", "c[0]", "d[0]"): 4, ("c[1]", "d[0]"): 4}
    return Network(apply, params, arrays(x=(5, 3))["x"], groups, {"d": OUTPUT})


def flattened():
    def apply(p, x):
        x = jax.nn.relu(conv(x, p["a"]) + p["bias"])
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return jax.nn.relu(x.reshape(x.shape[0], -1) @ p["b"]) @ p["c"]

    params = arrays(a=(3, 3, 2, 5), bias=(5,), b=(2 * 2 * 5, 6), c=(6, 2))
    groups = {("a[3]", "b[0]", "bias[0]"): 5, ("b[1]", "c[0]"): 6}
    return Network(apply, params, image(), groups, {"c": OUTPUT})


def gate():
    """Half of the outputs are gates of the other half."""

    def apply(p, x):
        value, by = jnp.split(x @ p["a"], 2, axis=-1)
        return (value * jax.nn.sigmoid(by)) @ p["b"]

    params = arrays(a=(3, 10), b=(5, 2))
    return Network(apply, params, arrays(x=(4, 3))["x"], {("a[1]", "b[0]"): 5}, {"b": OUTPUT})


def squeeze_and_excite():
    def apply(p, x):
        x = conv(x, p["a"])
        scale = jax.nn.sigmoid(jax.nn.relu(x.mean((1, 2)) @ p["down"]) @ p["up"])
        return (x * scale[:, None, None]).sum((1, 2)) @ p["d"]

    params = arrays(a=(3, 3, 2, 6), down=(6, 4), up=(4, 6), d=(6, 2))
    groups = {("a[3]", "d[0]", "down[0]", "up[1]"): 6, ("down[1]", "up[0]"): 4}
    return Network(apply, params, image(), groups, {"d": OUTPUT})


def padded_shortcut():
    """Zeros in place of the channels that a shortcut lacks."""

    def apply(p, x):
        y = jax.nn.relu(conv(x, p["a"]))
        more = jnp.pad(y, ((0, 0), (0, 0), (0, 0), (1, 2)))
        return (conv(y, p["b"]) + more).mean((1, 2)) @ p["d"]

    params = arrays(a=(3, 3, 2, 4), b=(1, 1, 4, 7), d=(7, 2))
    groups = {("a[3]", "b[2]", "b[3]", "d[0]"): 4, ("b[3]", "d[0]"): 3}
    return Network(apply, params, image(), groups, {"d": OUTPUT}, reads_shapes=False)


def attention():
    """Whole heads, and what lies between the dense layers; sums over all channels stay whole."""

    def apply(p, x):
        x = x @ p["embed"]
        mean = x.mean(-1, keepdims=True)
        x = (x - mean) * lax.rsqrt(((x - mean) ** 2).mean(-1, keepdims=True) + 1e-5) * p["scale"]
        q, k, v = ((x @ p[n]).reshape(*x.shape[:2], 3, 2) for n in "qkv")
        weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k))
        x = x + jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(*x.shape[:2], -1) @ p["o"]
        x = x + jax.nn.gelu(x @ p["up"]) @ p["down"]
        return x[:, 0] @ p["head"]

    params = arrays(
        embed=(3, 4),
        scale=(4,),
        q=(4, 6),
        k=(4, 6),
        v=(4, 6),
        o=(6, 4),
        up=(4, 8),
        down=(8, 4),
        head=(4, 2),
    )
    groups = {("k[1]", "o[0]", "q[1]", "v[1]"): 3, ("down[0]", "up[1]"): 8}
    sums = "reduce_sum over channels"
    whole = {"embed": sums, "o": sums, "down": sums, "head": OUTPUT}
    return Network(apply, params, arrays(x=(2, 5, 3))["x"], groups, whole, reads_shapes=False)


def group_norm():
    """The channels of a group of the norm are a structure."""

    def apply(p, x):
        x = conv(x, p["a"])
        y = x.reshape(*x.shape[:3], -1, 2)
        mean = y.mean((1, 2, 4), keepdims=True)
        y = (y - mean) * lax.rsqrt(y.var((1, 2, 4), keepdims=True) + 1e-5)
        return (y.reshape(x.shape) * p["scale"] + p["bias"]).mean((1, 2)) @ p["d"]

    params = arrays(a=(3, 3, 2, 8), scale=(8,), bias=(8,), d=(8, 2))
    groups = {("a[3]", "bias[0]", "d[0]", "scale[0]"): 4}
    return Network(apply, params, image(), groups, {"d": OUTPUT})


def tied():
    """One array used twice, the second time turned round."""

    def apply(p, x):
        return jnp.tanh(jnp.tanh(x @ p["a"]) @ p["b"]) @ p["b"].T @ p["a"].T

    params = arrays(a=(3, 5), b=(5, 4))
    return Network(apply, params, arrays(x=(4, 3))["x"], {("a[1]", "b[0]"): 5, ("b[1]",): 4}, {})


def square():
    """A residual layer whose inputs and outputs are the same channels."""

    def apply(p, x):
        x = x @ p["a"]
        return (x + jnp.tanh(x @ p["b"])) @ p["c"]

    params = arrays(a=(3, 5), b=(5, 5), c=(5, 2))
    groups = {("a[1]", "b[0]", "b[1]", "c[0]"): 5}
    return Network(apply, params, arrays(x=(4, 3))["x"], groups, {"c": OUTPUT})


def embedding():
    def apply(p, ids):
        x = p["table"][ids].mean(1)
        return jnp.tanh(x @ p["a"]) @ p["b"]

    params = arrays(table=(7, 4), a=(4, 5), b=(5, 2))
    groups = {("a[0]", "table[1]"): 4, ("a[1]", "b[0]"): 5}
    return Network(apply, params, np.array([[0, 6], [3, 3]]), groups, {"b": OUTPUT})


def inner_programs():
    """Calls of jit, remat, vmap, and of functions with derivatives of their own."""

    @jax.custom_vjp
    def double(x):
        return 2 * x

    double.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))

    def layer(x, w):
        return double(jax.nn.relu(x @ w))

    def apply(p, x):
        x = jax.jit(layer)(x, p["a"])
        x = jax.checkpoint(layer)(x, p["b"])
        return jax.vmap(lambda row: jax.nn.silu(row) @ p["c"])(x)

    params = arrays(a=(3, 6), b=(6, 4), c=(4, 2))
    groups = {("a[1]", "b[0]"): 6, ("b[1]", "c[0]"): 4}
    return Network(apply, params, arrays(x=(5, 3))["x"], groups, {"c": OUTPUT})


def cannot_be_followed():
    """The channels that a Fourier transform mixes stay whole; the others do not."""

    def apply(p, x):
        x = jax.nn.relu(x @ p["a"]) @ p["b"]
        return jnp.tanh(jnp.fft.fft(x).real @ p["c"]) @ p["d"]

    params = arrays(a=(3, 6), b=(6, 4), c=(4, 5), d=(5, 2))
    groups = {("a[1]", "b[0]"): 6, ("c[1]", "d[0]"): 5}
    whole = {"b": "fft, which cannot be followed", "d": OUTPUT}
    return Network(apply, params, arrays(x=(5, 3))["x"], groups, whole)


def control_flow():
    """What enters a scan of layers, a branch and a loop stays whole; what is around does not."""

    def apply(p, x):
        x = jax.nn.relu(x @ p["a"]) @ p["b"]
        x = lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, p["layers"])[0]
        x = jax.nn.relu(x @ p["c"]) @ p["d"]
        x = lax.cond(jnp.array(len(x) > 1), jnp.tanh, lambda x: 2 * x, x)
        x = jax.nn.relu(x @ p["e"]) @ p["f"]
        # No loop of an unknown number of steps has a gradient.
        x += lax.while_loop(lambda x: (x**2).sum() > 1, lambda x: x / 2, lax.stop_gradient(x))
        return jnp.tanh(x @ p["g"]) @ p["h"]

    shapes = {"a": (3, 6), "b": (6, 4), "layers": (3, 4, 4), "c": (4, 5), "d": (5, 4), "e": (4, 7)}
    params = arrays(**shapes, f=(7, 4), g=(4, 6), h=(6, 2))
    groups = {(f"{a}[1]", f"{b}[0]"): int(size) for a, b, size in ("ab6", "cd5", "ef7", "gh6")}
    whole = {
        "b": "scan, which cannot be followed",
        "layers": "scan, which cannot be followed",
        "d": "cond, which cannot be followed",
        "f": "while, which cannot be followed",
        "h": OUTPUT,
    }
    return Network(apply, params, arrays(x=(5, 3))["x"], groups, whole)


def over_channels():
    """What looks at all channels, or at their numbers, keeps them whole."""

    def apply(p, x):
        y = jnp.sort(x @ p["a"], axis=-1) @ p["b"]
        y = (y + jnp.arange(y.shape[-1])) @ p["c"]
        y = jnp.cumsum(y, axis=-1) @ p["d"]
        return jnp.tanh(y)[:, ::2] @ p["e"]

    params = arrays(a=(3, 4), b=(4, 5), c=(5, 4), d=(4, 6), e=(3, 2))
    reasons = ("sort over channels", "an index over channels", "cumsum over channels")
    whole = dict(zip("abc", reasons, strict=True)) | {"d": "a slice in steps", "e": OUTPUT}
    return Network(apply, params, arrays(x=(5, 3))["x"], {}, whole)


NETWORKS = {
    build.__name__: build
    for build in (
        mlp,
        torch_layout,
        residual,
        depthwise,
        depthwise_twice,
        grouped,
        concatenation,
        dense_blocks,
        flattened,
        gate,
        squeeze_and_excite,
        padded_shortcut,
        attention,
        group_norm,
        tied,
        square,
        embedding,
        inner_programs,
        cannot_be_followed,
        control_flow,
        over_channels,
    )
}
