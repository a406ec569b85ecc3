"""A state dict for torchvision or timm: a .pth file as PyTorch writes it, without PyTorch."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fairgrape_jax import models, storage
from fairgrape_jax.errors import UsageError
from fairgrape_jax.exporters.base import Exporter, Model, Options
from fairgrape_jax.masks import Tree
from fairgrape_jax.models import torch_files
from fairgrape_jax.models.torchvision import NETWORKS
from fairgrape_jax.systems.quantised import is_quantised

NAME = "model.pth"
ALIGNMENT = 64  # of the numbers in the file, as PyTorch's own, so that it can map them into memory
_STORAGES = {np.dtype(kind): name for name, kind in torch_files.STORAGES.items()}


def state_dict(model: Model) -> dict[str, np.ndarray]:
    """The weights under torchvision's or timm's keys, and the counters that batch norms have.

    Args:
        model: What is exported.

    Returns:
        Arrays by key, in torch's shapes.
    """
    state = models.to_torchvision(model.name, model.variables)
    counters = {}
    for key in state:
        if key.endswith("running_var"):
            counters[key.replace("running_var", "num_batches_tracked")] = np.zeros((), np.int64)
    return state | counters


def write_pth(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a state dict that `torch.load(path, weights_only=True)` reads.

    Args:
        path: The file; there whole or not at all.
        arrays: By key, of the types of `torch_files.STORAGES`.
    """
    with storage.atomic_write(path) as partial, zipfile.ZipFile(partial, "w") as archive:

        def add(name: str, content: bytes) -> None:
            entry = zipfile.ZipInfo(f"model/{name}")
            begin = archive.fp.tell() + 30 + len(entry.filename) + 4  # type: ignore[union-attr]
            # An extra field of this length moves the content to a multiple of ALIGNMENT.
            entry.extra = struct.pack("<2sH", b"FB", -begin % ALIGNMENT) + b"Z" * (
                -begin % ALIGNMENT
            )
            archive.writestr(entry, content)

        add("data.pkl", _pickled(arrays))
        add("byteorder", b"little")
        for number, array in enumerate(arrays.values()):
            little = array.astype(array.dtype.newbyteorder("<"), copy=False)
            add(f"data/{number}", np.ascontiguousarray(little).tobytes())
        add("version", b"3\n")


def _pickled(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The pickle of a dict of tensors, each with a storage of its own, as torch.save writes it."""
    items = [_word(key) + _tensor(str(n), a) for n, (key, a) in enumerate(arrays.items())]
    return b"\x80\x02}(" + b"".join(items) + b"u."


def _tensor(storage_key: str, array: np.ndarray) -> bytes:
    """A call of torch's function that makes a tensor of a storage."""
    steps = [int(np.prod(array.shape[axis + 1 :])) for axis in range(array.ndim)]
    kind = _name("torch", _STORAGES[array.dtype.newbyteorder("=")])
    reference = _tuple(_word("storage"), kind, _word(storage_key), _word("cpu"), _int(array.size))
    ordered = _name("collections", "OrderedDict") + b")R"
    shape, strides = (_tuple(*map(_int, numbers)) for numbers in (array.shape, steps))
    arguments = _tuple(reference + b"Q", _int(0), shape, strides, b"\x89", ordered)
    return _name("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


def _word(text: str) -> bytes:
    content = text.encode()
    return b"X" + struct.pack("<I", len(content)) + content


def _int(number: int) -> bytes:
    if number < 2**31:
        return b"J" + struct.pack("<i", number)
    return b"\x8a\x08" + struct.pack("<q", number)


def _tuple(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def _name(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def check(model: Model) -> None:
    """Refuse a network that torchvision does not have.

    Args:
        model: What is exported.

    Raises:
        UsageError: torchvision does not have the network.
    """
    _check(model, "torchvision", [name for name, row in NETWORKS.items() if row.torchvision])


def _check_timm(model: Model) -> None:
    _check(model, "timm", [name for name, row in NETWORKS.items() if row.timm])


def _check(model: Model, to: str, names: Sequence[str]) -> None:
    if model.name not in names:
        what = f"{model.name!r} is" if model.name else "a network of your own is"
        other = "torchvision" if to == "timm" else "timm"
        more = f"{other}, " if model.name in NETWORKS else ""
        raise UsageError(
            f"--to {to}: {what} none of {', '.join(names)}; give {more}safetensors or npz"
        )
    if not model.is_whole:
        raise UsageError(
            f"--to {to}: {to}'s {model.name} has the channels that --shrink took out; give "
            "safetensors, npz, stablehlo or onnx, or export it whole"
        )
    if is_quantised(model.variables.get("batch_stats", {})):
        raise UsageError(
            "--to torchvision: the network is quantised, for which a state dict has no place; give "
            "onnx or stablehlo for the network as it runs, or npz or "
            "safetensors for its quantised weights with their scales"
        )
    models.from_torchvision(model.name, models.to_torchvision(model.name, model.variables))


def fits(model: Model) -> bool:
    """Whether torchvision or timm has the network, of 3 channels, in float32.

    Args:
        model: What is exported.

    Returns:
        True where it can be exported.
    """
    try:
        _check(model, "hf", list(NETWORKS))
    except UsageError:
        return False
    return True


def timm_entries(
    name: str, classes: int, shape: Sequence[int] | None = None, **normalised: list[float]
) -> dict[str, Any]:
    """What timm reads of config.json.

    Args:
        name: Of the network.
        classes: How many logits it gives.
        shape: (H, W, C) of a picture, where it is known.
        normalised: `mean` and `std` of each channel, where they are known.

    Returns:
        Plain values; none where timm has no such network under these keys.
    """
    network = NETWORKS.get(name)
    if network is None or not network.timm:
        return {}
    size = {} if shape is None else {"input_size": [shape[-1], *shape[:-1]]}
    layers = {"first_conv": network.stem, "classifier": network.head}
    entries: dict[str, Any] = {"architecture": network.timm}
    entries["pretrained_cfg"] = {**size, **normalised, "num_classes": classes, **layers}
    if network.sizes:
        entries["model_args"] = dict.fromkeys(network.sizes, True)
    return entries


def _write(model: Model, folder: Path, options: Options) -> None:
    write_pth(folder / NAME, state_dict(model))


def _read(model: Model, folder: Path) -> Tree:
    return models.from_torchvision(model.name, torch_files.read(folder / NAME))


EXPORTER = Exporter("a state dict that torchvision loads", _write, _read, check)
TIMM_EXPORTER = Exporter("a state dict that timm loads", _write, _read, _check_timm)
