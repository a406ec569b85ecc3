"""Convert weights under torchvision's or timm's names to flax variables, and back."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from numpy.typing import ArrayLike

from fairgrape_jax.errors import UsageError
from fairgrape_jax.models.convnext import convnext_tiny
from fairgrape_jax.models.key_names import split_masks, torchvision_keys
from fairgrape_jax.models.mobilenet import MobileNetV2
from fairgrape_jax.models.resnet import resnet18, resnet34, resnet50
from fairgrape_jax.models.vit import resize_positions, vit_s_16
from fairgrape_jax.models.weights import check_keys, read, remove_prefix, unwrap

Constructor = Callable[..., nn.Module]
Variables = dict[str, Any]
_Path = tuple[str, ...]


class Network(NamedTuple):
    """A network that other libraries have too.

    Attributes:
        make: (num_classes=, axis_name=, dtype=) to its module.
        stem: torch's name of the layer that reads the images.
        head: torch's name of the layer that gives the logits.
        torchvision: Whether torchvision has it under the keys of `to_torchvision`.
        timm: What timm calls it, where it has it under these keys.
        sizes: timm's options by which it takes images of any size.
    """

    make: Constructor
    stem: str
    head: str
    torchvision: bool
    timm: str
    sizes: tuple[str, ...] = ()


_ANY_SIZE = ("dynamic_img_size", "dynamic_img_pad")
NETWORKS = {
    "resnet18": Network(resnet18, "conv1", "fc", True, "resnet18"),
    "resnet34": Network(resnet34, "conv1", "fc", True, "resnet34"),
    "resnet50": Network(resnet50, "conv1", "fc", True, "resnet50"),
    "mobilenet_v2": Network(MobileNetV2, "features.0.0", "classifier.1", True, ""),
    "vit_s_16": Network(
        vit_s_16, "patch_embed.proj", "head", False, "vit_small_patch16_224", _ANY_SIZE
    ),
    "convnext_tiny": Network(convnext_tiny, "stem.0", "head.fc", False, "convnext_tiny"),
}
POSITIONS = "pos_embed"
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
# The order of the axes in torch of a kernel of that many dimensions, and the way back.
_TO_TORCH = {1: (0,), 2: (1, 0), 3: (0, 1, 2), 4: (3, 2, 0, 1)}
_TO_FLAX = {ndim: tuple(np.argsort(order)) for ndim, order in _TO_TORCH.items()}


def from_torchvision(name: str, state_dict: Mapping[str, ArrayLike]) -> Variables:
    """Flax variables of a network of torchvision's or timm's from its state dict.

    Prefixes of all keys (`module.`, `_orig_mod.`, `model.`) and an entry of a checkpoint that holds
    the weights (`state_dict`, `model`) are recognised, and the keys of torchvision, timm and
    Hugging Face; `num_batches_tracked` is ignored. The masks of an official FairGRAPE checkpoint
    are applied. The positions of a transformer for pictures of another size are interpolated.

    Args:
        name: The network, for images of 3 channels.
        state_dict: Weights in torch's shapes, convolutions (out, in, h, w), dense (out, in); the
            head's gives the number of classes.

    Returns:
        NumPy float32 arrays in flax's shapes, (h, w, in, out) and (in, out).

    Raises:
        UsageError: It is no network of `NETWORKS`, or a key is missing, extra or of another
            shape; it names them.
    """
    keys = [_torch_key(path) for path in _template(name, 1)]
    weights, _ = _weights_and_masks(name, state_dict)
    check_keys(name, keys, weights)
    head = weights[f"{NETWORKS[name].head}.weight"]
    template = _template(name, max((1, *np.shape(head)[:1])))
    return unflatten_dict(
        {
            path: _to_flax(_torch_key(path), weights[_torch_key(path)], leaf.shape)
            for path, leaf in template.items()
        }
    )


def masks_from_torchvision(name: str, state_dict: Mapping[str, Any]) -> Variables:
    """The masks in a checkpoint of the official FairGRAPE, which lie beside its weights.

    Args:
        name: The network.
        state_dict: As for `from_torchvision`.

    Returns:
        Bool arrays in flax's shapes, in the structure of the parameters; None where there is none.

    Raises:
        UsageError: It holds no mask, or one that is none.
    """
    _, masks = _weights_and_masks(name, state_dict)
    if not masks:
        raise UsageError(f"the weights for {name} hold no mask (NAME.mask beside NAME.weight)")
    template = {path: leaf for path, leaf in _template(name, 1).items() if path[0] == "params"}
    return unflatten_dict(
        {
            path[1:]: np.ascontiguousarray(mask.transpose(_TO_FLAX[mask.ndim]))
            if (mask := masks.get(_torch_key(path) if path[-1] == "kernel" else "")) is not None
            else None
            for path in template
        }
    )


def _weights_and_masks(
    name: str, state_dict: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    anchor = _torch_key(next(iter(_template(name, 1))))
    renamed = torchvision_keys(name, remove_prefix(state_dict))
    weights, masks = split_masks(unwrap(renamed, anchor))
    return {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}, masks


def to_torchvision(name: str, variables: Variables) -> dict[str, np.ndarray]:
    """The inverse of `from_torchvision`: a state dict, without `num_batches_tracked`.

    Its keys are torchvision's, or timm's where torchvision has not the network.

    Args:
        name: The network.
        variables: Flax variables of it.

    Returns:
        float32 arrays in torch's shapes; torch's `load_state_dict` accepts them as they are.

    Raises:
        UsageError: It is no network of `NETWORKS`, or the variables are not those of `name`.
    """
    leaves = {_torch_key(path): leaf for path, leaf in flatten_dict(variables).items()}
    check_keys(name, [_torch_key(path) for path in _template(name, 1)], leaves)
    return {
        key: np.ascontiguousarray(np.asarray(leaf, np.float32).transpose(_TO_TORCH[leaf.ndim]))
        for key, leaf in leaves.items()
    }


def load_pretrained(name: str, path: str | Path, variables: Variables) -> Variables:
    """A fresh network with the weights of a file.

    Args:
        name: The network.
        path: The file, as `weights.read` takes it; its weights as `fit_pretrained` does.
        variables: Those of the fresh network.

    Returns:
        A tree of the structure and the shapes of `variables`.

    Raises:
        UsageError: The file is missing or none of weights, or these do not fit the network.
    """
    return fit_pretrained(name, read(Path(path)), variables, path)


def fit_pretrained(
    name: str, weights: Mapping[str, Any], variables: Variables, path: str | Path
) -> Variables:
    """A fresh network with the weights of a checkpoint.

    Args:
        name: The network.
        weights: A state dict as `from_torchvision` takes it; or the nested dicts of flax, with
            `params` and `batch_stats`, or with an entry that holds these (`state`, `model`).
        variables: Those of the fresh network. Where the checkpoint's head has another number of
            classes, that of `variables` stays.
        path: Where the weights are from, for messages.

    Returns:
        A tree of the structure and the shapes of `variables`.

    Raises:
        UsageError: The weights do not fit the network.
    """
    fresh = flatten_dict(variables)
    tree = flax_variables(weights)
    if tree is not None and name not in NETWORKS:
        return _fit_leaves(name, flatten_dict(tree), fresh, path)
    state = weights if tree is None else to_torchvision(name, tree)
    pretrained = flatten_dict(from_torchvision(name, state))
    check_keys(name, [_torch_key(key) for key in pretrained], [_torch_key(key) for key in fresh])
    head = f"{NETWORKS[name].head}."
    if any(
        _torch_key(key).startswith(head) and pretrained[key].shape != leaf.shape
        for key, leaf in fresh.items()
    ):
        pretrained |= {k: leaf for k, leaf in fresh.items() if _torch_key(k).startswith(head)}
    for key, leaf in fresh.items():
        if leaf.shape != pretrained[key].shape:
            raise UsageError(
                f"{_torch_key(key)!r} of {name} has {leaf.shape[-2]} input channels, but "
                f"{pretrained[key].shape[-2]} in {path}: repeat the images' channel 3 times or "
                "start without pretrained weights"
            )
    return unflatten_dict(pretrained)


def flax_variables(weights: Mapping[str, Any]) -> Variables | None:
    """The variables in a checkpoint of flax's nested dicts.

    Args:
        weights: The checkpoint.

    Returns:
        `params`, and `batch_stats` where there are any; None where it is no such checkpoint.

    Example:
        >>> flax_variables({"state": {"params": {"fc": {"bias": 1}}, "step": 3}})
        {'params': {'fc': {'bias': 1}}}
        >>> flax_variables({"fc.bias": 1}) is None
        True
    """
    for held in (weights, *(weights.get(entry) for entry in ("state", "model", "train_state"))):
        if isinstance(held, Mapping) and isinstance(held.get("params"), Mapping):
            params = held["params"]
            inner = params.get("params")  # a whole dict of variables kept as parameters
            held = params if isinstance(inner, Mapping) else held
            known = ("params", "batch_stats")
            return {name: dict(held[name]) for name in known if held.get(name)}
    return None


def _fit_leaves(
    name: str, stored: Mapping[_Path, Any], fresh: Mapping[_Path, Any], path: str | Path
) -> Variables:
    check_keys(name, *(["/".join(key) for key in tree] for tree in (fresh, stored)))
    for key, leaf in fresh.items():
        if np.shape(stored[key]) != leaf.shape:
            raise UsageError(
                f"{path}: {'/'.join(key)!r} has the shape {np.shape(stored[key])}: "
                f"{name} has {leaf.shape}"
            )
    return unflatten_dict({key: np.asarray(stored[key], leaf.dtype) for key, leaf in fresh.items()})


@cache
def _template(name: str, num_classes: int) -> dict[_Path, jax.ShapeDtypeStruct]:
    if name not in NETWORKS:
        raise UsageError(
            f"{name!r} is not a network of torchvision's or timm's: choose one of "
            f"{', '.join(NETWORKS)}"
        )
    module = NETWORKS[name].make(num_classes=num_classes)
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    return flatten_dict(jax.eval_shape(module.init, jax.random.key(0), image))


def _torch_key(path: _Path) -> str:
    """torch's key of a flax leaf.

    >>> _torch_key(("params", "layer1_0", "conv1", "kernel"))
    'layer1.0.conv1.weight'
    >>> _torch_key(("params", "stages_0", "blocks_2", "conv_dw", "bias"))
    'stages.0.blocks.2.conv_dw.bias'
    """
    modules = [re.sub(r"_(?=\d)", ".", module) for module in path[1:-1]]
    return ".".join([*modules, _LEAVES.get(path[-1], path[-1])])


def _to_flax(key: str, value: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    if key == POSITIONS:
        value = _fit_positions(value, shape)
    expected = tuple(shape[axis] for axis in _TO_TORCH[len(shape)])
    if np.shape(value) != expected:
        raise UsageError(f"{key!r} has the shape {np.shape(value)}: it must be {expected}")
    array = np.asarray(value)
    if not any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer)):
        raise UsageError(f"{key!r} is of type {array.dtype}: it must be numbers")
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise UsageError(f"{key!r} holds NaN or infinity: give weights that are all finite")
    return np.ascontiguousarray(array.transpose(_TO_FLAX[len(shape)]))


def _fit_positions(value: ArrayLike, shape: tuple[int, ...]) -> ArrayLike:
    """The positions of a transformer for pictures of another size, interpolated as timm does it."""
    array = np.asarray(value)
    if array.ndim != 3 or array.shape[::2] != shape[::2] or array.shape[1] < 2:
        return value
    side, grid = math.isqrt(array.shape[1] - 1), math.isqrt(shape[1] - 1)
    if array.shape == shape or side**2 != array.shape[1] - 1:
        return value
    return np.asarray(resize_positions(jnp.asarray(array, jnp.float32), (grid, grid)))
