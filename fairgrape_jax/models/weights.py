"""Read weights from a safetensors file, and find a network's keys among those that are there."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import DTypeLike
from safetensors import SafetensorError, deserialize

from fairgrape_jax.errors import UsageError

DTYPES: dict[str, DTypeLike] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "F8_E4M3": jnp.float8_e4m3fn,
    "F8_E5M2": jnp.float8_e5m2,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
# What wraps a state dict: an entry of a checkpoint, and what DataParallel, torch.compile, Lightning
# and their like put before each key.
ENTRIES = ("state_dict", "model_state_dict", "model", "module", "net", "network")
PREFIX = re.compile(r"((module|_orig_mod|model|state_dict|model_state_dict|net|network)\.)+")
SHOWN = 3  # keys that a message shows
CONVERT = (
    "name a .safetensors file; pickles (.pt, .pth) are never loaded here: where you trust one, "
    "convert it by safetensors.torch.save_file(torch.load(FILE, weights_only=True), "
    "'x.safetensors')"
)
MAKE = (
    "torchvision's weights are written by `python -c \"import torchvision as t, safetensors.torch "
    "as s; s.save_file(t.models.MODEL(weights='DEFAULT').state_dict(), 'MODEL.safetensors')\"`, "
    "MODEL being mobilenet_v2, resnet34, ...; an empty name starts from scratch"
)


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file.

    Args:
        path: The file.

    Returns:
        An array for each key, of the type that it has there; bfloat16 and float8 too.

    Raises:
        UsageError: There is no such file, it is none, or it holds a type that is no number's.
    """
    if not path.exists():
        raise UsageError(f"no pretrained weights in {path} (no such file): {MAKE}")
    try:
        if not path.is_file():
            raise OSError("not a file")  # a pipe would never end
        entries = deserialize(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise UsageError(
            f"cannot read pretrained weights from {path} ({error}): {CONVERT}"
        ) from error
    arrays = {}
    for key, entry in entries:
        if entry["dtype"] not in DTYPES:
            raise UsageError(
                f"{path}: {key!r} is of type {entry['dtype']}, which is not read: give weights of "
                f"{', '.join(DTYPES)}"
            )
        array = np.frombuffer(entry["data"], np.dtype(DTYPES[entry["dtype"]]))
        arrays[key] = array.reshape(entry["shape"])
    return arrays


def unwrap(state_dict: Mapping[str, Any], anchor: str) -> dict[str, Any]:
    """A state dict without what wraps it: an entry of a checkpoint, prefixes of its keys.

    Args:
        state_dict: Weights by key, or a checkpoint with such an entry.
        anchor: A key that the network has; where it is there as it is, nothing is wrapped.

    Returns:
        The weights; keys without the prefix stay as they are.

    Example:
        >>> checkpoint = {"state_dict": {"module.conv1.weight": 1, "other": 2}}
        >>> sorted(unwrap(checkpoint, "conv1.weight"))
        ['conv1.weight', 'other']
    """
    held = state_dict
    while inner := next((held[e] for e in ENTRIES if isinstance(held.get(e), Mapping)), None):
        held = inner
    prefixes = {k.removesuffix(anchor) for k in held if k.endswith(anchor)}
    if anchor in held or len(wrapping := [p for p in prefixes if PREFIX.fullmatch(p)]) != 1:
        return dict(held)
    return {key.removeprefix(wrapping[0]): value for key, value in held.items()}


def check_keys(name: str, expected: Collection[str], actual: Collection[str]) -> None:
    """Refuse weights whose keys are not those of a network.

    Args:
        name: The network.
        expected: Its keys.
        actual: Those of the weights.

    Raises:
        UsageError: Some are missing, or too many; it shows what is wanted beside what is there.
    """
    missing, extra = sorted(set(expected) - set(actual)), sorted(set(actual) - set(expected))
    if missing:
        near = difflib.get_close_matches(missing[0], extra, SHOWN, 0.0) or sorted(actual)
        keys = _quote_keys(near, len(extra or actual))
        there = f"; there are {keys}" if near else "; there is no key"
        raise UsageError(
            f"the weights for {name} lack {_quote_keys(missing, len(missing))}{there}: give a full "
            "state dict of that network"
        )
    if extra:
        raise UsageError(
            f"{name} has no {_quote_keys(extra, len(extra))}: give a state dict of that network"
        )


def _quote_keys(keys: Collection[str], count: int) -> str:
    """The first few keys, and how many there are.

    >>> _quote_keys(["a", "b"], 9)
    "'a', 'b', ... (9 in all)"
    """
    first = list(keys)[:SHOWN]
    more = f", ... ({count} in all)" if count > len(first) else ""
    return ", ".join(map(repr, first)) + more
