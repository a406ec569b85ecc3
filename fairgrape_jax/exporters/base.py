"""What an exporter sees of a network, what a row of their table holds, the names of leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fairgrape_jax.errors import UsageError
from fairgrape_jax.masks import Tree, map_masked, native

Function = Callable[[np.ndarray], np.ndarray]  # inputs (N, ...) to outputs (N, K)


@dataclasses.dataclass(frozen=True)
class Model:
    """A network to export.

    Attributes:
        name: Its row of the table of models; "" for a network of the user's.
        variables: All of its arrays, NumPy's, zero where pruned.
        masks: In the structure of `variables`: bool arrays, None where nothing is pruned.
        apply: (variables, inputs) to outputs; None where only weights are exported.
        inputs: (N, ...) what it is tried on, (0, ...) for nothing; a program is made for this shape
            and type but any N.
        config: Plain values that say how it is used; config.json of the export.
        card: The text of the model card.
        tolerance: By how much the outputs of a program may differ from the network's, over the
            largest.
        narrow: (variables of fewer channels) to the network's function of such; None where `apply`
            is a function of the user's.
        is_whole: Whether its arrays have the shapes that the network's code says.
    """

    name: str
    variables: Tree
    masks: Tree
    apply: Callable[[Tree, Any], Any] | None
    inputs: np.ndarray
    config: Mapping[str, Any]
    card: str
    tolerance: float = 1e-4
    narrow: Callable[[Tree], Callable[[Tree, Any], Any]] | None = None
    is_whole: bool = True

    def function(self, variables: Tree | None = None) -> Function:
        """The network as a function of its inputs, compiled.

        Args:
            variables: Others of the same structure; its own if None.
        """
        apply = self.apply
        if apply is None:
            raise UsageError("export: give apply=, a function of (params, inputs), for a program")
        held, jitted = self.variables if variables is None else variables, jax.jit(apply)
        return lambda inputs: np.asarray(jitted(held, inputs))


@dataclasses.dataclass(frozen=True)
class Options:
    """What the user may choose of an export.

    Attributes:
        values: Of sparse storage: exact, or float16 for the weights of pruned layers.
        batch: Of a program: its batch, 0 for any.
    """

    values: str = "exact"
    batch: int = 0


@dataclasses.dataclass(frozen=True)
class Exporter:
    """A row of the table of exporters.

    Attributes:
        summary: A line for the list.
        write: (model, folder, options): writes its files to a folder that is there.
        read: (model, folder): what the files hold, for the check: variables, or a program as a
            function of inputs. Of the model it uses the structure of the variables, no number.
        check: (model): UsageError where it cannot be exported so, before anything is computed.
        program: Whether the files are a program, for which `model.apply` is needed.
        stored: (model, options): the variables as the files hold them, where not exactly.
        report: (model, folder): lines on the files, such as their sizes.
    """

    summary: str
    write: Callable[[Model, Path, Options], None]
    read: Callable[[Model, Path], Any]
    check: Callable[[Model], None] = lambda model: None
    program: bool = False
    stored: Callable[[Model, Options], Tree] = lambda model, options: model.variables
    report: Callable[[Model, Path], list[str]] = lambda model, folder: []


def largest_difference(outputs: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference of two arrays of outputs, over the largest of those expected.

    Args:
        outputs: of one network.
        expected: of the other, of the same shape.

    Example:
        >>> largest_difference(np.array([1.0, 3.0]), np.array([1.0, 4.0]))
        0.25
    """
    return float(np.abs(outputs - expected).max() / max(np.abs(expected).max(), 1e-30))


def leaves(tree: Tree) -> dict[str, np.ndarray]:
    """The arrays of a tree by name, in its order; leaves that are no arrays are left out.

    A name is the path of the leaf, like params/conv1/kernel.

    Args:
        tree: Nested containers of arrays.

    Returns:
        The arrays by name.

    Raises:
        UsageError: Two leaves have one name.

    Example:
        >>> list(leaves({"conv": {"kernel": np.ones((1, 2))}, "scales": [np.ones(2), None]}))
        ['conv/kernel', 'scales/0']
    """
    named: dict[str, np.ndarray] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if not is_array(leaf):
            continue
        name = leaf_name(path)
        if name in named:
            raise UsageError(f"export: two leaves are called {name!r}: rename one")
        named[name] = native(jax.device_get(leaf))
    return named


def leaf_name(path: tuple[Any, ...]) -> str:
    """The name of the leaf at a path.

    Args:
        path: The keys of the leaf, as jax.tree_util gives them.

    Returns:
        The name.
    """
    return jax.tree_util.keystr(path, simple=True, separator="/") or "params"


def is_array(leaf: Any) -> bool:
    """Whether a leaf of a tree is an array.

    Args:
        leaf: Of a tree.

    Returns:
        True for NumPy's and JAX's arrays; functions and plain values are none.
    """
    return isinstance(leaf, np.ndarray | np.generic | jax.Array)


def mask_leaves(model: Model) -> dict[str, np.ndarray]:
    """The masks of a model.

    Args:
        model: What is exported.

    Returns:
        Bool arrays by the names of the leaves that they are of.
    """
    named: dict[str, np.ndarray] = {}

    def note(mask: Any, name: Any) -> None:
        if mask is not None:
            named[name] = np.asarray(mask, bool)

    map_masked(note, model.masks, _names(model.variables))
    return named


def _names(tree: Tree) -> Tree:
    return jax.tree_util.tree_map_with_path(lambda path, _: leaf_name(path), tree)


def with_leaves(tree: Tree, arrays: Mapping[str, np.ndarray]) -> Tree:
    """A tree with other arrays, by name.

    Args:
        tree: Nested containers of arrays.
        arrays: The new ones by name.

    Returns:
        The tree with these arrays.

    Raises:
        UsageError: A name is missing or extra, or an array is of another shape or type.

    Example:
        >>> with_leaves({"w": np.ones(2)}, {"w": np.zeros(2)})
        {'w': array([0., 0.])}
    """
    expected = leaves(tree)
    if wrong := sorted(expected.keys() ^ arrays.keys()):
        which = "missing" if wrong[0] in expected else "not of the network"
        raise UsageError(f"{wrong[0]!r} is {which}")
    for name, leaf in expected.items():
        if (leaf.shape, leaf.dtype) != (arrays[name].shape, arrays[name].dtype):
            raise UsageError(
                f"{name!r} is {arrays[name].dtype}{list(arrays[name].shape)}, not "
                f"{leaf.dtype}{list(leaf.shape)}"
            )
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: arrays[leaf_name(path)] if is_array(leaf) else leaf, tree
    )
