"""A folder as huggingface_hub expects it: safetensors, config.json, a model card.

The weights are under torchvision's keys where the network is one of its, or under timm's, which
reads all but MobileNet-V2; otherwise under the names of the network's leaves.
"""

from __future__ import annotations

from pathlib import Path

from fairgrape_jax import models
from fairgrape_jax.exporters.arrays import SAFETENSORS, check_safetensors, write_safetensors
from fairgrape_jax.exporters.base import Exporter, Model, Options, leaves, with_leaves
from fairgrape_jax.exporters.torchvision import fits, state_dict
from fairgrape_jax.masks import Tree
from fairgrape_jax.models import weights

FRONT_MATTER = """---
library_name: {library}
{pipeline}tags:
- pruning
- fairness
- fairgrape_jax
---
"""


def front_matter(model: Model) -> str:
    """What huggingface_hub reads of a model card.

    Args:
        model: What is exported.

    Returns:
        YAML between its rules.
    """
    library = "timm" if "architecture" in model.config and fits(model) else "jax"
    pipeline = "pipeline_tag: image-classification\n" if "tasks" in model.config else ""
    return FRONT_MATTER.format(library=library, pipeline=pipeline)


def _write(model: Model, folder: Path, options: Options) -> None:
    arrays = state_dict(model) if fits(model) else leaves(model.variables)
    write_safetensors(folder / SAFETENSORS, arrays)


def _read(model: Model, folder: Path) -> Tree:
    arrays = weights.read(folder / SAFETENSORS)
    if fits(model):
        return models.from_torchvision(model.name, arrays)
    return with_leaves(model.variables, arrays)


EXPORTER = Exporter(
    "a folder for the Hugging Face Hub: safetensors, config.json, model card",
    _write,
    _read,
    check_safetensors,
)
