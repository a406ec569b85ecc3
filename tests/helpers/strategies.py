"""Near-valid input for the fuzz: nasty words, and mutations of bytes, of JSON and of folders."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

# Each has broken somebody's program: markup, shells, paths, terminals, spreadsheets, encodings.
NASTY = (
    "", " ", "\x00", "a\nb", "a\r\nb", "\t", "\x1b[31mred", "\x7f", "-", "--", "--help", "-1", "+1",
    "<script>alert(1)</script>", '"><svg/onload=alert(1)>', "</svg><img src=x onerror=alert(1)>",
    "&lt;", "a|b", "`id`", "[x](javascript:alert(1))", "# title", "$(touch owned)", "; rm owned",
    "../../owned", "/owned", "..", ".", "~", "C:\\owned", "file://owned", "a/b", "con",
    "=1+1", "=cmd|' /C calc'!A0", "@SUM(1)", "Ärzte", "名前", "e\u0301", "\u202eevil", "\ufeff",
    "\u2028", "\ud800", "\udcff", "$\\frac$", "$x", "%s", "{0}", "a" * 300, "ä" * 5000,
    "nan", "inf", "-0", "1e400", "0x1", "1_000", "٣", "²", "None", "null", "True", "0", "1", "2",
    "99999999999999999999", "image", "name", "source", "train", "group", "all", "__class__",
)  # fmt: skip

words = st.sampled_from(NASTY) | st.text(max_size=12)
# What a shell or a CSV file can hold: no NUL, and no lone surrogate but those of odd bytes.
arguments = words.filter(lambda word: "\x00" not in word and "\ud800" not in word)
numbers = st.sampled_from(
    (0, 1, -1, 2, 3, 7, 10**6, 2**31, 2**63, 10**20, -(10**20))
) | st.sampled_from(
    (0.0, -0.0, 0.5, 1.0, 1e-300, 1e300, float("nan"), float("inf"), -float("inf"), -0.5)
)
scalars = words | numbers | st.booleans() | st.none()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=4,
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every part of a JSON value but itself."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, part in inside:
        found.append((*path, key))
        if isinstance(part, dict | list):
            found += _places(part, (*path, key))
    return found


@st.composite
def altered_json(draw: Callable[..., Any], value: Any, most: int = 3) -> Any:
    """The value with one to `most` of its parts replaced, removed, renamed, doubled or wrapped."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, most))):
        places = _places(value)
        if not places:
            break
        *outer, key = draw(st.sampled_from(places))
        part = value
        for step in outer:
            part = part[step]
        match draw(st.sampled_from(("replace", "replace", "remove", "rename", "wrap", "nudge"))):
            case "remove":
                del part[key]
            case "rename" if isinstance(part, dict):
                part[draw(words)] = part.pop(key)
            case "wrap":
                part[key] = draw(st.sampled_from(([part[key]], {"x": part[key]}, [part[key]] * 2)))
            case "nudge" if isinstance(part[key], int | float):
                part[key] = draw(st.sampled_from((-part[key], part[key] + 1, str(part[key]), 0)))
            case _:
                part[key] = draw(values)
    return value


@st.composite
def altered_bytes(draw: Callable[..., Any], content: bytes) -> bytes:
    """The bytes truncated, with bits flipped, pieces doubled, cut out or put in, or others."""
    at = draw(st.integers(0, max(len(content) - 1, 0)))
    size = draw(st.integers(1, 64))
    match draw(st.sampled_from(("truncate", "flip", "insert", "cut", "double", "empty", "other"))):
        case "truncate":
            return content[:at]
        case "flip" if content:
            flipped = bytes([content[at] ^ 1 << draw(st.integers(0, 7))])
            return content[:at] + flipped + content[at + 1 :]
        case "insert":
            junk = st.sampled_from(
                (b"\x00", b"\xff", b"\xef\xbb\xbf", b"\r", b'"', b",", b"\n\n", b"\xfe\xff", b"{")
            )
            return content[:at] + draw(junk | st.binary(max_size=16)) + content[at:]
        case "cut":
            return content[:at] + content[at + size :]
        case "double":
            return content[:at] + content[at : at + size] * 2 + content[at + size :]
        case "empty":
            return b""
        case _:
            known = st.sampled_from((b"\x80\x04N.", b"PK\x03\x04", b"\x1f\x8b\x08", b"null", b"[]"))
            return draw(known | st.binary(max_size=200))


FOLDER_DAMAGE = ("alter", "alter", "empty", "remove", "folder", "loop", "nowhere", "swap", "device")


@st.composite
def damage(draw: Callable[..., Any], files: tuple[str, ...]) -> tuple[Any, ...]:
    """What to do to a folder that holds `files`; `apply` does it."""
    kind, name = draw(st.sampled_from(FOLDER_DAMAGE)), draw(st.sampled_from(files))
    more: Any = None
    if kind == "alter":
        more = draw(st.integers(0, 2**32)), draw(st.integers(0, 4))
    if kind == "swap":
        more = draw(st.sampled_from(files))
    return kind, name, more


def apply(folder: Path, damage: tuple[Any, ...]) -> None:
    """Do the damage; nothing where the file is gone already."""
    kind, name, more = damage
    path = folder / name
    if not path.is_file() or path.is_symlink():
        return
    content = path.read_bytes()
    path.unlink()
    match kind:
        case "alter":
            at = more[0] % max(len(content), 1)
            flipped = bytes([content[at] ^ 1 << more[1]]) if content else b"\x00"
            tails = (content[at + 1 :], b"", content[at:], b"\xff\x00" + content[at:])
            path.write_bytes(content[:at] + flipped + tails[more[1] % 4])
        case "empty":
            path.write_bytes(b"")
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path.name)
        case "nowhere":
            path.symlink_to("/nowhere/at/all")
        case "device":
            os.mkfifo(path)
        case "swap":
            other = folder / more
            if other.is_file() and other != path:
                shutil.copyfile(other, path)
            else:
                path.write_bytes(content)
