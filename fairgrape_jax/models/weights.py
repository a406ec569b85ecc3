"""Read files of weights, and find a network's keys among those that are there."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.serialization import msgpack_restore
from numpy.typing import DTypeLike
from safetensors import SafetensorError, deserialize

from fairgrape_jax.errors import UsageError
from fairgrape_jax.models import torch_files

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
FORMS = (
    "give a .safetensors file, a state dict of PyTorch (.pth, .pt), or a flax checkpoint (.msgpack)"
)
MAKE = (
    "torchvision's weights are written by `python -c \"import torchvision as t, safetensors.torch "
    "as s; s.save_file(t.models.MODEL(weights='DEFAULT').state_dict(), 'MODEL.safetensors')\"`, "
    "MODEL being mobilenet_v2, resnet34, ...; an empty name starts from scratch"
)
# torchvision's files of ImageNet's weights; each name ends with the first digits of its SHA-256.
IMAGENET = {
    "resnet18": ("resnet18-f37072fd.pth",),
    "resnet34": ("resnet34-b627a593.pth",),
    "resnet50": ("resnet50-0676ba61.pth", "resnet50-11ad3fa6.pth"),
    "mobilenet_v2": ("mobilenet_v2-b0353104.pth", "mobilenet_v2-7ebf99e0.pth"),
    "convnext_tiny": ("convnext_tiny-983f1562.pth",),
}
HASH = re.compile(r"-(?=\d*[a-f])([0-9a-f]{8,64})\.\w+$")  # digits alone may be a date


def read(path: Path) -> dict[str, Any]:
    """What a file of weights holds; nothing in it is executed.

    Args:
        path: A safetensors file, a checkpoint of PyTorch or flax's msgpack, by its content. A hash
            in its name (`resnet18-f37072fd.pth`) must be that of its content.

    Returns:
        An array for each key, of the type that it has there; a checkpoint may nest them.

    Raises:
        UsageError: There is no such file, it is none, it is not what its name says, or it holds a
            type that is no number's.
    """
    if not path.exists():
        raise UsageError(f"no pretrained weights in {path} (no such file): {MAKE}")
    try:
        if not path.is_file():
            raise OSError("not a file")  # a pipe would never end
        check_hash(path)
        if torch_files.is_checkpoint(path):
            held = torch_files.read(path)
            if not isinstance(held, Mapping):
                raise UsageError(f"{path}: holds no state dict but a {type(held).__name__}")
            return dict(held)
        content = path.read_bytes()
        if _is_safetensors(content):
            return _from_safetensors(path, content)
        return _from_msgpack(path, content)
    except OSError as error:
        raise UsageError(f"cannot read pretrained weights from {path} ({error})") from error


def check_hash(path: Path) -> None:
    """Compare the hash in a file's name, where there is one, with that of its content.

    Args:
        path: The file.

    Raises:
        UsageError: They differ.
    """
    match = HASH.search(path.name)
    if match is None:
        return
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if not actual.startswith(match[1]):
        raise UsageError(
            f"{path}: its name promises the SHA-256 {match[1]}..., but it has {actual[:8]}...: it "
            "is damaged or another file; fetch it again, or rename it if you know what it is"
        )


def find_imagenet(name: str) -> Path:
    """The file of ImageNet's weights for a network, in the folders where they are looked for.

    These are FAIRGRAPE_WEIGHTS (by default fairgrape_jax/weights in the user's cache folder), and
    the one where torchvision keeps what it has fetched.

    Args:
        name: A network of torchvision's.

    Raises:
        UsageError: It is in none of them; it says which file to put where. Nothing is fetched.
    """
    if name not in IMAGENET:
        raise UsageError(
            f"there are no weights of ImageNet for {name!r}: choose one of {', '.join(IMAGENET)}"
        )
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get("FAIRGRAPE_WEIGHTS") or cache / "fairgrape_jax/weights")
    torch_home = Path(os.environ.get("TORCH_HOME") or cache / "torch")
    names = (*IMAGENET[name], f"{name}.safetensors")
    places = [root / file for root in (folder, torch_home / "hub/checkpoints") for file in names]
    match = next((place for place in places if place.is_file()), None)
    if match is None:
        raise UsageError(
            f"the weights of ImageNet for {name} are not here, and nothing is fetched: put "
            f"{' or '.join(IMAGENET[name])} (torchvision's file), or {name}.safetensors, into "
            f"{folder}"
        )
    return match


def _is_safetensors(content: bytes) -> bool:
    """Whether it begins with the length of a header, and a header."""
    return len(content) > 8 and content[8:9] == b"{"


def _from_safetensors(path: Path, content: bytes) -> dict[str, Any]:
    try:
        entries = deserialize(content)
    except SafetensorError as error:
        raise UsageError(
            f"cannot read pretrained weights from {path} ({error}): damaged; {FORMS}"
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


def _from_msgpack(path: Path, content: bytes) -> dict[str, Any]:
    try:
        tree = msgpack_restore(content)
    except Exception as error:  # any content: it fails in any way
        raise UsageError(f"{path}: holds no weights, or is damaged ({error}); {FORMS}") from error
    if not isinstance(tree, Mapping):
        raise UsageError(f"{path}: holds no weights; {FORMS}")
    return dict(tree)


def remove_prefix(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The weights of a checkpoint, without a prefix that all their keys have.

    Args:
        state_dict: Weights by key, or a checkpoint with an entry that holds them.

    Example:
        >>> remove_prefix({"model": {"module.a.weight": 1, "module.b": 2}})
        {'a.weight': 1, 'b': 2}
    """
    held = state_dict
    while inner := next((held[e] for e in ENTRIES if isinstance(held.get(e), Mapping)), None):
        held = inner
    first = next(iter(held), "")
    prefix = match[0] if (match := PREFIX.match(str(first))) else ""
    if not all(str(key).startswith(prefix) for key in held):
        return dict(held)
    return {str(key).removeprefix(prefix): value for key, value in held.items()}


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
