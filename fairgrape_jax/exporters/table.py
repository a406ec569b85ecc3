"""The table of exporters: a new format is a file of its own, and a row here."""

from __future__ import annotations

from fairgrape_jax.exporters import (
    arrays,
    huggingface,
    onnx,
    sparse_exporter,
    stablehlo,
    torchvision,
)
from fairgrape_jax.exporters.base import Exporter

EXPORTERS: dict[str, Exporter] = {
    "torchvision": torchvision.EXPORTER,
    "timm": torchvision.TIMM_EXPORTER,
    "safetensors": arrays.SAFETENSORS_EXPORTER,
    "stablehlo": stablehlo.EXPORTER,
    "onnx": onnx.EXPORTER,
    "npz": arrays.NPZ_EXPORTER,
    "hf": huggingface.EXPORTER,
    "masks": arrays.MASKS_EXPORTER,
    "sparse": sparse_exporter.EXPORTER,
}
