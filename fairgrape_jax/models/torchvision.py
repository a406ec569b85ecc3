"""Weights under torchvision's names, to and from flax variables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError
from safetensors.numpy import load_file

from fairgrape_jax.errors import UsageError
from fairgrape_jax.models.mobilenet import MobileNetV2
from fairgrape_jax.models.resnet import resnet18, resnet34, resnet50

Constructor = Callable[..., nn.Module]
Variables = dict[str, Any]
_Path = tuple[str, ...]

NETWORKS: dict[str, Constructor] = {
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "mobilenet_v2": MobileNetV2,
}
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
# The order of the axes in torch of a kernel of that many dimensions, and the way back.
_TO_TORCH = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
_TO_FLAX = {ndim: tuple(np.argsort(order)) for ndim, order in _TO_TORCH.items()}


def from_torchvision(name: str, state_dict: Mapping[str, Any]) -> Variables:
    """Flax variables, NumPy float32, of the torchvision network `name` from its state dict.

    Shapes: torch's (convolutions (out, in, h, w), dense (out, in)) to flax's ((h, w, in, out),
    (in, out)), for images of 3 channels. The number of classes is that of the head's weight;
    `num_batches_tracked` is ignored.

    Raises `UsageError` for a network that is not torchvision's and for a key that is missing,
    extra or of another shape; the message names it.
    """
    given = {k: v for k, v in state_dict.items() if not k.endswith("num_batches_tracked")}
    narrowest = _template(name, 1)
    _check_keys(name, map(_torch_key, narrowest), given)
    head = given[_torch_key(_head(narrowest))]
    template = _template(name, max((1, *np.shape(head)[:1])))
    return unflatten_dict(
        {
            path: _to_flax(_torch_key(path), given[_torch_key(path)], leaf.shape)
            for path, leaf in template.items()
        }
    )


def to_torchvision(name: str, variables: Variables) -> dict[str, np.ndarray]:
    """The inverse of `from_torchvision`: a state dict, without `num_batches_tracked`.

    torch's `load_state_dict` accepts it as it is. Raises `UsageError` for a network that is not
    torchvision's and where `variables` are not those of `name`; the message names a key.
    """
    leaves = {_torch_key(path): leaf for path, leaf in flatten_dict(variables).items()}
    _check_keys(name, map(_torch_key, _template(name, 1)), leaves)
    return {
        key: np.ascontiguousarray(np.asarray(leaf, np.float32).transpose(_TO_TORCH[leaf.ndim]))
        for key, leaf in leaves.items()
    }


def load_pretrained(name: str, path: str | Path, variables: Variables) -> Variables:
    """`variables` of a fresh network `name` with the weights of the safetensors file `path`.

    The file's keys are torchvision's, and so are its shapes (see `from_torchvision`). Where its
    head has another number of classes, that of `variables` stays. The tree has the structure and
    the shapes of `variables`.

    Raises `UsageError` for a network that is not torchvision's, a file that is missing or no
    safetensors file, and weights that do not fit the network.
    """
    pretrained = flatten_dict(from_torchvision(name, _read(Path(path))))
    fresh = flatten_dict(variables)
    _check_keys(name, map(_torch_key, pretrained), map(_torch_key, fresh))
    head = _head(pretrained)
    if pretrained[head].shape != fresh[head].shape:
        pretrained |= {key: leaf for key, leaf in fresh.items() if key[:-1] == head[:-1]}
    for key, leaf in fresh.items():
        if leaf.shape != pretrained[key].shape:
            raise UsageError(
                f"{_torch_key(key)!r} of {name} has {leaf.shape[-2]} input channels, but "
                f"{pretrained[key].shape[-2]} in {path}: repeat the images' channel 3 times or "
                "start without pretrained weights"
            )
    return unflatten_dict(pretrained)


@cache
def _template(name: str, num_classes: int) -> dict[_Path, jax.ShapeDtypeStruct]:
    if name not in NETWORKS:
        raise UsageError(
            f"{name!r} is not a network of torchvision's: choose one of {', '.join(NETWORKS)}"
        )
    module = NETWORKS[name](num_classes=num_classes)
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    return flatten_dict(jax.eval_shape(module.init, jax.random.key(0), image))


def _head(leaves: Mapping[_Path, Any]) -> _Path:
    """The path of the kernel of the only dense layer."""
    (head,) = (path for path, leaf in leaves.items() if leaf.ndim == 2)
    return head


def _torch_key(path: _Path) -> str:
    """torchvision's key of a flax leaf.

    >>> _torch_key(("params", "layer1_0", "conv1", "kernel"))
    'layer1.0.conv1.weight'
    """
    modules = [module.replace("_", ".") for module in path[1:-1]]
    return ".".join([*modules, _LEAVES.get(path[-1], path[-1])])


def _check_keys(name: str, expected: Iterable[str], given: Iterable[str]) -> None:
    expected, given = set(expected), set(given)
    if missing := sorted(expected - given):
        raise UsageError(
            f"the weights for {name} lack {missing[0]!r} ({len(missing)} in all): "
            "give a full state dict of that network"
        )
    if extra := sorted(given - expected):
        raise UsageError(
            f"{name} has no {extra[0]!r} ({len(extra)} such keys in all): "
            "give a state dict of that network"
        )


def _to_flax(key: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    wanted = tuple(shape[axis] for axis in _TO_TORCH[len(shape)])
    if np.shape(value) != wanted:
        raise UsageError(f"{key!r} has the shape {np.shape(value)}: it must be {wanted}")
    array = np.asarray(value)
    if not any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer)):
        raise UsageError(f"{key!r} is of type {array.dtype}: it must be numbers")
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise UsageError(f"{key!r} holds NaN or infinity: give weights that are all finite")
    return np.ascontiguousarray(array.transpose(_TO_FLAX[len(shape)]))


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        if path.exists() and not path.is_file():
            raise OSError("is not a file")  # a pipe would never end
        return load_file(path)
    except (OSError, SafetensorError, TypeError) as error:
        raise UsageError(
            f"cannot read pretrained weights from {path} ({error}): name a .safetensors file; "
            "pickles (.pt, .pth) are never loaded here: where you trust one, convert it by "
            "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'x.safetensors')"
        ) from error
