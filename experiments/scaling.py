"""Scaling on paper: compute, memory and communication of a step and of a round, on many chips.

Command:  python -m experiments.scaling
Prints the tables of docs/scaling.md, which says what the columns mean; a test compares the two.
Nothing here was measured by us: the chip's figures are its vendor's, see CHIP.
"""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Network:
    """Counts: parameters, prunable weights, multiply-adds and convolution outputs of an image."""

    parameters: int
    weights: int
    multiplications: int
    outputs: int


@dataclasses.dataclass(frozen=True)
class Chip:
    """What its vendor states, in operations, bytes and seconds.

    near, far: all-reduce bandwidth of one chip, in one direction, among the chips of a host and
    between hosts. utilisation: operations of the network per second, over the peak.
    """

    name: str
    peak: float
    utilisation: float
    memory: float
    memory_bandwidth: float
    near: float
    far: float
    per_host: int
    to_host: float

    @property
    def speed(self) -> float:
        """Operations of a network per second."""
        return self.peak * self.utilisation


# NVIDIA's data sheets of the A100 80GB SXM and the DGX A100: 312 TFLOP/s bfloat16, 80 GB at
# 2.039 TB/s, NVLink 600 GB/s in both directions together, eight 200 Gbit/s adapters for eight
# chips, PCIe 4.0 x16. Utilisation: NVIDIA's 2,711 images/s of ResNet-50 v1.5 in mixed precision on
# one A100 (DeepLearningExamples, PaddlePaddle/Classification/RN50v1.5) times 24.5 GFLOP an image.
CHIP = Chip(
    name="A100 80GB",
    peak=312e12,
    utilisation=0.213,
    memory=80e9,
    memory_bandwidth=2.039e12,
    near=300e9,
    far=25e9,
    per_host=8,
    to_host=32e9,
)
IMAGES = 1_281_167  # ImageNet-1k's training pictures
FRACTION = 0.2  # of them are scored in a round
BATCH = 64  # pictures a chip and step, and of a micro-batch


def resnet50(size: int = 224, classes: int = 1000) -> Network:
    """ResNet-50, counted layer by layer.

    >>> resnet50().parameters, resnet50().multiplications // 10**6
    (25557032, 4089)
    """
    side = math.ceil(size / 2)
    layers = [(7, 3, 64, side)]  # kernel, inputs, outputs, side of the result
    side, inputs = math.ceil(side / 2), 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width = 64 << stage
        for block in range(blocks):
            before = side
            if stage > 0 and block == 0:
                side = math.ceil(side / 2)
            layers += [(1, inputs, width, before), (3, width, width, side)]
            layers += [(1, width, 4 * width, side)]
            if block == 0:
                layers += [(1, inputs, 4 * width, side)]
            inputs = 4 * width
    convolutions = sum(k * k * i * o for k, i, o, _ in layers)
    norms = sum(2 * o for _, _, o, _ in layers)
    head = inputs * classes
    return Network(
        parameters=convolutions + norms + head + classes,
        weights=convolutions + head,
        multiplications=sum(k * k * i * o * s * s for k, i, o, s in layers) + head,
        outputs=sum(o * s * s for _, _, o, s in layers),
    )


def all_reduce(chip: Chip, chips: int, size: float) -> float:
    """Seconds to add up `size` bytes of every chip, around a ring."""
    bandwidth = chip.near if chips <= chip.per_host else chip.far
    return 2 * (chips - 1) / chips * size / bandwidth


def gradient(network: Network, chip: Chip, images: float) -> float:
    """Seconds for the gradient of `images` on one chip: three forward passes' operations."""
    return 3 * 2 * network.multiplications * images / chip.speed


def training_row(network: Network, chip: Chip, chips: int) -> dict[str, str]:
    """A training step of BATCH images a chip, and an epoch of them, nothing overlapped."""
    compute = gradient(network, chip, BATCH)
    exchange = all_reduce(chip, chips, 4 * network.parameters)
    epoch = IMAGES / (BATCH * chips) * (compute + exchange)
    return {
        "chips": f"{chips}",
        "images a step": f"{BATCH * chips:,}",
        "gradient, ms": f"{1e3 * compute:.1f}",
        "all-reduce, ms": f"{1e3 * exchange:.1f}",
        "epoch, s": f"{epoch:.1f}",
        "memory a chip, GB": f"{training_memory(network) / 1e9:.1f}",
    }


def training_memory(network: Network) -> float:
    """Bytes: parameters, gradient and two moments in float32, masks, activations in bfloat16.

    Of every convolution its result and its normalised result are kept for the backward pass.
    """
    return 16 * network.parameters + network.weights + 2 * 2 * network.outputs * BATCH


def scoring_row(network: Network, chip: Chip, chips: int, groups: int) -> dict[str, str]:
    """Importance of one round."""
    images = FRACTION * IMAGES / chips
    micro_batches = math.ceil(images / BATCH)
    compute = gradient(network, chip, images)
    # A weight's value, gradient, block and row are read, block and row written; a mask is a byte.
    sums = micro_batches * 25 * network.weights / chip.memory_bandwidth
    size = 4 * groups * network.weights
    official = groups * (compute + micro_batches * 4 * network.parameters / chip.to_host)
    return {
        "chips": f"{chips}",
        "groups": f"{groups}",
        "gradients, s": f"{compute:.2f}",
        "adding up, s": f"{sums:.2f}",
        "all-reduce, s": f"{all_reduce(chip, chips, size):.3f}",
        "to the host, s": f"{size / chip.to_host:.3f}",
        "sums a chip, GB": f"{size / 1e9:.2f}",
        "sharded, GB": f"{size / groups * math.ceil(groups / chips) / 1e9:.2f}",
        "G passes with copies, s": f"{official:.1f}",
    }


def markdown(rows: list[dict[str, str]]) -> str:
    """Rows of equal keys as a table."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *[list(row.values()) for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def tables() -> str:
    """Both tables of docs/scaling.md."""
    network, sizes = resnet50(), (8, 64, 512)
    return (
        f"ResNet-50: {network.parameters:,} parameters, {network.weights:,} of them prunable, "
        f"{network.multiplications / 1e9:.2f} G multiply-adds an image.\n\n"
        "Training\n\n"
        + markdown([training_row(network, CHIP, chips) for chips in sizes])
        + "\n\nImportance, once a round\n\n"
        + markdown([scoring_row(network, CHIP, c, groups) for groups in (2, 14) for c in sizes])
    )


if __name__ == "__main__":
    print(tables())
