"""What a compiled program's text tells: collectives, traffic to memory, types, host calls."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)
# An instruction: its name, its type (a shape or a tuple of them), its operation, its operands.
_INSTRUCTION = re.compile(
    r"^\s*(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([a-z][\w\-]*)\((.*)$", re.MULTILINE
)
_SHAPE = re.compile(r"\b([a-z]+\d*(?:e\dm\d\w*)?)\[([\d,]*)\](\{[^}]*\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_WIDTHS = {"pred": 1, "s4": 0.5, "u4": 0.5, "token": 0, "opaque": 0}
# Operations that move nothing by themselves.
_FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
    "partition-id",
    "replica-id",
    "while",
    "conditional",
    "call",
    "opt-barrier",
}
_HOST = re.compile(r"callback|infeed\(|outfeed\(|SendToHost|RecvFromHost|is_host_transfer=true")


@dataclasses.dataclass(frozen=True)
class Collectives:
    """The collectives of one kind in a program.

    Attributes:
        kind: "all-reduce" and so on.
        count: how many instructions, those in a loop once.
        bytes: of what they give on one device, altogether.
        largest: bytes of the largest.
        wide: how many are of at least 1 KiB; shorter ones are sums of flags and losses.
    """

    kind: str
    count: int
    bytes: int
    largest: int
    wide: int


def shape_bytes(text: str, *, in_memory: bool = False) -> float:
    """Bytes of the shapes in a text.

    Args:
        text: as XLA prints types.
        in_memory: leave out what lies in a memory of the core (S(1) and the like).

    Example:
        >>> shape_bytes("(f32[2,3]{1,0}, bf16[4]{0}, pred[])")
        33.0
        >>> shape_bytes("f32[8]{0:T(8)S(1)}", in_memory=True)
        0.0
    """
    total = 0.0
    for dtype, sizes, layout in _SHAPE.findall(text):
        if in_memory and re.search(r"S\([1-9]", layout):
            continue
        width = _WIDTHS.get(dtype)
        if width is None:
            bits = re.search(r"\d+", dtype)
            width = int(bits[0]) / 8 if bits else 0
        total += width * math.prod(int(n) for n in sizes.split(",") if n)
    return total


def collectives(text: str) -> list[Collectives]:
    """The collectives of a compiled program, by kind; an asynchronous one counts once.

    Args:
        text: the program in HLO.

    Returns:
        One entry for each kind.

    Example:
        >>> line = "  %a = (f32[4]{0}, f32[300]{0}) all-reduce(%x, %y), to_apply=%add"
        >>> collectives(line)
        [Collectives(kind='all-reduce', count=1, bytes=1216, largest=1216, wide=1)]
    """
    sizes: dict[str, list[float]] = {}
    for _, kind, operation, _ in _INSTRUCTION.findall(text):
        started = operation.endswith("-start")
        name = operation.removesuffix("-start")
        if name in KINDS:
            # all-gather-start gives its operand and its result, all-reduce-start the result.
            halves = started and name in ("all-gather", "collective-permute")
            sizes.setdefault(name, []).append(
                shape_bytes(_second(kind)) if halves else shape_bytes(kind)
            )
    return [
        Collectives(
            kind=kind,
            count=len(sizes[kind]),
            bytes=int(sum(sizes[kind])),
            largest=int(max(sizes[kind])),
            wide=sum(size >= 1024 for size in sizes[kind]),
        )
        for kind in KINDS
        if kind in sizes
    ]


def _second(kind: str) -> str:
    """The second part of a pair of types."""
    depth = 0
    for place, letter in enumerate(kind[1:-1], 1):
        depth += letter in "({["
        depth -= letter in ")}]"
        if letter == "," and not depth:
            return kind[place + 1 : -1]
    return kind


def traffic(text: str) -> float:
    """Bytes that the kernels of a compiled program read from memory and write to it.

    Every instruction that stands by itself reads its operands and writes its result; what is fused
    moves nothing in between. What lies in a core's own memory is left out. The bodies of loops
    count once, and so do all branches. A slice that is written into an array moves the slice; in
    the body of a loop, which goes over the slices, the array.

    Args:
        text: the program in HLO.

    Returns:
        Bytes.
    """
    total, slices = 0.0, _written_slices(text)
    for number, body in enumerate(_kernels(text)):
        types: dict[str, str] = {}
        for name, kind, operation, rest in _INSTRUCTION.findall(body):
            types[name] = kind
            if operation in _FREE or operation.endswith("-done"):
                continue
            names = _NAME.findall(rest.split("), ")[0])
            called = re.search(r"calls=%?([\w.\-]+)", rest)
            part = slices.get(called[1]) if called else None
            if operation == "dynamic-update-slice":
                part = types.get(names[1])
            if part is not None and number == 0:
                array = next((each for each in names if types.get(each) == kind), "")
                names, kind = [each for each in names if each != array], part
            # A copy that is begun names what it writes and what it reads: (result, operand, ...).
            total += shape_bytes(kind, in_memory=True)
            if operation.endswith("-start"):
                continue
            for operand in names:
                total += shape_bytes(types.get(operand, ""), in_memory=True)
    return total


def _written_slices(text: str) -> dict[str, str]:
    """Of computations that end with a slice written into an array, the type of the slice."""
    written = {}
    for name, body in computations(text).items():
        types = {name: kind for name, kind, *_ in _INSTRUCTION.findall(body)}
        root = re.search(r"ROOT %?[\w.\-]+ = \S+ dynamic-update-slice\((.*)$", body, re.MULTILINE)
        if root:
            written[name] = types.get(_NAME.findall(root[1])[1], "")
    return written


def computations(text: str) -> dict[str, str]:
    """The text of each computation of a program, by its name.

    Args:
        text: the program in HLO.
    """
    parts = re.split(r"^(?=(?:ENTRY )?%?[\w.\-]+ (?:\(.*\) -> .*)?\{)", text, flags=re.MULTILINE)
    heads = [re.match(r"(?:ENTRY )?%?([\w.\-]+) ", part) for part in parts]
    return {head[1]: part for head, part in zip(heads, parts, strict=True) if head}


def _kernels(text: str) -> Iterator[str]:
    """The computations whose instructions are kernels, the entry first: not those that are fused
    or applied."""
    named = computations(text)
    entry = next((name for name, part in named.items() if part.startswith("ENTRY ")), "")
    waiting, visited = [entry], set[str]()
    while waiting:
        name = waiting.pop()
        if name in visited or name not in named:
            continue
        visited.add(name)
        body = named[name]
        yield body
        for key in ("body", "condition", "true_computation", "false_computation"):
            waiting += re.findall(rf"{key}=%?([\w.\-]+)", body)
        for branches in re.findall(r"branch_computations=\{([^}]*)\}", body):
            waiting += _NAME.findall(branches)
        for line in re.findall(r" (?:call|async-start)\(.*", body):
            waiting += re.findall(r"(?:to_apply|calls)=%?([\w.\-]+)", line)


def has_float64(text: str) -> bool:
    """Whether any number of a program is of 64 bits.

    Args:
        text: the program in HLO.

    Returns:
        True if one is.

    Example:
        >>> has_float64("%a = f64[] constant(1)"), has_float64("%a = f32[64] add(%b, %c)")
        (True, False)
    """
    return bool(re.search(r"\b(f64|c128)\[|x?f64>", text))


def calls_host(text: str) -> bool:
    """Whether a program stops for the host.

    Args:
        text: the program in HLO.

    Returns:
        True if it does.

    Example:
        >>> calls_host('%a = custom-call(), custom_call_target="xla_ffi_python_cpu_callback"')
        True
    """
    return bool(_HOST.search(text))
