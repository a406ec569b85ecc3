"""Other names for timm's networks: Hugging Face's, and torchvision's of ConvNeXt."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fairgrape_jax.errors import UsageError

Pattern = tuple[str, str]  # of a whole name of a module or parameter, and what replaces it

# Hugging Face's, in files and (since its version 5) in memory.
_VIT: tuple[Pattern, ...] = (
    (r"embeddings\.cls_token", r"cls_token"),
    (r"embeddings\.position_embeddings", r"pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.(\w+)", r"patch_embed.proj.\1"),
    (r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.(\w+)", r"blocks.\1.\2.\3"),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(\w+)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layer\.(\d+)\.intermediate\.dense\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
    (r"encoder\.layer\.(\d+)\.output\.dense\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
    (r"layers\.(\d+)\.attention\.q_proj\.(\w+)", r"blocks.\1.query.\2"),
    (r"layers\.(\d+)\.attention\.k_proj\.(\w+)", r"blocks.\1.key.\2"),
    (r"layers\.(\d+)\.attention\.v_proj\.(\w+)", r"blocks.\1.value.\2"),
    (r"layers\.(\d+)\.attention\.o_proj\.(\w+)", r"blocks.\1.attn.proj.\2"),
    (r"layers\.(\d+)\.mlp\.(fc[12])\.(\w+)", r"blocks.\1.mlp.\2.\3"),
    (r"(?:encoder\.layer|layers)\.(\d+)\.layernorm_before\.(\w+)", r"blocks.\1.norm1.\2"),
    (r"(?:encoder\.layer|layers)\.(\d+)\.layernorm_after\.(\w+)", r"blocks.\1.norm2.\2"),
    (r"layernorm\.(\w+)", r"norm.\1"),
    (r"classifier\.(\w+)", r"head.\1"),
)
_PARTS = ("query", "key", "value")
_CONVNEXT: tuple[Pattern, ...] = (
    (r"embeddings\.patch_embeddings\.(\w+)", r"stem.0.\1"),
    (r"embeddings\.layernorm\.(\w+)", r"stem.1.\1"),
    (r"encoder\.stages\.(\d)\.downsampling_layer\.([01])\.(\w+)", r"stages.\1.downsample.\2.\3"),
    (r"encoder\.stages\.(\d)\.layers\.(\d)\.layer_scale_parameter", r"stages.\1.blocks.\2.gamma"),
    (r"encoder\.stages\.(\d)\.layers\.(\d)\.dwconv\.(\w+)", r"stages.\1.blocks.\2.conv_dw.\3"),
    (r"encoder\.stages\.(\d)\.layers\.(\d)\.layernorm\.(\w+)", r"stages.\1.blocks.\2.norm.\3"),
    (
        r"encoder\.stages\.(\d)\.layers\.(\d)\.pwconv([12])\.(\w+)",
        r"stages.\1.blocks.\2.mlp.fc\3.\4",
    ),
    (r"layernorm\.(\w+)", r"head.norm.\1"),
    (r"classifier\.(\w+)", r"head.fc.\1"),
)
_TORCHVISION_CONVNEXT: tuple[Pattern, ...] = (
    (r"features\.0\.([01])\.(\w+)", r"stem.\1.\2"),
    (r"features\.([1357])\.(\d)\.layer_scale", r"stages.\1.blocks.\2.gamma"),
    (r"features\.([1357])\.(\d)\.block\.0\.(\w+)", r"stages.\1.blocks.\2.conv_dw.\3"),
    (r"features\.([1357])\.(\d)\.block\.2\.(\w+)", r"stages.\1.blocks.\2.norm.\3"),
    (r"features\.([1357])\.(\d)\.block\.3\.(\w+)", r"stages.\1.blocks.\2.mlp.fc1.\3"),
    (r"features\.([1357])\.(\d)\.block\.5\.(\w+)", r"stages.\1.blocks.\2.mlp.fc2.\3"),
    (r"features\.([246])\.([01])\.(\w+)", r"stages.\1.downsample.\2.\3"),
    (r"classifier\.0\.(\w+)", r"head.norm.\1"),
    (r"classifier\.2\.(\w+)", r"head.fc.\1"),
)


def vit_keys(state: Mapping[str, Any]) -> dict[str, Any]:
    """A vision transformer's state dict under timm's keys.

    Args:
        state: Under timm's or Hugging Face's, whose queries, keys and values are joined.

    Returns:
        The same arrays.

    Raises:
        UsageError: A query, key or value of Hugging Face's has not the other two.
    """
    if not any(".patch_embeddings." in key for key in state):
        return dict(state)
    renamed = _renamed(state, _VIT, "vit.")
    joined = {}
    for key, value in renamed.items():
        if match := re.fullmatch(r"(blocks\.\d+)\.(query|key|value)\.(\w+)", key):
            names = [f"{match[1]}.{part}.{match[3]}" for part in _PARTS]
            if lacking := [name for name in names if name not in renamed]:
                raise UsageError(
                    f"the weights for vit_s_16 lack {lacking[0]!r}, beside {key!r}: give a full "
                    "state dict of that network"
                )
            parts = [np.asarray(renamed[name]) for name in names]
            if len({part.shape for part in parts}) > 1 or not parts[0].ndim:
                shapes = ", ".join(str(part.shape) for part in parts)
                raise UsageError(f"query, key and value of {match[1]!r} have the shapes {shapes}")
            joined[f"{match[1]}.attn.qkv.{match[3]}"] = np.concatenate(parts)
        else:
            joined[key] = value
    return joined


def convnext_keys(state: Mapping[str, Any]) -> dict[str, Any]:
    """A ConvNeXt's state dict under timm's keys.

    Args:
        state: Under timm's, torchvision's or Hugging Face's.

    Returns:
        The same arrays, torchvision's scales of (C, 1, 1) as (C,).

    Example:
        >>> list(convnext_keys({"features.3.0.block.5.bias": 0, "features.4.0.bias": 0}))
        ['stages.1.blocks.0.mlp.fc2.bias', 'stages.2.downsample.0.bias']
    """
    if any("embeddings." in key for key in state):
        return _renamed(state, _CONVNEXT, "convnext.")
    if not any(key.startswith("features.") for key in state):
        return dict(state)
    result = {}
    for key, value in _renamed(state, _TORCHVISION_CONVNEXT, "").items():
        # torchvision counts stages and what is between them in one.
        name = re.sub(r"^stages\.(\d)", lambda match: f"stages.{int(match[1]) // 2}", key)
        shape = np.shape(value)
        scales = name.endswith(".gamma") and shape[1:] == (1, 1)
        result[name] = np.reshape(value, shape[:1]) if scales else value
    return result


def _renamed(state: Mapping[str, Any], patterns: Sequence[Pattern], prefix: str) -> dict[str, Any]:
    """The same arrays by other names; a name that no pattern has stays."""

    def rename(key: str) -> str:
        inner = key.removeprefix(prefix)
        for pattern, name in patterns:
            if match := re.fullmatch(pattern, inner):
                return match.expand(name)
        return key

    return {rename(key): value for key, value in state.items()}
