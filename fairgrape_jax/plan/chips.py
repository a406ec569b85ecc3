"""Data sheets of accelerators: peak speed, memory, and the links between chips."""

from __future__ import annotations

import dataclasses
from typing import Literal

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """What the vendor states of one chip, in operations, bytes and seconds.

    Attributes:
        name: as `--on` takes it.
        kind: "tpu", "cuda" or "cpu": whose compiler makes its programs.
        title: as people call it.
        peak: operations a second of its matrix units, by the precision of an experiment.
            "float32" is what JAX makes of it by default there: bfloat16 passes on a TPU, TF32 on a
            GPU.
        memory: bytes.
        usable: the part of the memory that JAX takes by default.
        bandwidth: bytes a second from and to memory.
        link: bytes a second that a chip sends to the chips of its slice or host, in one direction,
            over all of its links together.
        far: the same to chips of other hosts; a TPU's slice is one network.
        per_host: chips of a host with several hosts.
    """

    name: str
    kind: Literal["tpu", "cuda", "cpu"]
    title: str
    peak: dict[str, float]
    memory: float
    bandwidth: float
    link: float
    far: float
    per_host: int
    usable: float = 1.0


def _tpu(
    name: str, title: str, *, peak: float, memory: float, bandwidth: float, link: float
) -> Chip:
    # The default precision of a product of float32 is one pass of bfloat16.
    both = {"bfloat16": peak, "float32": peak}
    return Chip(name, "tpu", title, both, memory, bandwidth, link, link, 4)


def _gpu(
    name: str,
    title: str,
    *,
    peaks: tuple[float, float],
    memory: float,
    bandwidth: float,
    links: tuple[float, float],
) -> Chip:
    both = {"bfloat16": peaks[0], "float32": peaks[1]}
    # JAX takes three quarters of a GPU's memory unless XLA_PYTHON_CLIENT_MEM_FRACTION says else.
    return Chip(name, "cuda", title, both, memory, bandwidth, *links, 8, usable=0.75)


# TPUs: Google Cloud's pages "TPU v4", "v5e", "v5p", "v6e" (peak a chip in bfloat16, HBM capacity
# and bandwidth, and interchip bandwidth a chip, 2,400, 1,600, 4,800 and 3,584 Gbit/s, which counts
# the links of a chip in one direction). GPUs: NVIDIA's data sheets of the A100 80GB SXM, H100 SXM,
# H200 SXM and B200 (dense peaks of bfloat16 and TF32; half of the NVLink figure, which counts both
# directions; one adapter of 200 or 400 Gbit/s for each GPU of a DGX); memory as the driver tells.
CHIPS: dict[str, Chip] = {
    chip.name: chip
    for chip in (
        _tpu("v4", "TPU v4", peak=275e12, memory=32 * GIB, bandwidth=1.228e12, link=300e9),
        _tpu("v5e", "TPU v5e", peak=197e12, memory=16 * GIB, bandwidth=0.819e12, link=200e9),
        _tpu("v5p", "TPU v5p", peak=459e12, memory=95 * GIB, bandwidth=2.765e12, link=600e9),
        _tpu("v6e", "TPU v6e", peak=918e12, memory=32 * GIB, bandwidth=1.640e12, link=448e9),
        _gpu(
            "a100",
            "A100 80GB",
            peaks=(312e12, 156e12),
            memory=85.1e9,
            bandwidth=2.039e12,
            links=(300e9, 25e9),
        ),
        _gpu(
            "h100",
            "H100 80GB",
            peaks=(989.4e12, 494.7e12),
            memory=84.94e9,
            bandwidth=3.352e12,
            links=(450e9, 50e9),
        ),
        _gpu(
            "h200",
            "H200 141GB",
            peaks=(989.4e12, 494.7e12),
            memory=151.4e9,
            bandwidth=4.8e12,
            links=(450e9, 50e9),
        ),
        _gpu(
            "b200",
            "B200",
            peaks=(2250e12, 1125e12),
            memory=191.5e9,
            bandwidth=7.672e12,
            links=(900e9, 50e9),
        ),
    )
}
