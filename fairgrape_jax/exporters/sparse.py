"""Sparse storage: a network in nearly as few bytes as its weights that are left can have.

A layer that is pruned is the places of its weights and their values, in the order of memory. Places
are gaps: the weights between one that is kept and the next. A gap is written in bytes, 255 for "255
more and none kept", so that one byte is nearly always one gap; of very sparse layers the low byte
apart. Values are cut into their first, second, ... bytes: signs and exponents are few and cost
little, fractions are not compressible. Each stream is coded by zlib's Huffman codes (DEFLATE
without matches, in every Python), which for such independent symbols come within a few percent of
their entropy and are decoded at memory speed; arithmetic coding would gain those percent and cost a
library of its own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fairgrape_jax import storage
from fairgrape_jax.errors import UsageError
from fairgrape_jax.models.weights import DTYPES

MAGIC = b"fairgrape-sparse-1\n"
NAME = "model.sparse"
MORE = 255  # a byte of a gap that goes on
_NAMES = {str(np.dtype(kind)): np.dtype(kind) for kind in DTYPES.values()}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What a file of sparse storage takes, in bytes.

    Attributes:
        file: All of it.
        bound: The entropy of what it holds: of each layer's mask, n H(k / n) for k of n weights,
            and of each byte of the values (first bytes, second bytes, ... of all).
        dense: The arrays as they are.
        zipped: A zip of these.
    """

    file: int
    bound: float
    dense: int
    zipped: int


def encode(arrays: Mapping[str, np.ndarray], masks: Mapping[str, np.ndarray]) -> bytes:
    """A network as bytes.

    Args:
        arrays: By name, of types that `DTYPES` has.
        masks: Of those that are pruned, by the same names; what is outside a mask must be zero.

    Returns:
        The content of a file; `decode` gives exactly the same arrays and masks.
    """
    rows: list[dict[str, Any]] = []
    places: list[bytes] = []
    values: list[np.ndarray] = []
    for name, array in arrays.items():
        row: dict[str, Any] = {"name": name, "type": str(array.dtype), "shape": list(array.shape)}
        if name in masks:
            mask = np.ascontiguousarray(masks[name], bool).reshape(-1)
            row |= {"kept": int(mask.sum()), **_places(mask, places)}
            array = np.ascontiguousarray(array).reshape(-1)[mask]
        rows.append(row)
        values.append(array)
    streams = [_packed(json.dumps(rows).encode(), zlib.Z_DEFAULT_STRATEGY), *places]
    for group in _by_type(values).values():
        streams += [_packed(plane) for plane in _planes(group)]
    body = b"".join(len(stream).to_bytes(8, "little") + stream for stream in streams)
    return MAGIC + body + hashlib.sha256(body).digest()


def decode(content: bytes) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The arrays and masks of `encode`.

    Args:
        content: Of a file.

    Returns:
        The arrays, and the masks, by name.

    Raises:
        ValueError: The content is none of `encode`, of another version, cut off or altered.

    Example:
        >>> array, mask = np.array([0.0, 2.0, 0.0]), np.array([False, True, False])
        >>> decode(encode({"w": array}, {"w": mask}))
        ({'w': array([0., 2., 0.])}, {'w': array([False,  True, False])})
    """
    body, digest = content[len(MAGIC) : -32], content[-32:]
    if not content.startswith(MAGIC):
        raise ValueError("no file of sparse storage, or of another version")
    if hashlib.sha256(body).digest() != digest:
        raise ValueError("damaged: it is not as it was written")
    streams = _streams(body)
    rows = json.loads(zlib.decompress(next(streams)))
    masks, counts = {}, []
    for row in rows:
        size = math.prod(row["shape"])
        if "kept" in row:
            masks[row["name"]] = _mask(row, size, streams).reshape(row["shape"])
            size = row["kept"]
        counts.append(size)
    values = _values([row["type"] for row in rows], counts, streams)
    arrays = {}
    for row, part in zip(rows, values, strict=True):
        if (mask := masks.get(row["name"])) is not None:
            whole = np.zeros(mask.size, part.dtype)
            whole[mask.reshape(-1)] = part
            part = whole
        arrays[row["name"]] = part.reshape(row["shape"])
    return arrays, masks


def write(path: Path, arrays: Mapping[str, np.ndarray], masks: Mapping[str, np.ndarray]) -> None:
    """Write `encode` to a file, there whole or not at all.

    Args:
        path: The file.
        arrays: By name.
        masks: Bool, by the names of the arrays that they are of.
    """
    content = encode(arrays, masks)
    with storage.atomic_write(path) as partial:
        partial.write_bytes(content)


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The arrays and masks of a file.

    Args:
        path: The file.

    Returns:
        The arrays, and the masks, by name.

    Raises:
        UsageError: It is no such file, or damaged.
    """
    try:
        return decode(storage.require_regular_file(path).read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from error


def sizes(content: bytes) -> Sizes:
    """What the content of a file takes, beside its entropy and the dense arrays.

    Args:
        content: Of a file.

    Returns:
        Bytes of each.
    """
    arrays, masks = decode(content)
    bits, kept = 0.0, []
    for name, array in arrays.items():
        if name in masks:
            n, k = array.size, int(masks[name].sum())
            bits += n * _entropy(np.array([k, n - k]))
            array = array.reshape(-1)[masks[name].reshape(-1)]
        kept.append(array)
    for group in _by_type(kept).values():
        for plane in _planes(group):
            bits += len(plane) * _entropy(np.bincount(np.frombuffer(plane, np.uint8)))
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            archive.writestr(name, array.tobytes())
    dense = sum(array.nbytes for array in arrays.values())
    return Sizes(len(content), bits / 8, dense, len(zipped.getvalue()))


def _entropy(counts: np.ndarray) -> float:
    """Bits for each of so many symbols.

    >>> _entropy(np.array([2, 2]))
    1.0
    """
    share = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(share * np.log2(share)).sum()) + 0.0


def _places(mask: np.ndarray, streams: list[bytes]) -> dict[str, Any]:
    """Add the streams of a mask's gaps, of its rarer value; what the row must know of them."""
    rare = bool(2 * mask.sum() <= mask.size)
    places = np.flatnonzero(mask == rare)
    gaps = np.diff(places, prepend=-1) - 1
    forms = [[_packed(_as_bytes(gaps))]]
    if len(gaps) and gaps.max() > MORE:
        low = (gaps & 255).astype(np.uint8).tobytes()
        forms.append([_packed(low), _packed(_as_bytes(gaps >> 8))])
    best = min(forms, key=lambda form: sum(map(len, form)))
    streams += best
    return {"rare": rare, "streams": len(best)}


def _mask(row: Mapping[str, Any], size: int, streams: Iterable[bytes]) -> np.ndarray:
    """The flat mask of a row, from its streams."""
    read = iter(streams)
    parts = [zlib.decompress(next(read)) for _ in range(row["streams"])]
    gaps = _from_bytes(parts[-1])
    if len(parts) == 2:
        gaps = (gaps << 8) + np.frombuffer(parts[0], np.uint8)
    mask = np.full(size, not row["rare"])
    mask[np.cumsum(gaps + 1) - 1] = row["rare"]
    return mask


def _as_bytes(gaps: np.ndarray) -> bytes:
    """Whole numbers as bytes: MORE as often as it goes in, then the rest.

    >>> list(_as_bytes(np.array([3, 0, 600])))
    [3, 0, 255, 255, 90]
    """
    ends = np.cumsum(gaps // MORE + 1) - 1
    symbols = np.full(int(ends[-1]) + 1 if len(ends) else 0, MORE, np.uint8)
    symbols[ends] = gaps % MORE
    return symbols.tobytes()


def _from_bytes(symbols: bytes) -> np.ndarray:
    """The numbers of `_as_bytes`."""
    steps = np.frombuffer(symbols, np.uint8)
    ends = np.flatnonzero(steps != MORE)
    return np.diff(np.cumsum(steps, dtype=np.int64)[ends], prepend=0)


def _by_type(arrays: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """The values of all arrays of a type one after the other, in the order of first use."""
    groups: dict[str, list[np.ndarray]] = {}
    for array in arrays:
        groups.setdefault(str(array.dtype), []).append(array.reshape(-1))
    return {kind: np.concatenate(parts) for kind, parts in groups.items()}


def _planes(values: np.ndarray) -> list[bytes]:
    """The first bytes of all values, their second bytes, ..."""
    size = values.dtype.itemsize
    rows = np.ascontiguousarray(values).view(np.uint8).reshape(-1, size)
    return [rows[:, place].tobytes() for place in range(size)]


def _values(kinds: list[str], counts: list[int], streams: Iterable[bytes]) -> list[np.ndarray]:
    """The values of every array, from the planes of each type."""
    read, parts = iter(streams), {}
    for kind in dict.fromkeys(kinds):
        dtype = _NAMES[kind]
        planes = [
            np.frombuffer(zlib.decompress(next(read)), np.uint8) for _ in range(dtype.itemsize)
        ]
        flat = np.ascontiguousarray(np.stack(planes, axis=-1)).view(dtype).reshape(-1)
        of_kind = [n for n, k in zip(counts, kinds, strict=True) if k == kind]
        parts[kind] = iter(np.split(flat, np.cumsum(of_kind)[:-1]))
    return [next(parts[kind]) for kind in kinds]


def _packed(content: bytes, strategy: int = zlib.Z_HUFFMAN_ONLY) -> bytes:
    """A stream under Huffman codes; as it is where these are longer, which zlib sees to."""
    coder = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, 9, strategy)
    return coder.compress(content) + coder.flush()


def _streams(body: bytes) -> Iterator[bytes]:
    """The streams of a file in order, each behind its length."""
    place = 0
    while place < len(body):
        end = place + 8 + int.from_bytes(body[place : place + 8], "little")
        yield body[place + 8 : end]
        place = end
