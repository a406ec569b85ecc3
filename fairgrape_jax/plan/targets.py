"""Devices that are not here, by name: `v5e:4x4`, `h100:8`, `cpu`; what can be had, and what not."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
from typing import Any

from fairgrape_jax.errors import UsageError
from fairgrape_jax.plan.chips import CHIPS, GIB, Chip

# Slices that can be had, in chips a side. v5e and v6e: Google's list. v4 and v5p: up to four chips
# in a line the listed ones, above it any cuboid of sides that are multiples of four.
FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
SMALL_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4")
MOST_CHIPS = {"v4": 4096, "v5p": 6144}
EXTRAS = {"tpu": ("libtpu",), "cuda": ("jax_cuda13_plugin", "jax_plugins.xla_cuda13")}
FORMS = "v5e:4x4, v6e:8x8, v4:2x2x1, v5p:4x4x4, h100:8, h200, a100, b200, cpu or cpu:2"


@dataclasses.dataclass(frozen=True)
class Target:
    """Some devices of one kind.

    Attributes:
        name: as the user has it, in full: `v5e:4x4`.
        chip: its data sheet.
        chips: how many.
        sides: chips a side of a TPU's slice; () for others.
    """

    name: str
    chip: Chip
    chips: int
    sides: tuple[int, ...] = ()

    @property
    def hosts(self) -> int:
        """Machines, each with a process of its own."""
        return 1 if self.chip.kind == "cpu" else max(1, self.chips // self.chip.per_host)

    @property
    def memory(self) -> float:
        """Bytes of one device that JAX takes."""
        if self.chip.kind == "cpu":
            return self.chip.memory / self.chips  # one machine's, for all of them
        if self.chip.kind == "tpu":
            return self.chip.memory
        part = os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", "")
        return self.chip.memory * (float(part) if part else self.chip.usable)

    @property
    def note(self) -> str:
        """What is to be known of its devices; empty for nothing."""
        if self.chip.name == "v4":
            return (
                "a v4 chip has two cores, which the compiler takes for two devices of half the "
                "memory unless told to join them; here, as in JAX on Cloud TPU, a chip is one "
                "device (megacore)"
            )
        if self.chip.kind == "cuda":
            part = self.memory / self.chip.memory
            return f"JAX takes {part:.0%} of a GPU's memory (XLA_PYTHON_CLIENT_MEM_FRACTION)"
        return ""


def parse(text: str) -> Target:
    """The devices that a word names.

    Args:
        text: `CHIP` or `CHIP:SHAPE`; SHAPE is chips a side for TPUs, a number for others.

    Raises:
        UsageError: for a chip that is not in the table, and a slice or number that cannot be had,
            with those that can.

    Example:
        >>> parse("v5e:4x4").chips, parse("v4:4x4x4").chips, parse("h100:16").hosts
        (16, 64, 2)
        >>> parse("h200").name
        'h200:1'
    """
    name, colon, shape = text.partition(":")
    if name == "cpu":
        return Target(f"cpu:{_number(text, shape or '1', colon)}", _this_cpu(), int(shape or 1))
    if name not in CHIPS:
        raise UsageError(f"--on: {text!r} names no device; give {FORMS}")
    chip = CHIPS[name]
    if chip.kind == "cuda":
        chips = _number(text, shape or "1", colon)
        if chips > chip.per_host and chips % chip.per_host:
            below = chips // chip.per_host * chip.per_host
            raise UsageError(
                f"--on: {text}: a host has {chip.per_host} GPUs; give up to {chip.per_host}, or a "
                f"multiple: {name}:{below} or {name}:{below + chip.per_host}"
            )
        return Target(f"{name}:{chips}", chip, chips)
    sides = _sides(text, shape or ("1x1" if name in ("v5e", "v6e") else "2x2x1"))
    sizes = "x".join(map(str, sides))
    return Target(f"{name}:{sizes}", chip, math.prod(sides), sides)


def _number(text: str, word: str, colon: str) -> int:
    if not (word.isascii() and word.isdecimal() and int(word)) or (colon and text.endswith(":")):
        raise UsageError(f"--on: {text!r} is not a name and a number of devices; give {FORMS}")
    return int(word)


def _sides(text: str, shape: str) -> tuple[int, ...]:
    """Chips a side of a slice that can be had."""
    name = text.partition(":")[0]
    words = shape.split("x")
    dimensions = 2 if name in ("v5e", "v6e") else 3
    if text.endswith(":") or not all(w.isascii() and w.isdecimal() and int(w) for w in words):
        raise UsageError(f"--on: {text!r} is not a slice; give {_examples(name)}")
    sides = tuple(int(word) for word in words)
    if len(sides) == 1:
        raise UsageError(
            f"--on: {text}: a slice has a shape, not a number of chips; {sides[0]} chips are "
            f"{_of_size(name, sides[0])}"
        )
    if len(sides) != dimensions:
        raise UsageError(
            f"--on: {text}: a slice of {name} has {dimensions} sides; give {_examples(name)}"
        )
    sizes = "x".join(map(str, sides))
    ordered = "x".join(map(str, sorted(sides)))
    if dimensions == 2:
        if ordered not in FLAT:
            raise UsageError(
                f"--on: {text}: no such slice can be had; {name} has {', '.join(FLAT)}"
            )
        # Google names the smaller side first.
        return tuple(sorted(sides))
    cube = all(side % 4 == 0 for side in sides)
    if not cube and sizes not in SMALL_CUBES:
        raise UsageError(
            f"--on: {text}: no such slice can be had; {name} has {', '.join(SMALL_CUBES)}, and "
            "larger ones of three sides that are multiples of 4"
        )
    if math.prod(sides) > MOST_CHIPS[name]:
        raise UsageError(
            f"--on: {text}: {math.prod(sides)} chips; the largest slice of {name} has "
            f"{MOST_CHIPS[name]}"
        )
    return sides


def _examples(name: str) -> str:
    return ", ".join(f"{name}:{s}" for s in (FLAT if name in ("v5e", "v6e") else SMALL_CUBES))


def _of_size(name: str, chips: int) -> str:
    """A slice of so many chips, or those that there are."""
    shapes = FLAT if name in ("v5e", "v6e") else SMALL_CUBES
    for shape in shapes:
        if math.prod(map(int, shape.split("x"))) == chips:
            return f"{name}:{shape}"
    return f"none that is listed; give {_examples(name)}"


def _this_cpu() -> Chip:
    """This machine's memory; a processor has no data sheet that tells a floor."""
    memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    nothing = math.inf
    return Chip("cpu", "cpu", "this machine's CPU", {}, memory, nothing, nothing, nothing, 1)


def missing_extra(target: Target) -> str:
    """The extra whose compiler is not installed here.

    Args:
        target: the devices that are planned for.

    Returns:
        Its name; empty if it is installed.

    Example:
        >>> missing_extra(parse("cpu"))
        ''
    """
    modules = EXTRAS.get(target.chip.kind, ())
    return "" if all(map(_is_installed, modules)) else target.chip.kind


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it would be in
        return False


def environment(target: Target) -> dict[str, str]:
    """Variables of a process that compiles for the devices; its JAX sees none but the CPU.

    Args:
        target: which devices.

    Returns:
        All variables that it needs beside those of this process.
    """
    flags = [
        flag
        for flag in os.environ.get("XLA_FLAGS", "").split()
        if "xla_force_host_platform_device_count" not in flag
    ]
    if target.chip.kind == "cpu":
        flags.append(f"--xla_force_host_platform_device_count={target.chips}")
    if target.chip.kind == "cuda":
        # No GPU is there to time kernels on; `fairgrape run` asks for one order of sums.
        flags = [f for f in flags if not f.startswith("--xla_gpu_autotune_level")]
        flags.append("--xla_gpu_autotune_level=0")
        if not any("xla_gpu_deterministic_ops" in flag for flag in flags):
            flags.append("--xla_gpu_deterministic_ops=true")
    return {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": " ".join(flags),
        # libtpu would ask a metadata server of Google's cloud what machine this is.
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "TPU_WORKER_HOSTNAMES": "localhost",
        # Its lock keeps two processes from one chip; here is none.
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }


def abstract_devices(target: Target) -> list[Any]:
    """JAX's devices for which programs can be compiled; real ones for a CPU.

    It must run in a process with the variables of `environment`.

    Args:
        target: the devices that are planned for.

    Returns:
        The devices.

    Raises:
        RuntimeError: where the compiler has another number of devices than the slice.
    """
    import jax
    from jax.experimental import topologies

    kind = target.chip.kind
    if kind == "cpu":
        return jax.devices("cpu")[: target.chips]
    options: dict[str, Any] = {}
    if kind == "tpu":
        shape = "x".join(map(str, target.sides))
        options = {"platform": "tpu", "topology_name": f"{target.chip.name}:{shape}"}
        if target.chip.name == "v4":
            options["chip_config_name"] = "megacore"
        if target.chips == 1:
            options["chips_per_host_bounds"] = (1, 1, 1)
    else:
        each = min(target.chips, target.chip.per_host)
        options = {"platform": "cuda", "topology_name": target.name}
        options |= {"topology": f"1x{target.hosts}x{each}", "target_config": gpu_config(target)}
    devices = list(topologies.get_topology_desc(**options).devices)
    if len(devices) != target.chips:
        raise RuntimeError(f"{target.name}: the compiler has {len(devices)} devices for it")
    return devices


# What the compiler asks of a GPU beside its data sheet: multiprocessors, clock in GHz, L2 cache,
# shared memory of a multiprocessor and of a block, cores of a multiprocessor, compute capability.
GPUS: dict[str, tuple[int, float, int, int, int, int, str]] = {
    "a100": (108, 1.41, 41943040, 167936, 166912, 64, "major: 8"),
    "h100": (132, 1.98, 52428800, 233472, 232448, 128, "major: 9"),
    "h200": (132, 1.98, 52428800, 233472, 232448, 128, "major: 9"),
    "b200": (148, 1.965, 132644864, 233472, 232448, 128, "major: 10"),
}


def gpu_config(target: Target) -> str:
    """XLA's description of a GPU, a GpuTargetConfigProto as text.

    Args:
        target: the devices that are planned for.

    Returns:
        The text.
    """
    chip = target.chip
    cores, clock, cache, shared, optin, units, capability = GPUS[chip.name]
    fields = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "threads_per_core_limit": 2048,
        "shared_memory_per_block": 49152,
        "shared_memory_per_core": shared,
        "shared_memory_per_block_optin": optin,
        "core_count": cores,
        "fpus_per_core": units,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 65535,
        "block_dim_limit_z": 65535,
        "memory_bandwidth": int(chip.bandwidth),
        "l2_cache_size": cache,
        "clock_rate_ghz": clock,
        "device_memory_size": int(chip.memory),
        "registers_per_core_limit": 65536,
        "registers_per_block_limit": 65536,
    }
    text = " ".join(f"{name}: {value}" for name, value in fields.items())
    return (
        f"gpu_device_info {{ {text} cuda_compute_capability {{ {capability} }} }} "
        'platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 } '
        f'runtime_version {{ major: 12 minor: 8 }} device_description_str: "{chip.title}"'
    )


__all__ = ["GIB", "Target", "abstract_devices", "environment", "missing_extra", "parse"]
