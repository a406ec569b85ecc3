"""Export a network to a folder: written beside it, read back, compared, and then put in place."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.filesize import decimal

from fairgrape_jax import storage
from fairgrape_jax.errors import UsageError
from fairgrape_jax.exporters import huggingface, stage
from fairgrape_jax.exporters.base import (
    Exporter,
    Function,
    Model,
    Options,
    largest_difference,
    leaves,
)
from fairgrape_jax.exporters.card import plain_card
from fairgrape_jax.exporters.shrunk import shrink_model
from fairgrape_jax.exporters.table import EXPORTERS
from fairgrape_jax.exporters.torchvision import fits, state_dict, timm_entries
from fairgrape_jax.masks import Tree, apply_masks, check_masks, density, map_masked
from fairgrape_jax.models.torchvision import NETWORKS
from fairgrape_jax.storage import files

PIECE = 64  # inputs of one call


@dataclasses.dataclass(frozen=True)
class Export:
    """What an export came to.

    Attributes:
        directory: The folder.
        sizes: The bytes of each file.
        samples: How many inputs the files were tried on after they were read back.
        largest: The largest difference of an output from the network's, over the largest output;
            NaN where none was computed.
        changed: Predictions that differ from those that the run wrote down; None without a run.
        lines: What the exporter says of its files.
    """

    directory: Path
    sizes: dict[str, int]
    samples: int
    largest: float
    changed: int | None
    lines: tuple[str, ...] = ()

    def __str__(self) -> str:
        """A line for each file, and one for what was compared."""
        rows = [f"{self.directory / name}: {decimal(size)}" for name, size in self.sizes.items()]
        tried = f"read back, and tried on {self.samples} inputs"
        if self.samples:
            tried += f": outputs within {self.largest:.1e} of the largest"
        if self.changed is not None:
            tried += f", {self.changed} predictions other than the run's"
        return "\n".join([*rows, *self.lines, tried])


def export(
    source: Any,
    out: str | Path = "",
    *,
    to: str,
    masks: Tree = None,
    apply: Callable[[Tree, Any], Any] | None = None,
    inputs: Any = None,
    name: str = "",
    card: str = "",
    samples: int = 256,
    values: str = "exact",
    batch: int = 0,
    shrink: bool = False,
) -> Export:
    """Write a pruned network in a form that others read; every file is read back and compared.

    Args:
        source: The path of a finished stage of a run, RUN or RUN/STAGE; or the parameters of a
            network of your own, any pytree of arrays.
        out: The folder to write, which must not be there; for a stage by default its name and
            the format's, in the current folder.
        to: A row of `EXPORTERS`: torchvision, timm, safetensors, stablehlo, onnx, npz, hf, masks,
            sparse.
        masks: Of your parameters: bool arrays, None where not prunable; they are applied.
        apply: Your network as a function of (params, inputs) to outputs; a program needs it.
        inputs: (N, ...) some inputs of it, to try what was written, and for their shape.
        name: Of your network, for the card; for torchvision and timm a row of `fairgrape list`.
        card: Text of a model card of your own, in Markdown.
        samples: How many samples of a stage's test split the files are tried on.
        values: Of sparse storage: "exact", or "float16" for the weights of pruned layers.
        batch: Of a program: its number of inputs, where it is to hold for one number alone.
        shrink: Leave out the channels that are pruned as wholes: a smaller dense network with equal
            outputs. Of your own network it needs masks=, apply= and inputs=.

    Returns:
        What was written and how it compares; it prints as lines.

    Raises:
        UsageError: Something is there already, or cannot be exported so, or what was read back is
            not what was written; nothing is left behind.
    """
    exporter = _exporter(to)
    if values not in ("exact", "float16"):
        raise UsageError(f"values: {values!r} is none of exact, float16")
    if samples < 1 or batch < 0:
        raise UsageError("samples is 1 or more, batch 0 or more")
    options = Options(values, batch)
    if isinstance(source, str | Path):
        path = storage.as_path(source)
        folder = _local(out) if str(out) else Path(_default_name(path, to))
        _check_free(folder)
        model, recorded = stage.read(path, samples)
    else:
        if not str(out):
            raise UsageError("export: name the folder to write, as the second argument")
        folder, recorded = _local(out), None
        _check_free(folder)
        model = own_model(source, masks=masks, apply=apply, inputs=inputs, name=name)
    if shrink:
        model = shrink_model(model)
    if card:
        model = dataclasses.replace(model, card=card)
    if exporter.program and (model.apply is None or not len(model.inputs)):
        raise UsageError(
            f"--to {to}: a program needs apply=, (params, inputs) to outputs, and some inputs="
        )
    exporter.check(model)
    with _new_folder(folder) as partial:
        exporter.write(model, partial, options)
        largest, outputs = _read_back(exporter, model, partial, options)
        changed = None if recorded is None else _changes(recorded, outputs, exact=values == "exact")
        lines = exporter.report(model, partial)
        _describe(exporter, model, partial, to=to, changed=changed, lines=lines)
    sizes = {p.name: p.stat().st_size for p in sorted(folder.iterdir())}
    return Export(folder, sizes, len(model.inputs), largest, changed, tuple(lines))


def own_model(
    params: Tree,
    *,
    masks: Tree = None,
    apply: Callable[[Tree, Any], Any] | None = None,
    inputs: Any = None,
    name: str = "",
) -> Model:
    """A network of the user's as a model to export.

    Args:
        params: The network's arrays.
        masks: Bool arrays of the prunable ones, None elsewhere.
        apply: (params, inputs) to outputs; None for a network that is exported as arrays alone.
        inputs: A batch that it is tried on.
        name: Of the network.

    Returns:
        The model.
    """
    if not leaves(params):
        raise UsageError("export: params hold no array")
    if inputs is not None and apply is None:
        raise UsageError("export: inputs= are for apply=, a function of (params, inputs)")
    if masks is None:
        masks = jax.tree.map(lambda _: None, params)
        share = None
    else:
        check_masks(masks, params)
        params, share = apply_masks(masks, params), density(masks)
    examples = np.zeros((0, 0)) if inputs is None else np.asarray(inputs)
    model = Model(
        name=name,
        variables=jax.tree.map(lambda x: np.asarray(x) if isinstance(x, jax.Array) else x, params),
        masks=map_masked(lambda mask: None if mask is None else np.asarray(mask), masks),
        apply=apply,
        inputs=examples,
        config={"model": name or None, "density": share},
        card=plain_card(name, share),
    )
    if not fits(model):
        return model
    classes = len(state_dict(model)[f"{NETWORKS[name].head}.weight"])
    shape = examples.shape[1:] if examples.ndim == 4 else None
    return dataclasses.replace(model, config={**model.config, **timm_entries(name, classes, shape)})


def _exporter(to: str) -> Exporter:
    if to not in EXPORTERS:
        raise UsageError(f"to: {to!r} is no format: choose one of {', '.join(EXPORTERS)}")
    return EXPORTERS[to]


def _default_name(path: Path, to: str) -> str:
    words = path.absolute().parts[1:]
    begin = next((i for i, word in enumerate(words) if word.startswith("seed_")), len(words))
    return "-".join([*words[max(begin - 1, 0) :], to])


def _local(out: str | Path) -> Path:
    return storage.require_local(storage.as_path(out), "an export")


def _check_free(folder: Path) -> None:
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder}: is there already; name another folder, or remove it")
    if not folder.absolute().parent.is_dir():
        raise UsageError(f"{folder.absolute().parent}: no such folder to write {folder.name} to")


@contextlib.contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write to, which is at `folder` whole or not at all."""
    partial = files.unique_sibling(folder, "partial")
    with storage.name_path_in_errors(folder):
        partial.mkdir()
        try:
            yield partial
            _check_free(folder)
            partial.rename(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def _read_back(
    exporter: Exporter, model: Model, folder: Path, options: Options
) -> tuple[float, np.ndarray]:
    """Compare what was written with the network; the largest difference, and all outputs."""
    expected, read = exporter.stored(model, options), exporter.read(model, folder)
    if not exporter.program:
        _compare_arrays(leaves(expected), leaves(read))
    if model.apply is None or not len(model.inputs):
        return float("nan"), np.zeros((0, 0))
    function = read if exporter.program else model.function(read)
    outputs = _in_pieces(function, model.inputs, options.batch)
    if exporter.program and not options.batch:
        _try_other_numbers(function, model.inputs, outputs, model.tolerance)
    reference = _in_pieces(model.function(expected), model.inputs, options.batch)
    if outputs.shape != reference.shape or not np.isfinite(outputs).all():
        fault = "not all finite" if outputs.shape == reference.shape else f"not {reference.shape}"
        raise UsageError(
            f"export: what was written gives outputs {outputs.shape} that are {fault}; nothing is "
            "kept of it"
        )
    largest = largest_difference(outputs, reference)
    if largest > model.tolerance:
        raise UsageError(
            f"export: what was written gives other outputs than the network, by {largest:.1e} of "
            f"the largest ({model.tolerance:.0e} is allowed); nothing is kept of it"
        )
    return largest, outputs


def _try_other_numbers(
    function: Function, inputs: np.ndarray, outputs: np.ndarray, tolerance: float
) -> None:
    """UsageError unless a program gives the same outputs for other numbers of inputs."""
    for count in [number for number in (1, 2, 5) if number != len(inputs)]:
        rows = np.arange(count) % len(inputs)
        why, again = "", np.zeros(0, np.float32)
        try:
            again = np.asarray(function(inputs[rows]), np.float32)
        except Exception as error:
            why = f": {' '.join(str(error).split())[:200]}"
        reference = outputs[rows]
        bound = tolerance * max(np.abs(reference).max(), 1e-30)
        if again.shape != reference.shape or not (np.abs(again - reference) <= bound).all():
            raise UsageError(
                f"export: the program does not hold for {count} inputs{why}; where the network is "
                "for one number of inputs alone, give it as --batch; nothing is kept of it"
            )


def _compare_arrays(expected: dict[str, np.ndarray], read: dict[str, np.ndarray]) -> None:
    for name in sorted(expected.keys() | read.keys()):
        if name not in expected or name not in read or not _same(expected[name], read[name]):
            raise UsageError(
                f"export: {name!r} is another array when it is read back; nothing is kept of it"
            )


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def _in_pieces(function: Function, inputs: np.ndarray, batch: int) -> np.ndarray:
    """All outputs, from calls of few inputs; of different numbers, unless one is asked for."""
    size = batch or PIECE
    pieces = []
    for begin in range(0, len(inputs), size):
        piece = inputs[begin : begin + size]
        lacking = size - len(piece) if batch else 0
        padded = np.concatenate([piece, np.repeat(piece[:1], lacking, axis=0)])
        pieces.append(np.asarray(function(padded), np.float32)[: len(piece)])
    return np.concatenate(pieces)


def _changes(recorded: stage.Recorded, outputs: np.ndarray, *, exact: bool) -> int:
    """How many predictions are other than the run's; UsageError where any is that may not be."""
    changed, difference = recorded.compare(outputs)
    if changed and exact:
        raise UsageError(
            f"export: {changed} of {len(outputs)} predictions are other than those that the run "
            f"wrote down (probabilities differ by up to {difference:.1e}); nothing is kept of it. "
            "Export on the kind of machine that the run was made on"
        )
    return changed


def _describe(
    exporter: Exporter,
    model: Model,
    folder: Path,
    *,
    to: str,
    changed: int | None,
    lines: list[str],
) -> None:
    """Write config.json and the model card."""
    compared = f"The files were read back and tried on {len(model.inputs)} inputs"
    if changed is not None:
        compared += f": {changed} predictions are other than those of the run"
    section = ["", "## Files", "", f"Format `{to}`: {exporter.summary}. {compared}.", ""]
    front = huggingface.front_matter(model) if to == "hf" else ""
    notes = [f"- {line}" for line in lines]
    text = front + model.card.rstrip("\n") + "\n" + "\n".join([*section, *notes]).rstrip() + "\n"
    storage.write_json(folder / "config.json", {"format": to, **model.config})
    storage.write_text(folder / "README.md", text)
