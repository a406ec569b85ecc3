"""The parts of a round beside the official procedure: CPU seconds and peak memory of each.

Command:  python -m experiments.benchmarks.official --path UTKFACE --torch PYTHON
          [--pictures 2000] [--test 600] [--size 64] [--batch 64] [--keep 0.5] [--json FILE]
MobileNet-V2 from fresh weights, gender by race. PYTHON is that of an environment with torch and
torchvision; without it only our half is measured. "theirs" are stand-ins (official_torch.py): G
passes over every batch with copies to the host, a loop over single weights, one picture at a time.
Ours score all pictures too; "once" is what the first call costs more, compiling mostly. GB are the
most that the process held while it did the part, the interpreter and the pictures with it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.peak_memory import peak, reset_peak
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
    if options.torch:
        check_torch(options.torch)
    command = [sys.executable, "-m", "experiments.benchmarks.official", "--here", *sys.argv[1:]]
    package = run(command)
    official = run_stand_ins(options) if options.torch else None
    rows = [row(name, package, official) for name in PARTS]
    show(rows)
    for name, half in (("ours", package), ("theirs", official)):
        if half is not None:
            print(f"{name}: {half['kept']:,} weights kept")
    add_json(options.json, vars(options), rows)


def row(name: str, package: dict[str, Any], official: dict[str, Any] | None) -> dict[str, Any]:
    """A line of the table."""
    steady, first = package["seconds"][name], package["first"][name]
    values = {"part": name, "ours": round(steady, 2), "once": round(max(first - steady, 0), 1)}
    memory = {"ours, GB": package["peak"][name], "once, GB": package["first peak"][name]}
    if official is not None:
        other = official["seconds"][name]
        values |= {"theirs": round(other, 2), "theirs / ours": round(other / steady, 2)}
        memory["theirs, GB"] = official["peak"][name]
    return values | {column: round(gigabytes, 2) for column, gigabytes in memory.items()}


def check_torch(python: str) -> None:
    """End with a line unless an environment has torch and a torchvision that goes with it."""
    done = subprocess.run(
        [python, "-c", "import torch, torchvision"], stderr=subprocess.PIPE, text=True
    )
    if done.returncode:
        reason = (done.stderr.strip() or "no output").splitlines()[-1]
        sys.exit(f"--torch: {python} cannot import torch and torchvision ({reason})")


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
    peaks: list[dict[str, float]] = []
    for _ in range(2):
        times.append({})
        peaks.append({})
        for name, work in plan.items():
            reset_peak()
            start = time.process_time()
            result = jax.block_until_ready(work())
            times[-1][name] = time.process_time() - start
            peaks[-1][name] = peak()
            if name == "selection":
                kept = sum(int(leaf.sum()) for leaf in jax.tree.leaves(result))
    return {
        "first": times[0],
        "seconds": times[1],
        "first peak": peaks[0],
        "peak": peaks[1],
        "kept": kept,
    }


if __name__ == "__main__":
    main()
