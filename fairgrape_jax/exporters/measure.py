"""What a network costs here: parameters, bytes, operations, time of a call, memory.

The zeros of a pruned network save bytes in sparse storage alone: its operations and its time are
those of the dense network, and the table shows it. Channels that are pruned as wholes can be left
out, and then all of it falls.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from rich.filesize import decimal

from fairgrape_jax import models, storage
from fairgrape_jax.config.serialize import Input
from fairgrape_jax.data import augment
from fairgrape_jax.errors import UsageError
from fairgrape_jax.exporters.base import largest_difference, leaves
from fairgrape_jax.exporters.shrunk import StaysWholeError, cut
from fairgrape_jax.exporters.sparse import encode, sizes
from fairgrape_jax.exporters.stage import find_stage
from fairgrape_jax.masks import Tree
from fairgrape_jax.reports.results import COST
from fairgrape_jax.runner import layout
from fairgrape_jax.runner.stage import LoadedStage
from fairgrape_jax.systems.stripped import strip_network

Form = Literal["as it is", "shrunk", "over its stripes"]
BATCHES = (1, 64)
TOLERANCE = 1e-4  # of the largest logit: sums of another order, over tens of layers
SIMULATED = (
    "quantised networks are simulated in floating point: their bytes, operations and times are not "
    "those of whole numbers of so many bits"
)


@dataclasses.dataclass(frozen=True)
class Call:
    """What one call of a network on so many pictures costs on this machine.

    Attributes:
        batch: Pictures.
        flops: Floating point operations, counted on the program before XLA optimises it.
        milliseconds: The median of the timed calls, and the quartiles around it.
        memory: The bytes of parameters, pictures, logits and what the program needs in between.
    """

    batch: int
    flops: float
    milliseconds: tuple[float, float, float]
    memory: int


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a network costs.

    Attributes:
        name: Of its stage.
        parameters: Numbers that are trained.
        nonzeros: Those of them that are not zero.
        bytes: All arrays as they are, in sparse storage, and in a zip.
        calls: One for each of BATCHES.
        device: The machine.
        form: As it is, or without what was pruned as a whole.
        quantised: By how many bits, in words; "" for float32.
        difference: Of another form: the largest difference of its logits from those of the network
            as it is, over the largest logit, on as many random pictures as the last of BATCHES.
    """

    name: str
    parameters: int
    nonzeros: int
    bytes: tuple[int, int, int]
    calls: tuple[Call, ...]
    device: str
    form: Form = "as it is"
    quantised: str = ""
    difference: float | None = None


def measure(path: Path, repeats: int = 20, *, form: Form = "as it is") -> Cost:
    """Measure a finished stage of a run on this machine; its dataset is not needed.

    Args:
        path: RUN or RUN/STAGE.
        repeats: Calls that are timed for each of BATCHES, after one that is not.
        form: As it is, "shrunk": without the channels that are pruned as a whole, or "over its
            stripes": as shifted 1x1 convolutions of those that are left.

    Raises:
        StaysWholeError: No channel, or stripe, of it is pruned as a whole.
        UsageError: There is no such stage, it does not know the shape of its pictures, or the other
            form has other logits.
    """
    _check(repeats)
    _, stage = find_stage(path)
    if stage.input is None:
        raise UsageError(
            f"{path}: the run was begun by an earlier version, which did not write down the shape "
            "of its pictures: measure one of this version"
        )
    whole = jax.device_get(dict(stage.variables))
    variables, kept, apply, difference = whole, {"params": stage.masks}, stage.module.apply, None
    if form == "shrunk":
        variables, kept, apply = _shrunk(path, stage, whole)
    if form == "over its stripes":
        variables, kept, apply = _stripped(path, stage, whole)
    if form != "as it is":
        logits, others = (
            _logits(stage.input, function, arrays)
            for function, arrays in ((stage.module.apply, whole), (apply, variables))
        )
        difference = largest_difference(others, logits)
        if not difference <= TOLERANCE:
            raise UsageError(
                f"{path}: {form} it gives other logits, by {difference:.1e} of the largest; this "
                "is an error of the program: please report it with the network"
            )
    cost = _cost(stage.name, variables, kept, apply, stage.input, repeats=repeats)
    quantised = str(stage.bits or "")
    return dataclasses.replace(cost, form=form, quantised=quantised, difference=difference)


def measure_model(name: str, repeats: int = 20, *, size: int = 64, classes: int = 2) -> Cost:
    """Measure a network of the table of models on this machine, with drawn weights.

    Args:
        name: A row of `fairgrape list`.
        repeats: Calls that are timed for each of BATCHES, after one that is not.
        size: Of the pictures, in pixels, of three colours.
        classes: Of its last layer.

    Raises:
        UsageError: There is no such model, or a number is less than 1.
    """
    _check(repeats)
    if size < 1 or classes < 1:
        raise UsageError("--size and --classes are 1 or more")
    module, shape = models.create(name, classes), (size, size, 3)
    try:
        variables = jax.jit(module.init)(jax.random.key(0), np.zeros((1, *shape), np.float32))
    except (TypeError, ValueError, ZeroDivisionError) as error:
        line = " ".join(str(error).split())[:200]
        raise UsageError(f"{name}: takes no pictures of {size} pixels ({line})") from error
    pictures: Input = {"shape": list(shape), "mean": [0.5] * 3, "std": [0.25] * 3}
    return _cost(name, jax.device_get(variables), {}, module.apply, pictures, repeats=repeats)


def _check(repeats: int) -> None:
    if repeats < 1:
        raise UsageError("--repeats is 1 or more")


def _cost(
    name: str,
    variables: Tree,
    kept: Tree,
    apply: Callable[..., Any],
    pictures: Input,
    *,
    repeats: int,
) -> Cost:
    """The cost of a network, from its arrays, its masks and its function."""
    masks = {mask: np.asarray(alive, bool) for mask, alive in leaves(kept).items()}
    took = sizes(encode(leaves(variables), masks))
    params = leaves({name: variables[name] for name in ("params", "stripes") if name in variables})
    return Cost(
        name=name,
        parameters=sum(leaf.size for leaf in params.values()),
        nonzeros=sum(int(np.count_nonzero(leaf)) for leaf in params.values()),
        bytes=(took.dense, took.file, took.zipped),
        calls=tuple(_call(pictures, apply, variables, batch, repeats) for batch in BATCHES),
        device=jax.devices()[0].device_kind,
    )


def _shrunk(
    path: Path, stage: LoadedStage, variables: Tree
) -> tuple[Tree, Tree, Callable[..., Any]]:
    """Variables, masks and function of a network without its pruned channels."""
    assert stage.input is not None
    picture = jax.ShapeDtypeStruct((1, *stage.input["shape"]), np.float32)
    masks = {name: jax.tree.map(lambda _: None, tree) for name, tree in variables.items()}
    masks["params"] = stage.masks
    small, kept = cut(stage.module.apply, variables, masks, picture, str(path))
    return small.params, kept, small.function(lambda v, x: stage.module.apply(v, x))


def _stripped(
    path: Path, stage: LoadedStage, variables: Tree
) -> tuple[Tree, Tree, Callable[..., Any]]:
    """Variables, masks (none) and function of a network over the stripes that are left."""
    assert stage.input is not None
    picture = jax.ShapeDtypeStruct((1, *stage.input["shape"]), np.float32)
    stripped = strip_network(stage.module, variables, stage.masks, picture)
    if not stripped.layers:
        raise StaysWholeError(
            f"{path}: no stripe of it is cut as a whole, so it stays as it is; a run of stripes, "
            "stripes-fair or swp cuts them"
        )
    return stripped.variables, {}, stripped.apply


def save(path: Path, cost: Cost) -> Path:
    """Store what was measured with its stage, for the reports of its run.

    Args:
        path: RUN or RUN/STAGE, as it was measured.
        cost: What it costs.

    Returns:
        The file.
    """
    run = layout.find_run(path.absolute())
    assert run is not None  # it was measured
    first = cost.calls[0]
    file = run / cost.name / COST
    of_one = {"flops": first.flops, "milliseconds": first.milliseconds[0]}
    storage.write_checksummed(file, {"bytes_sparse": cost.bytes[1], **of_one})
    return file


def _on_pictures(
    pictures_of: Input, network: Callable[..., Any], variables: Tree, batch: int
) -> tuple[jax.stages.Wrapped, Tree, jax.Array]:
    """A network's function of bytes, its arrays and random pictures, both on the device."""
    shape, mean, std = (pictures_of[key] for key in ("shape", "mean", "std"))

    def apply(variables: Tree, images: jax.Array) -> Any:
        return network(variables, augment.normalise(images, mean, std))

    images = np.random.default_rng(0).integers(0, 256, (batch, *shape), np.uint8)
    return jax.jit(apply), *jax.device_put((variables, images))


def _logits(pictures_of: Input, network: Callable[..., Any], variables: Tree) -> np.ndarray:
    apply, held, pictures = _on_pictures(pictures_of, network, variables, BATCHES[-1])
    return np.asarray(apply(held, pictures), np.float64)


def _call(
    pictures_of: Input, network: Callable[..., Any], variables: Tree, batch: int, repeats: int
) -> Call:
    apply, held, pictures = _on_pictures(pictures_of, network, variables, batch)
    lowered = apply.lower(held, pictures)
    compiled = lowered.compile()
    seconds = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        jax.block_until_ready(compiled(held, pictures))
        seconds.append(time.perf_counter() - begun)
    low, median, high = np.quantile(seconds[1:], (0.25, 0.5, 0.75)) * 1e3
    counted: Any = lowered.cost_analysis()
    needs: Any = compiled.memory_analysis()
    memory = needs.argument_size_in_bytes + needs.output_size_in_bytes + needs.temp_size_in_bytes
    flops = float((counted or {}).get("flops", float("nan")))
    return Call(batch, flops, (float(median), float(low), float(high)), int(memory))


def table(costs: Sequence[Cost]) -> str:
    """What networks cost, a column for each.

    Args:
        costs: Of the networks.

    Returns:
        Aligned lines.
    """
    rows: dict[str, list[str]] = {
        "": [cost.name + ("" if cost.form == "as it is" else f", {cost.form}") for cost in costs]
    }
    rows["parameters"] = [f"{cost.parameters:,}" for cost in costs]
    rows["not zero"] = [f"{cost.nonzeros:,}" for cost in costs]
    if any(cost.quantised for cost in costs):
        rows["quantised"] = [cost.quantised or "no" for cost in costs]
    for place, what in enumerate(("dense", "sparse", "zipped")):
        rows[f"bytes, {what}"] = [decimal(cost.bytes[place]) for cost in costs]
    for place, batch in enumerate(BATCHES):
        calls = [cost.calls[place] for cost in costs]
        rows[f"batch {batch}: million operations"] = [f"{call.flops / 1e6:,.1f}" for call in calls]
        rows[f"batch {batch}: ms, median [quartiles]"] = [
            "{:.2f} [{:.2f}, {:.2f}]".format(*call.milliseconds) for call in calls
        ]
        rows[f"batch {batch}: memory"] = [decimal(call.memory) for call in calls]
    if any(cost.difference is not None for cost in costs):
        values = ["" if cost.difference is None else f"{cost.difference:.0e}" for cost in costs]
        rows["logits differ by, of the largest"] = values
    widths = [max(len(row[i]) for row in rows.values()) for i in range(len(costs))]
    first = max(map(len, rows))
    lines = [
        f"{name:<{first}}  " + "  ".join(f"{c:>{w}}" for c, w in zip(row, widths, strict=True))
        for name, row in rows.items()
    ]
    if any(cost.quantised for cost in costs):
        lines.append(SIMULATED)
    return "\n".join(
        [*lines, f"on {costs[0].device}; other work on this machine makes times longer"]
    )
