"""The parts of a round as the official procedure does them, in PyTorch: stand-ins written anew.

Runs in an environment of its own, with torch, torchvision and NumPy; `official.py` calls it. It
imports nothing of fairgrape_jax.
"""

import json
import sys
import time

import numpy as np
import torch
import torchvision
from peak_memory import peak, reset_peak  # beside this script

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    """Do every part once on the arrays of a file, and print CPU seconds and memory as JSON."""
    data = np.load(sys.argv[1])
    keep, batch, rate = float(data["keep"]), int(data["batch"]), float(data["rate"])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = torchvision.models.mobilenet_v2(num_classes=int(data["labels"].max()) + 1)
    layers = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    masks = [torch.ones_like(layer.weight) for layer in layers]
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    train = [torch.from_numpy(data[name]) for name in ("images", "labels", "groups")]
    seconds, memory = {}, {}

    def part(name, work, *arguments):
        reset_peak()
        start = time.process_time()
        result = work(*arguments)
        seconds[name], memory[name] = time.process_time() - start, peak()
        return result

    part("dense epoch", epoch, network, layers, masks, optimizer, train, batch)
    scores = part("importance", importance, network, layers, train, batch)
    part("selection", select, scores, masks, keep)
    part("retraining epoch", epoch, network, layers, masks, optimizer, train, batch)
    part("evaluation", evaluate, network, torch.from_numpy(data["test"]))
    kept = sum(int(mask.sum()) for mask in masks)
    print(json.dumps({"seconds": seconds, "peak": memory, "kept": kept}))


def normalise(images):
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32."""
    scaled = images.permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (MEAN, STD))
    return (scaled - mean) / std


def batches(train, batch):
    """Batches of images, labels and groups, in random order."""
    for chosen in torch.randperm(len(train[0])).split(batch):
        yield tuple(each[chosen] for each in train)


def epoch(network, layers, masks, optimizer, train, batch):
    """An epoch; pruned weights are set to zero after every step."""
    network.train()
    for images, labels, _ in batches(train, batch):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(normalise(images)), labels).backward()
        optimizer.step()
        with torch.no_grad():
            for layer, mask in zip(layers, masks, strict=True):
                layer.weight.mul_(mask)


def importance(network, layers, train, batch):
    """(w g)^2 of every weight and group: a pass over the whole batch for each, with copies."""
    groups = int(train[2].max()) + 1
    network.eval()
    sums = [[np.zeros(layer.weight.shape, np.float32) for layer in layers] for _ in range(groups)]
    for images, labels, of in batches(train, batch):
        pixels = normalise(images)
        for k in range(groups):
            here = of == k
            if here.any():
                network.zero_grad()
                each = torch.nn.functional.cross_entropy(network(pixels), labels, reduction="none")
                (each * here).sum().div(here.sum()).backward()
                for total, layer in zip(sums[k], layers, strict=True):
                    gradient = layer.weight.grad.detach().cpu().numpy().copy()
                    total += (layer.weight.detach().cpu().numpy() * gradient) ** 2
    return [np.stack([sums[k][i] for k in range(groups)]) for i in range(len(layers))]


def select(scores, masks, keep):
    """The sequential loop: weight after weight for the group that has lost most of its share."""
    for rows, mask in zip(scores, masks, strict=True):
        flat = torch.from_numpy(rows.reshape(len(rows), -1))
        totals = flat.sum(dim=1)
        orders = torch.argsort(flat, dim=1, descending=True).tolist()
        places, retained = [0] * len(rows), torch.zeros(len(rows))
        chosen = torch.zeros(flat.shape[1], dtype=torch.bool)
        for _ in range(int(flat.shape[1] * keep)):
            group = int(torch.argmax(1 - retained / totals))
            while chosen[orders[group][places[group]]]:
                places[group] += 1
            weight = orders[group][places[group]]
            chosen[weight] = True
            retained += flat[:, weight]
        mask.copy_(chosen.view(mask.shape))


def evaluate(network, images):
    """The predictions, one picture at a time."""
    network.eval()
    with torch.no_grad():
        return [int(network(normalise(image[None])).argmax()) for image in images]


if __name__ == "__main__":
    main()
