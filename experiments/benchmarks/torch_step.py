"""A training step in torch, for train.py --torch: run by a Python that has torch and torchvision.

Command:  PYTHON torch_step.py MODEL SIZE BATCH CLASSES REPEATS THREADS
Prints a JSON object: layout -> seconds of CPU for each of REPEATS steps, after two that are not
counted. The step is forward and backward passes, cross-entropy and Adam, float32. Nothing of this
project is imported, nor JAX.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from typing import Any


def main() -> None:
    """Measure in both layouts, and print."""
    model, (size, batch, classes, repeats, threads) = sys.argv[1], map(int, sys.argv[2:])
    torch: Any = importlib.import_module("torch")
    torchvision: Any = importlib.import_module("torchvision")
    torch.set_num_threads(threads)
    print(
        json.dumps(
            {
                str(layout).removeprefix("torch."): steps(
                    torch, torchvision, layout, model, (size, batch, classes, repeats)
                )
                for layout in (torch.contiguous_format, torch.channels_last)
            }
            | {"version": torch.__version__}
        )
    )


def steps(
    torch: Any, torchvision: Any, layout: Any, model: str, numbers: tuple[int, int, int, int]
) -> list[float]:
    """CPU seconds of each counted step in one layout."""
    size, batch, classes, repeats = numbers
    torch.manual_seed(0)
    network = torchvision.models.get_model(model, num_classes=classes).to(memory_format=layout)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
    images = images.contiguous(memory_format=layout)
    labels = torch.randint(0, classes, (batch,))
    times = []
    for _ in range(repeats + 2):
        started = time.process_time()
        logits = network((images.float() / 255 - 0.45) / 0.22)
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(logits, labels).backward()
        optimizer.step()
        times.append(time.process_time() - started)
    return times[2:]


if __name__ == "__main__":
    main()
