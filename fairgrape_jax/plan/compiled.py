"""One program, compiled for devices that are not here: does it fit, what does it do, what not."""

from __future__ import annotations

import dataclasses
import re
import time
from typing import Any

import jax

from fairgrape_jax.plan import hlo
from fairgrape_jax.plan.hlo import Collectives
from fairgrape_jax.plan.shapes import Program, nbytes

# "Used 20.31G of 15.75G hbm"; "Attempting to allocate 20.3GiB".
_USED = re.compile(r"[Uu]sed ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) (?:hbm|HBM)")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_MEMORY = ("RESOURCE_EXHAUSTED", "Ran out of memory", "ran out of memory")


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of one program on one device.

    Attributes:
        name: of the program.
        status: "compiled"; "too large" where the compiler found no room; "not compiled" with the
            reason in `message`.
        message: in one line, what the compiler said.
        arguments: bytes of the arguments.
        outputs: bytes of the results.
        temporaries: bytes in between.
        aliases: bytes of results that lie where arguments lay.
        donated: bytes of arguments that may be taken over.
        resident: bytes of what else the run holds meanwhile.
        flops: operations of the lowered program, loops once.
        lowered_bytes: bytes that it moves, were nothing fused.
        traffic: bytes that the compiled program's kernels move; 0 where it is not compiled.
        collectives: by kind.
        float64: whether a number of 64 bits is in it.
        host_calls: whether it stops for the host.
        calls: how often it is called in an epoch or a round.
        per: "epoch" or "round".
        lower_seconds: of tracing and lowering.
        compile_seconds: of compiling.
    """

    name: str
    status: str
    message: str = ""
    arguments: int = 0
    outputs: int = 0
    temporaries: int = 0
    aliases: int = 0
    donated: int = 0
    resident: int = 0
    flops: float = 0.0
    lowered_bytes: float = 0.0
    traffic: float = 0.0
    collectives: tuple[Collectives, ...] = ()
    float64: bool = False
    host_calls: bool = False
    calls: int = 1
    per: str = "round"
    lower_seconds: float = 0.0
    compile_seconds: float = 0.0

    @property
    def total(self) -> int:
        """Bytes on a device while it runs, with what lies beside it."""
        return self.alone + self.resident

    @property
    def alone(self) -> int:
        """Bytes of the program itself: arguments, temporaries, and results of new places."""
        return self.arguments + self.temporaries + max(self.outputs - self.aliases, 0)


def lower(program: Program, devices: int, *, only_for: str = "") -> Facts:
    """The facts of a program.

    Args:
        program: what is compiled.
        devices: on how many.
        only_for: the platform that it is lowered for, to be counted and not compiled; empty to
            compile it for its devices.

    Returns:
        What is known of it.
    """
    started = time.perf_counter()
    if only_for:
        traced = program.function.trace(*program.arguments)
        lowered = traced.lower(lowering_platforms=(only_for,))
    else:
        lowered = program.function.lower(*program.arguments)
    lower_seconds = time.perf_counter() - started
    cost = lowered_cost(lowered)
    facts = Facts(
        name=program.name,
        status="not compiled",
        arguments=argument_bytes(program, devices),
        donated=program.donated,
        resident=program.resident,
        flops=cost.get("flops", 0.0),  # lifted, a step is lowered as the program of one device
        lowered_bytes=cost.get("bytes accessed", 0.0),
        float64=hlo.has_float64(lowered.as_text()),
        host_calls=hlo.calls_host(lowered.as_text()),
        calls=program.calls,
        per=program.per,
        lower_seconds=lower_seconds,
    )
    return facts if only_for else compile_facts(facts, lowered)


def argument_bytes(program: Program, devices: int) -> int:
    """Bytes of the arguments on one device.

    Args:
        program: what is called, with its arguments.
        devices: over how many it is spread.

    Returns:
        Bytes.
    """
    total = 0
    for leaf in jax.tree.leaves(program.arguments):
        place = getattr(leaf, "sharding", None)
        cut = place is not None and bool(place.spec)
        total += nbytes(leaf) // (devices if cut else 1)
    return total


def compile_facts(facts: Facts, lowered: Any) -> Facts:
    """The facts with what the compiler makes of the program.

    Args:
        facts: what is known without compiling.
        lowered: the program, as `jax.jit(...).lower` gives it.

    Returns:
        The facts, with memory, collectives, or what the compiler says it cannot do.
    """
    started = time.perf_counter()
    try:
        compiled = lowered.compile()
    except Exception as error:
        message = " ".join(str(error).split())
        if not any(word in message for word in _MEMORY):
            raise
        used = compilers_bytes(message)
        return dataclasses.replace(
            facts,
            status="too large",
            message=message[:400],
            temporaries=max(used - facts.arguments, 0),
            compile_seconds=time.perf_counter() - started,
        )
    seconds = time.perf_counter() - started
    text = compiled.as_text()
    memory = compiled.memory_analysis()
    return dataclasses.replace(
        facts,
        status="compiled",
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        aliases=memory.alias_size_in_bytes,
        traffic=hlo.traffic(text),
        collectives=tuple(hlo.collectives(text)),
        float64=facts.float64 or hlo.has_float64(text),
        host_calls=facts.host_calls or hlo.calls_host(text),
        compile_seconds=seconds,
    )


def compilers_bytes(message: str) -> int:
    """The bytes that a compiler says a program would use.

    Args:
        message: the compiler's error.

    Returns:
        Bytes; 0 if it does not say.

    Example:
        >>> compilers_bytes("Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm.")
        22011707392
    """
    result = _USED.search(message)
    return int(float(result[1]) * _UNITS[result[2]]) if result else 0


def lowered_cost(lowered: Any) -> dict[str, float]:
    """Operations and bytes of a lowered program, counted on this machine by XLA.

    A compiled program's own count leaves out what libraries compute (cuDNN's convolutions).

    Args:
        lowered: the program, as `jax.jit(...).lower` gives it.

    Returns:
        By the names of XLA's analysis: "flops", "bytes accessed" and others.
    """
    from jax._src.lib import xla_client as xc  # counted without a device of the target

    module = lowered.compiler_ir("hlo").as_hlo_module()
    client = jax.devices("cpu")[0].client
    return dict(xc._xla.hlo_module_cost_analysis(client, module))
