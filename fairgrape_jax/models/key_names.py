"""Other names for the networks: timm's, Hugging Face's, the official FairGRAPE's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fairgrape_jax.errors import UsageError
from fairgrape_jax.models.timm_keys import convnext_keys, vit_keys

MASK = ".mask"  # of the official FairGRAPE: beside the weight of every layer that it prunes
# Blocks of each stage of MobileNet-V2: timm numbers them within stages.
STAGES = (1, 2, 3, 4, 3, 3, 1)
HF_EPSILON, EPSILON = 1e-3, 1e-5  # of batch norm in Hugging Face's MobileNet-V2, in torchvision's
_INVERTED = {
    "conv_pw": "0.0",
    "bn1": "0.1",
    "conv_dw": "1.0",
    "bn2": "1.1",
    "conv_pwl": "2",
    "bn3": "3",
}
_SEPARABLE = {"conv_dw": "0.0", "bn1": "0.1", "conv_pw": "1", "bn2": "2"}
_TIMM = {
    "conv_stem": "features.0.0",
    "bn1": "features.0.1",
    "conv_head": "features.18.0",
    "bn2": "features.18.1",
    "classifier": "classifier.1",
}
_TIMM_NETWORKS = {"vit_s_16": vit_keys, "convnext_tiny": convnext_keys}
_HF_STEM = {"first_conv": "features.0", "conv_3x3": "features.1.conv.0"}


def torchvision_keys(name: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict under the keys of `models.to_torchvision`, whoever named them.

    Args:
        name: The network, as `models.MODELS` calls it.
        state: Its weights under torchvision's, timm's or Hugging Face's keys.

    Returns:
        The same arrays; of Hugging Face's MobileNet-V2 the running variances are made larger by
        the difference of its epsilon (0.001) from torchvision's, which gives the same outputs.

    Example:
        >>> list(torchvision_keys("resnet18", {"resnet.embedder.embedder.convolution.weight": 0}))
        ['conv1.weight']
    """
    if name in _TIMM_NETWORKS:
        return _TIMM_NETWORKS[name](state)
    rename = _renamer(name, state)
    if rename is None:
        return dict(state)
    renamed = {}
    for key, value in state.items():
        module, _, leaf = key.rpartition(".")
        renamed[f"{rename(module)}.{leaf}"] = value
    if name == "mobilenet_v2" and rename is _hf_mobilenet:
        for key, value in renamed.items():
            if key.endswith("running_var"):
                renamed[key] = np.asarray(value, np.float64) + (HF_EPSILON - EPSILON)
    return renamed


def split_masks(state: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The weights of an official FairGRAPE checkpoint, zero where pruned, and its masks.

    Args:
        state: Of any network; where it has no masks, it comes back as it is.

    Returns:
        The weights, and bool masks by the key of their weight.

    Raises:
        UsageError: A mask has no weight, is of another shape, or holds anything but 0 and 1.
    """
    weights = {key: value for key, value in state.items() if not key.endswith(MASK)}
    masks = {}
    for key, value in state.items():
        if not key.endswith(MASK):
            continue
        of = key.removesuffix(MASK) + ".weight"
        mask = np.asarray(value)
        if of not in weights or mask.shape != np.shape(weights[of]):
            raise UsageError(f"{key!r} is no mask of {of!r}: give a state dict with both")
        if not np.isin(mask, (0, 1)).all():
            raise UsageError(f"{key!r} holds numbers other than 0 and 1: it is no mask")
        masks[of] = mask.astype(bool)
        weights[of] = np.where(masks[of], weights[of], np.zeros((), np.asarray(weights[of]).dtype))
    return weights, masks


def _renamer(name: str, state: Mapping[str, Any]) -> Callable[[str], str] | None:
    """What turns the name of a module into torchvision's; None where they are torchvision's."""
    if name == "mobilenet_v2":
        if any(key.startswith("conv_stem.") for key in state) and "bn1.weight" in state:
            return _timm_mobilenet
        hf = any(".first_conv." in key for key in state)
        return _hf_mobilenet if hf else None
    return _hf_resnet if any("embedder.embedder." in key for key in state) else None


def _timm_mobilenet(module: str) -> str:
    if match := re.fullmatch(r"blocks\.([0-6])\.(\d)\.(\w+)", module):
        stage, block, layer = int(match[1]), int(match[2]), match[3]
        names = _INVERTED if stage else _SEPARABLE
        if block < STAGES[stage] and layer in names:
            return f"features.{1 + sum(STAGES[:stage]) + block}.conv.{names[layer]}"
    return _TIMM.get(module, module)


def _hf_resnet(module: str) -> str:
    module = module.removeprefix("resnet.")
    if match := re.fullmatch(r"(?:encoder\.stages\.)(\d)\.layers\.(\d+)\.(.+)", module):
        block, inner = f"layer{int(match[1]) + 1}.{match[2]}", match[3]
        if layer := re.fullmatch(r"layer\.(\d)\.(convolution|normalization)", inner):
            kind = "conv" if layer[2] == "convolution" else "bn"
            return f"{block}.{kind}{int(layer[1]) + 1}"
        places = {"shortcut.convolution": "0", "shortcut.normalization": "1"}
        return f"{block}.downsample.{places[inner]}" if inner in places else module
    return {
        "embedder.embedder.convolution": "conv1",
        "embedder.embedder.normalization": "bn1",
        "classifier.1": "fc",
    }.get(module, module)


def _hf_mobilenet(module: str) -> str:
    module = module.removeprefix("mobilenet_v2.")
    path, _, kind = module.rpartition(".")
    second = {"convolution": 0, "normalization": 1}.get(kind)
    if second is None:
        return "classifier.1" if module == "classifier" else module
    if path == "conv_1x1":
        return f"features.18.{second}"
    if match := re.fullmatch(r"conv_stem\.(\w+)", path):
        if match[1] == "reduce_1x1":
            return f"features.1.conv.{1 + second}"
        return f"{_HF_STEM[match[1]]}.{second}" if match[1] in _HF_STEM else module
    if match := re.fullmatch(r"layer\.(\d+)\.(\w+)", path):
        block = f"features.{int(match[1]) + 2}.conv"
        places = {
            "expand_1x1": f"0.{second}",
            "conv_3x3": f"1.{second}",
            "reduce_1x1": f"{2 + second}",
        }
        return f"{block}.{places[match[2]]}" if match[2] in places else module
    return module
