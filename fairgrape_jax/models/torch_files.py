"""Read PyTorch's checkpoint files (.pt, .pth) without executing anything that they ask for.

Such a file is a pickle, which may name any function to be called, beside the raw numbers. Here its
opcodes are looked at before it is loaded, and only what rebuilds tensors and plain containers is
ever found; everything else is refused by name. Written as PyTorch's documentation and
`torch/serialization.py` describe the format: a zip archive since 1.6, a sequence of pickles before.
"""

from __future__ import annotations

import collections
import dataclasses
import io
import math
import pickle
import pickletools
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import jax.numpy as jnp
import numpy as np
from numpy.typing import DTypeLike

from fairgrape_jax.errors import UsageError

# What a pickle holds: plain values, containers, and what stands for tensors until they are read.
Node: TypeAlias = Any
STORAGES: dict[str, DTypeLike] = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
# What a pickle of plain values, containers and tensors is made of. No opcode that makes an object
# of a class (INST, OBJ, NEWOBJ), asks copyreg (EXT), or takes a name from the stack.
OPCODES = frozenset(
    {
        *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "MEMOIZE"),
        *("GLOBAL", "REDUCE", "BUILD", "BINPERSID", "BINGET", "LONG_BINGET"),
        *("BINPUT", "LONG_BINPUT", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1"),
        *("BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINSTRING"),
        *("SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "EMPTY_TUPLE", "TUPLE", "TUPLE1"),
        *("TUPLE2", "TUPLE3", "EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_DICT", "DICT"),
        *("SETITEM", "SETITEMS", "EMPTY_SET", "ADDITEMS"),
    }
)
LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
MOST_PICKLE = 2**28  # bytes of a pickle; the numbers lie beside it
CURE = (
    "if you trust it, load it with PyTorch and save its state_dict() alone (torch.save or "
    "safetensors.torch.save_file)"
)


@dataclasses.dataclass(frozen=True)
class _Storage:
    dtype: np.dtype
    key: str
    size: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _RefusedError(ValueError):
    """What is wrong with a file, in words that follow its name."""


def read(path: Path) -> Node:
    """What a file holds: plain containers, their tensors as NumPy arrays.

    Args:
        path: The file; zip archives and those of PyTorch before 1.6.

    Raises:
        UsageError: It asks for anything but tensors and plain values, or is damaged, or none.
    """
    try:
        if not path.is_file():
            raise _RefusedError("no such file")
        with path.open("rb") as file:
            return _read_zip(file) if zipfile.is_zipfile(file) else _read_legacy(file)
    except _RefusedError as error:
        raise UsageError(f"{path}: {error}") from error
    except zipfile.BadZipFile as error:
        raise UsageError(f"{path}: a damaged zip archive ({error}); fetch it again") from error
    except (EOFError, OSError, RuntimeError, ValueError, KeyError, zlib.error) as error:
        raise UsageError(f"{path}: damaged, or no checkpoint of PyTorch ({error})") from error


def is_checkpoint(path: Path) -> bool:
    """Whether a file begins like one of PyTorch, by its content and not by its name.

    Args:
        path: The file.

    Returns:
        True for a zip archive, or a pickle as PyTorch begins one.
    """
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"\x80\x02\x8a\x0a")


def _read_zip(file: BinaryIO) -> Node:
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        roots = [name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise _RefusedError("no checkpoint of PyTorch: a zip archive without one data.pkl")
        root = roots[0]
        if f"{root}constants.pkl" in entries:
            raise _RefusedError(f"a TorchScript program, no checkpoint: {CURE}")
        if entries[f"{root}data.pkl"].file_size > MOST_PICKLE:
            raise _RefusedError("its data.pkl is too large to be a checkpoint's")
        order = archive.read(f"{root}byteorder") if f"{root}byteorder" in entries else b"little"
        tree = _unpickle(io.BytesIO(archive.read(f"{root}data.pkl")))

        def content(storage: _Storage) -> bytes:
            entry = entries.get(f"{root}data/{storage.key}")
            if entry is None or entry.file_size < storage.size * storage.dtype.itemsize:
                raise _RefusedError(f"damaged: the numbers of {storage.key!r} are not all there")
            if entry.compress_type != zipfile.ZIP_STORED:
                raise _RefusedError("no checkpoint of PyTorch: its numbers are compressed")
            return archive.read(entry)

        return _with_arrays(tree, _cached(content, ">" if order.strip() == b"big" else "<"))


def _read_legacy(file: BinaryIO) -> Node:
    """Five pickles (magic number, version, machine, the object, the order of its storages), then
    the storages."""
    if not is_legacy(file):
        raise _RefusedError(
            "a zip archive that is cut off or damaged; fetch it again"
            if file.read(2) == b"PK"
            else "no checkpoint of PyTorch: neither a zip archive nor its earlier form"
        )
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    magic, protocol, machine, tree, keys = (_unpickle(file, size) for _ in range(5))
    if (magic, protocol) != (LEGACY_MAGIC, LEGACY_PROTOCOL) or not isinstance(machine, dict):
        raise _RefusedError("no checkpoint of PyTorch")
    order = "<" if machine.get("little_endian", True) else ">"
    storages = {storage.key: storage for storage in _storages(tree)}
    contents: dict[str, bytes] = {}
    for key in keys if isinstance(keys, list) else []:
        count = int.from_bytes(file.read(8), "little" if order == "<" else "big")
        if key not in storages or count != storages[key].size:
            raise _RefusedError("damaged: its storages are not those that it names")
        contents[key] = file.read(count * storages[key].dtype.itemsize)

    def content(storage: _Storage) -> bytes:
        numbers = contents.get(storage.key, b"")
        if len(numbers) != storage.size * storage.dtype.itemsize:
            raise _RefusedError(f"damaged: the numbers of {storage.key!r} are not all there")
        return numbers

    return _with_arrays(tree, _cached(content, order))


def is_legacy(file: BinaryIO) -> bool:
    """Whether a file has the form of PyTorch before 1.6.

    Args:
        file: The file; it stands at its begin afterwards.

    Returns:
        True for a file of PyTorch before 1.6.
    """
    file.seek(0)
    first = file.read(15)
    file.seek(0)
    return first[3:14] == b"\x0a" + LEGACY_MAGIC.to_bytes(10, "little") and first[:1] == b"\x80"


def _unpickle(file: BinaryIO, most: int = MOST_PICKLE) -> Node:
    """The object of the next pickle of a file, of plain values and records of tensors."""
    begin = file.tell()
    content = file.read(most)
    try:
        end = begin + _check_opcodes(content)
        tree = _Unpickler(io.BytesIO(content)).load()
    except _RefusedError:
        raise
    except Exception as error:  # a pickle that is cut off or altered fails in any way
        raise _RefusedError(f"damaged: its pickle cannot be read ({error})") from error
    file.seek(end)
    return tree


def _check_opcodes(content: bytes) -> int:
    """Refuse a pickle by its opcodes and names, before it is loaded; its length."""
    number = 0
    for number, (opcode, argument, place) in enumerate(pickletools.genops(content)):
        if opcode.name == "GLOBAL":
            _allowed(*str(argument).split(" ", 1))
        elif opcode.name not in OPCODES:
            raise _RefusedError(
                f"its pickle makes objects ({opcode.name}), which is refused: {CURE}"
            )
        elif opcode.name.endswith("BINPUT") and int(str(argument)) > number:
            raise _RefusedError("damaged: its pickle counts wrong")
        if opcode.name == "STOP":
            return int(place or 0) + 1
    raise _RefusedError("damaged: its pickle has no end")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Node:
        return _allowed(module, name)

    def persistent_load(self, reference: Node) -> _Storage:
        if not isinstance(reference, tuple) or len(reference) < 5 or reference[0] != "storage":
            raise _RefusedError("it refers to something that is no storage of a tensor")
        _, dtype, key, _device, size = reference[:5]
        if not isinstance(dtype, np.dtype) or not _is_count(size):
            raise _RefusedError(f"it has a storage of an unknown type: {CURE}")
        return _Storage(dtype, str(key), size)


def _rebuild_tensor(
    storage: Node, offset: Node, shape: Node, strides: Node, *rest: Node
) -> _Tensor:
    whole = [offset, *shape, *strides]
    if not isinstance(storage, _Storage) or not all(map(_is_count, whole)):
        raise _RefusedError("damaged: a tensor that is no view of a storage")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    count = math.prod(shape)
    if count and (last >= storage.size or count > storage.size):
        raise _RefusedError("damaged: a tensor that is larger than its storage")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: Node, *rest: Node) -> Node:
    return tensor


def _named(*parts: Node) -> str:
    """What stands for torch.device(...) and its like: nothing reads it."""
    return ":".join(map(str, parts))


_ALLOWED: dict[tuple[str, str], Node] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "Size"): tuple,
    ("torch", "device"): _named,
    **{("torch", name): np.dtype(kind) for name, kind in STORAGES.items()},
}


def _allowed(module: str, name: str) -> Node:
    try:
        return _ALLOWED[module, name]
    except KeyError:
        raise _RefusedError(
            f"its pickle asks for {module}.{name}, which is refused: only tensors and plain "
            f"values are read; {CURE}"
        ) from None


def _is_count(value: Node) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**48


def _cached(content: Callable[[_Storage], bytes], order: str) -> Callable[[_Storage], np.ndarray]:
    """The numbers of a storage, read once, in this machine's byte order."""
    read: dict[_Storage, np.ndarray] = {}

    def numbers(storage: _Storage) -> np.ndarray:
        if storage not in read:
            words = np.frombuffer(content(storage), storage.dtype, storage.size)
            big = order == ">" and storage.dtype.itemsize > 1
            read[storage] = words.byteswap() if big else words
        return read[storage]

    return numbers


def _with_arrays(tree: Node, numbers: Callable[[_Storage], np.ndarray]) -> Node:
    """The tree with arrays in place of the records of tensors."""
    if isinstance(tree, _Tensor):
        flat, itemsize = numbers(tree.storage), tree.storage.dtype.itemsize
        return np.ascontiguousarray(
            np.lib.stride_tricks.as_strided(
                flat[tree.offset :], tree.shape, [itemsize * step for step in tree.strides]
            )
        ).reshape(tree.shape)
    if isinstance(tree, Mapping):
        return {key: _with_arrays(value, numbers) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_with_arrays(value, numbers) for value in tree)
    return tree


def _storages(tree: Node) -> list[_Storage]:
    if isinstance(tree, _Tensor):
        return [tree.storage]
    if isinstance(tree, Mapping):
        tree = list(tree.values())
    if isinstance(tree, list | tuple | set):
        return [storage for value in tree for storage in _storages(value)]
    return []
