"""What a training step costs: with masks and without, by pmap and shard_map, by precision.

Command:  python -m experiments.benchmarks.train [--model resnet18] [--size 64] [--batch 32]
          [--blind] [--xla-convolutions] [--augmentations paper imagenet] [--json FILE]
          [taskset -c 0] python -m experiments.benchmarks.train --torch PYTHON ...
Rows, measured in turn in one run, with images/s and their ratio to the first one:
  without masks, pmap, float32     the step of a run, no parameter masked
  with masks, ...                  the same with a mask for every kernel, 90 % of it zero
  ..., shard_map; ..., bfloat16    where a run has these options
  XLA's convolutions               --xla-convolutions: what ours replace on a CPU
  blind, with masks                --blind: without looking whether every number is finite
  NAME augmentation, with masks    --augmentations: the step with pictures altered on the device
  PyTorch                          where torch, torchvision and CUDA are at hand
With --torch two rows are measured, on a CPU and in seconds of it: the step of a run with masks in
float32, and torch's by PYTHON, a Python that has torch and torchvision, in the better of its two
layouts and with as many threads as this process may use.
Model FLOP utilisation (three times the forward pass's operations) is printed where the peak of the
device is known; where it is not, operations per second are.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.timing import (
    PEAKS,
    add_json,
    interleaved,
    pictures,
    ratio,
    show,
    table,
)
from fairgrape_jax import models, parallel
from fairgrape_jax.config import Execution, Experiment
from fairgrape_jax.data import batches, source
from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.models import convolution
from fairgrape_jax.parallel.devices import Lift
from fairgrape_jax.rounds.session import initial_network, open_session
from fairgrape_jax.training import Carry, finite
from fairgrape_jax.training.finite import StepReport

CLASSES = 7
Precision = Literal["float32", "bfloat16"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--optimizer", default="adam")
    parser.add_argument("--steps", type=int, default=1, help="steps of one measurement")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--xla-convolutions", action="store_true", help="also those of XLA")
    parser.add_argument("--blind", action="store_true", help="also steps that do not look")
    parser.add_argument("--augmentations", nargs="*", default=[])
    parser.add_argument("--torch", type=Path, help="a Python with torch: ours beside it on a CPU")
    parser.add_argument("--json", type=Path, help="append the rows to this file")
    options = parser.parse_args()

    dataset = pictures(2, options.batch, options.size, CLASSES)
    if options.torch:
        add_json(options.json, vars(options), beside_torch(options, dataset))
        return
    work: dict[str, Callable[[], Any]] = {}
    for precision, lift in itertools.product(get_args(Precision), get_args(Lift)):
        for masked in (False, True):
            name = f"{'with' if masked else 'without'} masks, {lift}, {precision}"
            work[name] = training(options, dataset, masked=masked, lift=lift, precision=precision)
    if options.xla_convolutions:
        usual = training(options, dataset)

        def traced_with_those_of_xla() -> Any:
            with mock.patch.object(convolution, "choose_form", return_value="xla"):
                return usual()

        work["XLA's convolutions, with masks"] = traced_with_those_of_xla
    if options.blind:
        unseeing = training(options, dataset)

        def traced_blind() -> Any:
            with mock.patch.object(
                finite,
                "accept",
                lambda carry, new, loss, *_, **__: (
                    Carry(new, carry.finite),
                    StepReport(loss, loss),
                ),
            ):
                return unseeing()

        work["blind, with masks, pmap, float32"] = traced_blind
    for precision, name in itertools.product(get_args(Precision), options.augmentations):
        work[f"{name} augmentation, with masks, {precision}"] = training(
            options, dataset, precision=precision, augmentation=name
        )
    if torch_is_there():
        work["PyTorch, bfloat16"] = pytorch(options, dataset)
    times = interleaved(work, options.repeats)

    base = next(iter(work))
    images = options.batch * options.steps
    operations = forward_operations(options) * 3 * images
    device = jax.devices()[0].device_kind
    rows = table(times, base)
    for row in rows:
        row["images/s"] = round(images / row["seconds"], 1)
        row["TFLOP/s"] = round(operations / row["seconds"] / 1e12, 4)
        if device in PEAKS:
            row["utilisation"] = round(operations / row["seconds"] / PEAKS[device], 3)
    about = f"{options.model}, {options.size} pixels, batch {options.batch}"
    print(f"{about}, {options.devices} of {device}:")
    show(rows)
    for name in work:
        if name.startswith("with masks"):
            bare = times[name.replace("with ", "without ")]
            cost, least = ratio(times[name], bare), min(times[name]) / min(bare)
            print(f"masking costs, {name.split(', ', 1)[1]}: {cost:.3f}, of least {least:.3f}")
    if options.blind:
        seeing, bare = times["with masks, pmap, float32"], times["blind, with masks, pmap, float32"]
        cost, least = ratio(seeing, bare), min(seeing) / min(bare)
        print(f"looking for numbers that are not finite costs: {cost:.3f}, of least {least:.3f}")
    for name in work:
        if " augmentation, " in name:
            bare = times[f"with masks, pmap, {name.rsplit(', ', 1)[1]}"]
            cost, least = ratio(times[name], bare), min(times[name]) / min(bare)
            print(f"{name}: {cost:.3f} of the step without, of least {least:.3f}")
    add_json(options.json, vars(options), rows)


def training(
    options: argparse.Namespace,
    dataset: Dataset,
    *,
    masked: bool = True,
    lift: Lift = "pmap",
    precision: Precision = "float32",
    augmentation: str = "none",
) -> Callable[[], Any]:
    """A call makes `options.steps` training steps; the state goes on from call to call."""
    experiment = Experiment(
        source("synthetic"),
        options.model,
        batch=options.batch,
        optimizer=options.optimizer,
        precision=precision,
        augmentation=augmentation,
        execution=Execution(lift=lift),
    )
    session = open_session(experiment, dataset, parallel.local_devices(options.devices))
    network = initial_network(session, seed=0)
    carry = [Carry(network.state)]
    rng = np.random.default_rng(0)
    alive = jax.tree.map(
        lambda m: rng.random(m.shape) < 0.1 if masked else None,
        network.masks,
    )
    alive = parallel.replicate(alive, session.devices)
    samples = next(batches.train_batches(dataset.train, options.batch, 0, 0))
    batch = parallel.split_batch(samples, session.devices)

    def work() -> Any:
        for _ in range(options.steps):
            carry[0], report = session.steps.train(carry[0], alive, batch, np.float32(1e-4))
        return report.loss

    return work


def beside_torch(options: argparse.Namespace, dataset: Dataset) -> list[dict[str, Any]]:
    """The rows of our step and of torch's, in CPU seconds, printed with the ratio."""
    threads = len(os.sched_getaffinity(0))
    numbers = (options.size, options.batch, CLASSES, options.repeats, threads)
    program = Path(__file__).with_name("torch_step.py")
    command = [options.torch, program, options.model, *numbers]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    layouts = json.loads(done.stdout.splitlines()[-1])
    version = layouts.pop("version")
    layout = min(layouts, key=lambda name: statistics.median(layouts[name]))
    work = training(options, dataset)
    jax.block_until_ready(work())
    step_times = []
    for _ in range(options.repeats):
        started = time.process_time()
        jax.block_until_ready(work())
        step_times.append((time.process_time() - started) / options.steps)
    rows = []
    for name, times in (
        ("ours, with masks", step_times),
        (f"torch {version}, {layout}", layouts[layout]),
    ):
        seconds = statistics.median(times)
        each = {"CPU seconds": round(seconds, 4), "least": round(min(times), 4)}
        rows.append({"row": name} | each | {"images/s": round(options.batch / seconds, 1)})
    about = f"{options.model}, {options.size} pixels, batch {options.batch}, threads {threads}"
    print(f"{about}: {rows[0]['images/s'] / rows[1]['images/s']:.2f} of torch")
    show(rows)
    return rows


def forward_operations(options: argparse.Namespace) -> float:
    """Operations of the forward pass of one image, as XLA counts them (two a multiplication)."""
    module = models.create(options.model, CLASSES)
    image = jnp.zeros((1, options.size, options.size, 3))
    variables = jax.eval_shape(module.init, jax.random.key(0), image)
    counted: Any = jax.jit(module.apply).lower(variables, image).cost_analysis()
    return counted["flops"]


def torch_is_there() -> bool:
    """Whether PyTorch, torchvision and a CUDA device are at hand."""
    if not all(importlib.util.find_spec(name) for name in ("torch", "torchvision")):
        return False
    return importlib.import_module("torch").cuda.is_available()


def pytorch(options: argparse.Namespace, dataset: Dataset) -> Callable[[], Any]:
    """The same steps by PyTorch: channels last, autocast to bfloat16, torch.compile, Adam."""
    torch: Any = importlib.import_module("torch")
    torchvision: Any = importlib.import_module("torchvision")
    network = torchvision.models.get_model(options.model, num_classes=CLASSES)
    network = network.cuda().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=True)
    samples = next(batches.train_batches(dataset.train, options.batch, 0, 0))
    host = torch.from_numpy(samples["images"]).permute(0, 3, 1, 2)
    labels = torch.from_numpy(samples["labels"][:, 0]).long().cuda()
    mean, std = (torch.tensor(x).cuda().reshape(1, 3, 1, 1) for x in (dataset.mean, dataset.std))

    @torch.compile
    def loss_of(images: Any) -> Any:
        with torch.autocast("cuda", torch.bfloat16):
            logits = network((images.float() / 255 - mean) / std)
        return torch.nn.functional.cross_entropy(logits.float(), labels)

    def work() -> None:
        for _ in range(options.steps):
            loss = loss_of(host.cuda(non_blocking=True))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        torch.cuda.synchronize()

    return work


if __name__ == "__main__":
    main()
