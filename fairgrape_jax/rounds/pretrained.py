"""Where a run's pretrained weights come from: a file, ImageNet's by a word, an Orbax checkpoint."""

from __future__ import annotations

from fairgrape_jax import models
from fairgrape_jax.errors import UsageError
from fairgrape_jax.masks import Tree
from fairgrape_jax.models import weights
from fairgrape_jax.storage import as_path, checkpoint
from fairgrape_jax.systems.quantised import without_quantisers

IMAGENET = "imagenet"


def load_pretrained(name: str, source: str, variables: dict[str, Tree]) -> dict[str, Tree]:
    """A fresh network with pretrained weights.

    Args:
        name: The network, a row of the table of models.
        source: A file, as `models.weights.read` takes it; the folder of an Orbax checkpoint, or of
            a stage of a run; or "imagenet", for torchvision's file in the cache folder.
        variables: Those of the fresh network; as for `models.fit_pretrained`.

    Returns:
        A tree of the structure and the shapes of `variables`.

    Raises:
        UsageError: There are no such weights, or they do not fit the network.
    """
    path = weights.find_imagenet(name) if source == IMAGENET else as_path(source)
    if not path.is_dir():
        return models.load_pretrained(name, path, variables)
    try:
        tree = checkpoint.restore_foreign(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = " ".join(str(error).split())[:300]
        raise UsageError(
            f"{path}: a folder that holds no Orbax checkpoint ({why}): name the folder of one, or "
            "a file of weights"
        ) from error
    if isinstance(tree, dict):
        tree = without_quantisers(tree)  # a stage of a quantised run: its weights alone
    return models.fit_pretrained(name, tree, variables, path)
