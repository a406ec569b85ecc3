"""Make tests/golden/foreign_keys.npz: how timm and transformers name torchvision's networks.

    python tests/helpers/make_golden_keys.py    # with torch, timm and transformers

Of each network its keys and shapes, and its logits (12 classes) for two pictures with the weights
of the golden recipe, drawn by its own keys.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import timm
import torch
import transformers as hf

OUT = Path(__file__).parents[1] / "golden/foreign_keys.npz"
SEED, CLASSES = 3, 12


def networks():
    yield "timm.resnet18", timm.create_model("resnet18", num_classes=CLASSES)
    yield "timm.resnet50", timm.create_model("resnet50", num_classes=CLASSES)
    yield "timm.mobilenet_v2", timm.create_model("mobilenetv2_100", num_classes=CLASSES)
    basic = {"depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"}
    for name, options in (("resnet18", basic), ("resnet50", {})):
        config = hf.ResNetConfig(num_labels=CLASSES, **options)
        yield f"hf.{name}", hf.ResNetForImageClassification(config)
    config = hf.MobileNetV2Config(num_labels=CLASSES, tf_padding=False)
    yield "hf.mobilenet_v2", hf.MobileNetV2ForImageClassification(config)


def recipe_leaf(key, shape):
    rng = np.random.default_rng([SEED, zlib.crc32(key.encode())])
    if key.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape)
    if len(shape) > 1:
        return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
    if key.endswith("weight"):
        return rng.uniform(0.3, 0.9, shape)
    return rng.normal(0, 0.1, shape)


def main():
    images = np.random.default_rng(SEED).standard_normal((2, 3, 64, 64))
    saved = {}
    for name, network in networks():
        state = network.state_dict()
        for key, leaf in state.items():
            if not key.endswith("num_batches_tracked"):
                made = recipe_leaf(key, tuple(leaf.shape)).astype(np.float32)
                state[key] = torch.from_numpy(made)
        network.load_state_dict(state)
        with torch.no_grad():
            logits = network.double().eval()(torch.from_numpy(images))
        logits = getattr(logits, "logits", logits)
        saved[f"{name}.keys"] = np.array(list(state))
        shapes = [",".join(map(str, leaf.shape)) for leaf in state.values()]
        saved[f"{name}.shapes"] = np.array(shapes)
        saved[f"{name}.logits"] = logits.numpy()
    np.savez_compressed(OUT, **saved)


if __name__ == "__main__":
    main()
