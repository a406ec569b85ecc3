"""Make tests/golden/foreign_keys.npz: how timm and transformers name the networks, and logits.

    python tests/helpers/make_golden_keys.py    # with torch, torchvision, timm and transformers

Of each network its keys and shapes, and its logits (12 classes) for two pictures of some sizes with
the weights of the golden recipe, drawn by its own keys. `hf5` are the names that transformers 5 has
in memory, `hf` those of its files.
"""

from __future__ import annotations

import tempfile
import zlib
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
import transformers as hf

OUT = Path(__file__).parents[1] / "golden/foreign_keys.npz"
SEED, CLASSES = 3, 12
SMALL = {"logits": (64, 64)}
LARGE = {"logits224": (224, 224)}
SIZES = {
    "timm.vit_s_16": SMALL | LARGE | {"logits80x48": (80, 48), "logits28": (28, 28)},
    "timm.convnext_tiny": SMALL | LARGE | {"logits80x48": (80, 48), "logits32": (32, 32)},
    "hf.vit_s_16": LARGE,  # it interpolates positions otherwise than timm
    "hf5.vit_s_16": LARGE,
}


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
    options = {"dynamic_img_size": True, "dynamic_img_pad": True, "num_classes": CLASSES}
    yield "timm.vit_s_16", timm.create_model("vit_small_patch16_224", **options)
    yield "timm.convnext_tiny", timm.create_model("convnext_tiny", num_classes=CLASSES)
    yield "torchvision.convnext_tiny", torchvision.models.convnext_tiny(num_classes=CLASSES)
    yield (
        "hf.convnext_tiny",
        hf.ConvNextForImageClassification(hf.ConvNextConfig(num_labels=CLASSES)),
    )
    sizes = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
    for name in ("hf", "hf5"):
        config = hf.ViTConfig(num_labels=CLASSES, **sizes)
        yield f"{name}.vit_s_16", hf.ViTForImageClassification(config)


def recipe_leaf(key, shape):
    rng = np.random.default_rng([SEED, zlib.crc32(key.encode())])
    if key.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape)
    if len(shape) > 1:
        return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
    if key.endswith("weight"):
        return rng.uniform(0.3, 0.9, shape)
    return rng.normal(0, 0.1, shape)


def with_recipe(network, *, through_file):
    """The network with the recipe's weights, and their keys as they are in memory or in a file."""
    state = network.state_dict()
    if through_file:
        with tempfile.TemporaryDirectory() as folder:
            network.save_pretrained(folder)
            path = f"{folder}/model.safetensors"
            from safetensors.torch import load_file, save_file

            state = load_file(path)
            save_file(drawn(state), path, {"format": "pt"})
            return type(network).from_pretrained(folder), state
    network.load_state_dict(drawn(state))
    return network, state


def drawn(state):
    return {
        key: leaf
        if key.endswith("num_batches_tracked")
        else torch.from_numpy(recipe_leaf(key, tuple(leaf.shape)).astype(np.float32))
        for key, leaf in state.items()
    }


def main():
    saved = {}
    for name, network in networks():
        network, state = with_recipe(network, through_file=name == "hf.vit_s_16")
        network = network.double().eval()
        saved[f"{name}.keys"] = np.array(list(state))
        shapes = [",".join(map(str, leaf.shape)) for leaf in state.values()]
        saved[f"{name}.shapes"] = np.array(shapes)
        for field, size in SIZES.get(name, SMALL).items():
            images = np.random.default_rng(SEED).standard_normal((2, 3, *size))
            with torch.no_grad():
                logits = network(torch.from_numpy(images))
            saved[f"{name}.{field}"] = getattr(logits, "logits", logits).numpy()
    np.savez_compressed(OUT, **saved)


if __name__ == "__main__":
    main()
