"""A Linen network of other widths than its code says: what is left of one that was shrunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn
from flax.traverse_util import flatten_dict

from fairgrape_jax.errors import UsageError

LAYERS = (nn.Conv, nn.Dense)


class Narrow(nn.Module):
    """A network whose convolutions and dense layers have the widths of a table.

    Its variables are those of the network, without a level of their own. A convolution in groups
    keeps the channels of each group, and has fewer of them.

    Attributes:
        network: any Linen network that makes its layers by `flax.linen.Conv` and `Dense`.
        widths: the outputs of each layer, by its path.
    """

    network: nn.Module
    widths: tuple[tuple[str, int], ...]

    def setup(self) -> None:
        """Let the network's variables be this one's."""
        nn.share_scope(self, self.network)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """The network's outputs.

        Args:
            args: as the network takes them.
            options: likewise.
        """
        widths, depth = dict(self.widths), len(self.path)

        def intercept(
            call: Callable[..., Any], args: Any, options: Any, context: nn.module.InterceptorContext
        ) -> Any:
            layer = context.module
            width = widths.get("/".join(layer.path[depth:]))
            if context.method_name == "__call__" and width and isinstance(layer, LAYERS):
                _set_width(layer, width)
            return call(*args, **options)

        with nn.intercept_methods(intercept):
            return self.network(*args, **options)


def _set_width(layer: Any, width: int) -> None:
    # A module is frozen once it is made; this one is the call's own, made anew in each.
    if isinstance(layer, nn.Conv) and layer.feature_group_count > 1:
        groups = layer.feature_group_count * width // layer.features
        object.__setattr__(layer, "feature_group_count", groups)
    object.__setattr__(layer, "features", width)


def layer_widths(variables: Mapping[str, Any]) -> dict[str, int]:
    """The outputs of every convolution and dense layer, by its path.

    Args:
        variables: of a Linen network; "params" are looked at.

    Returns:
        Whole numbers, as JSON takes them.

    Example:
        >>> import numpy as np
        >>> layer_widths({"params": {"fc": {"kernel": np.ones((3, 2)), "bias": np.ones(2)}}})
        {'fc': 2}
    """
    leaves = flatten_dict(dict(variables["params"]))
    return {
        "/".join(path[:-1]): int(leaf.shape[-1])
        for path, leaf in leaves.items()
        if path[-1] == "kernel" and len(leaf.shape) > 1
    }


def narrow(module: nn.Module, widths: Mapping[str, int]) -> Narrow:
    """The Linen network of other widths, for parameters that `fg.shrink` has made smaller.

    Args:
        module: the network.
        widths: of its layers, as `layer_widths` gives them of the small variables; a layer without
            one stays as it is.

    Returns:
        A module, called as the network is, also in train mode.

    Raises:
        UsageError: a width that is no whole number of 1 or more, or no Linen module.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from fairgrape_jax import models
        >>> small = narrow(models.create("mlp", 10), {"fc1": 30, "fc2": 5})
        >>> variables = small.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
        >>> variables["params"]["fc2"]["kernel"].shape
        (30, 5)
    """
    if not isinstance(module, nn.Module):
        raise UsageError(f"a network of other widths is one of flax.linen, not {module!r:.60}")
    for name, width in widths.items():
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise UsageError(f"width of layer {name}: {width!r} is no whole number of 1 or more")
    return Narrow(module, tuple(sorted(widths.items())))
