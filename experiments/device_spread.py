"""How far whole runs on other numbers of devices differ, beside how far other seeds differ.

Command:  python -m experiments.device_spread [--devices 1 2 4 8] [--seeds 0 1 2] [--out DIR]
Runs experiments/writers.py by FairGRAPE alone: the first seed on every number of fake CPU devices,
and every seed on one device; each in a process of its own. Ends with the table of docs/scaling.md.
Expected: about 6 minutes on 2 cores. Finished runs are not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from experiments.benchmarks.timing import show

WRITERS = Path(__file__).parent / "writers.py"


def main() -> None:
    """Run what is missing, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/device_spread"))
    options = parser.parse_args()

    first, one = options.seeds[0], options.devices[0]
    pairs = [(first, devices) for devices in options.devices]
    pairs += [(seed, one) for seed in options.seeds[1:]]
    rows = [result(options.out, seed, devices) for seed, devices in pairs]
    of_devices = [row for row in rows if row["seed"] == first]
    of_seeds = [row for row in rows if row["devices"] == one]
    show(
        [
            *({key: rounded(value) for key, value in row.items()} for row in rows),
            spread(of_devices, "sd, devices"),
            spread(of_seeds, "sd, seeds"),
        ]
    )


def result(out: Path, seed: int, devices: int) -> dict[str, Any]:
    """Accuracy on the test split by weights left; of the last round by group, with rho(D)."""
    run = out / f"seed_{seed}_devices_{devices}"
    command = [sys.executable, "-m", "fairgrape_jax", "run", str(WRITERS), "--out", str(run)]
    command += ["--methods", "fairgrape", "--seeds", str(seed), "--execution.devices", str(devices)]
    fake = f"--xla_force_host_platform_device_count={devices}"
    # NPROC: with more devices than cores XLA's thread pool can wait for ever in a collective.
    places = {"XLA_FLAGS": fake, "NPROC": "16", "JAX_PLATFORMS": "cpu"}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | places)
    stages = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    figures = {}
    for stage in sorted(stages, key=lambda stage: stage["round"]):
        if stage["round"] == 0 or round(stage["density"], 2) == 0.1:
            figures[f"{100 * stage['density']:.0f} %"] = stage["test"]["accuracy"]
    test = stage["test"]  # of the last round
    figures[f"{100 * stage['density']:.0f} %"] = test["accuracy"]
    figures |= zip(stage["groups"], test["group_accuracy"], strict=True)
    return {"seed": seed, "devices": devices} | figures | {"rho(D)": test["rho_change"]}


def spread(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The standard deviation of every figure, with the divisor n - 1."""
    figures = [key for key in rows[0] if key not in ("seed", "devices")]
    deviations = {key: rounded(statistics.stdev(row[key] for row in rows)) for key in figures}
    return {"seed": name, "devices": ""} | deviations


def rounded(value: Any) -> Any:
    """Two digits after the point."""
    return f"{value:.2f}" if isinstance(value, float) else value


if __name__ == "__main__":
    main()
