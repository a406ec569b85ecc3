"""The parts of a round beside the official procedure: CPU seconds, and the most memory.

Command:  python -m experiments.benchmarks.official --path UTKFACE --torch PYTHON
          [--pictures 2000] [--test 600] [--size 64] [--batch 64] [--keep 0.5] [--json FILE]
MobileNet-V2 from fresh weights, gender by race. PYTHON is that of an environment with torch and
torchvision; without it only our half is measured. "theirs" are stand-ins (official_torch.py): G
passes over every batch with copies to the host, a loop over single weights, one picture at a time.
Ours score all pictures too; "once" is what the first call costs more, compiling mostly.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.round import round_parts
from experiments.benchmarks.timing import add_json, show
from fairgrape_jax import data
from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.data.sources.utkface import UTKFace

PARTS = ("dense epoch", "importance", "selection", "retraining epoch", "evaluation")
STAND_INS = Path(__file__).with_name("official_torch.py")


def main() -> None:
    """Measure each half in a process of its own, and print them side by side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", required=True, help="UTKFace: folder, tar or zip")
    parser.add_argument("--torch", help="the Python of an environment with torch and torchvision")
    parser.add_argument("--pictures", type=int, default=2000, help="to train on")
    parser.add_argument("--test", type=int, default=600, help="pictures to evaluate on")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--keep", type=float, default=0.5)
    parser.add_argument("--here", action="store_true", help="our half in this process, as JSON")
    parser.add_argument("--json", type=Path, help="append the rows to this file")
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(options)))
        return
    command = [sys.executable, "-m", "experiments.benchmarks.official", "--here", *sys.argv[1:]]
    package = run(command)
    official = run_stand_ins(options) if options.torch else None
    rows = [row(name, package, official) for name in PARTS]
    show(rows)
    for name, half in (("ours", package), ("theirs", official)):
        if half is not None:
            print(f"{name}: {half['peak']:.2f} GB at the most, {half['kept']:,} weights kept")
    add_json(options.json, vars(options), rows)


def row(name: str, package: dict[str, Any], official: dict[str, Any] | None) -> dict[str, Any]:
    """A line of the table."""
    steady, first = package["seconds"][name], package["first"][name]
    values = {"part": name, "ours": round(steady, 2), "once": round(max(first - steady, 0), 1)}
    if official is not None:
        other = official["seconds"][name]
        values |= {"theirs": round(other, 2), "theirs / ours": round(other / steady, 2)}
    return values


def run(command: list[str]) -> dict[str, Any]:
    """The JSON that a process prints last; no program that was compiled before is used."""
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def run_stand_ins(options: argparse.Namespace) -> dict[str, Any]:
    """The stand-ins, on the same arrays."""
    dataset = pictures(options)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "arrays.npz"
        np.savez(
            file,
            images=dataset.train.images[:],
            labels=dataset.train.labels[:, 0].astype(np.int64),
            groups=dataset.train.groups,
            test=dataset.test.images[:],
            keep=options.keep,
            batch=options.batch,
            rate=2e-4,
        )
        return run([options.torch, str(STAND_INS), str(file)])


def pictures(options: argparse.Namespace) -> Dataset:
    """Gender by race of UTKFace."""
    source = UTKFace(
        path=options.path,
        label="gender",
        group="race",
        size=options.size,
        limit=options.pictures,
        limit_evaluation=options.test,
    )
    return data.load(source)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Our half: CPU seconds of every part, the first time and the second, and the memory."""
    settings = argparse.Namespace(
        model="mobilenet_v2",
        batch=options.batch,
        micro_batch=options.batch,
        fraction=1.0,
        precision="float32",
        devices=1,
        method="fairgrape",
        select="greedy",
        keep=options.keep,
        steps=0,
    )
    parts = round_parts(settings, pictures(options))
    # Before its first choice a round's retraining is an epoch of the dense network.
    plan = {
        "dense epoch": parts["retraining"],
        "importance": parts["importance"],
        "selection": parts["selection"],
        "retraining epoch": parts["retraining"],
        "evaluation": parts["evaluation"],
    }
    times: list[dict[str, float]] = []
    for _ in range(2):
        times.append({})
        for name, work in plan.items():
            start = time.process_time()
            result = jax.block_until_ready(work())
            times[-1][name] = time.process_time() - start
            if name == "selection":
                kept = sum(int(leaf.sum()) for leaf in jax.tree.leaves(result))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"first": times[0], "seconds": times[1], "kept": kept, "peak": peak}


if __name__ == "__main__":
    main()
