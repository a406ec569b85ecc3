"""Make tests/golden/torch_files.npz: small files as PyTorch writes them, and what is in them.

python tests/helpers/make_golden_torch_files.py    # with torch
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import torch

OUT = Path(__file__).parents[1] / "golden/torch_files.npz"


def tensors():
    base = torch.arange(12.0).reshape(3, 4)
    return {
        "float": base,
        "transposed": base.T,
        "rows": base[1:, ::2],
        "half": torch.linspace(-1, 1, 5).half(),
        "bfloat16": torch.linspace(-1, 1, 5).bfloat16(),
        "double": torch.linspace(0, 1, 3).double(),
        "long": torch.tensor([[1, -2], [3, 2**40]]),
        "byte": torch.tensor([0, 255], dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2, 2)),
    }


def written(value, **options):
    file = io.BytesIO()
    torch.save(value, file, **options)
    return np.frombuffer(file.getvalue(), np.uint8)


def main():
    state = tensors()
    layer = torch.nn.Linear(2, 3)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    checkpoint = {
        "epoch": 3,
        "best": 0.5,
        "arch": "resnet18",
        "size": torch.Size([1, 2]),
        "device": torch.device("cpu"),
        "state_dict": layer.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    old = {"_use_new_zipfile_serialization": False}
    script = io.BytesIO()
    torch.jit.save(torch.jit.script(layer), script)
    saved = {
        "file.tensors": written(state),
        "file.tensors_legacy": written(state, **old),
        "file.checkpoint": written(checkpoint),
        "file.checkpoint_legacy": written(checkpoint, **old),
        "file.module": written(layer),
        "file.module_legacy": written(layer, **old),
        "file.namespace": written({"args": argparse.Namespace(a=1), "state_dict": state}),
        "file.script": np.frombuffer(script.getvalue(), np.uint8),
        "layer.weight": layer.weight.detach().numpy(),
    }
    for key, value in state.items():
        plain = value.detach().float() if key == "bfloat16" else value.detach()
        saved[f"tensor.{key}"] = plain.numpy()
    np.savez_compressed(OUT, **saved)


if __name__ == "__main__":
    main()
