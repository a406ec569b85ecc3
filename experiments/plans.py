"""Compiled facts of training on accelerators that were not here, and one of them measured.

Command:  python -m experiments.plans [--compile [WORD ...]]
Prints the tables of docs/scaling.md from docs/benchmarks/plans.json (what `fairgrape plan` says of
the programs of a run) and docs/benchmarks/h100.json (what steps took on a real H100); a test holds
the document to them. With --compile it first compiles those of `PROGRAMS` that plans.json lacks,
one after the other, and writes each there as it comes: minutes for GPUs, up to an hour for TPUs.
WORDs choose: `v6e training` is what has both in its name. The compilers of other devices are in the
environment of `make build/plan/.installed`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from fairgrape_jax.config import Experiment, Scoring
from fairgrape_jax.data import source
from fairgrape_jax.plan.compiled import Facts
from fairgrape_jax.plan.described import Description
from fairgrape_jax.plan.floors import UTILISATION, floor_of
from fairgrape_jax.plan.hlo import Collectives
from fairgrape_jax.plan.requests import Request, ask
from fairgrape_jax.plan.targets import Target, parse
from fairgrape_jax.storage.files import atomic_write

BENCHMARKS = Path(__file__).parents[1] / "docs" / "benchmarks"
IMAGES = 1_281_167  # ImageNet-1k's training pictures
# Slices and GPUs of 8 to 256 chips. The program of a device is the same on all of them.
SIZES = {
    "v5e": ("v5e:2x4", "v5e:8x8", "v5e:16x16"),
    "v5p": ("v5p:2x2x2", "v5p:4x4x4", "v5p:4x8x8"),
    "v6e": ("v6e:2x4", "v6e:8x8", "v6e:16x16"),
    "h100": ("h100:8", "h100:64", "h100:256"),
}
# Devices, program and groups of ResNet-50 on ImageNet, the quick ones first.
PROGRAMS = (
    *(("h100:8", "reduction", groups) for groups in (7, 14)),
    ("h100:8", "scoring", 7),
    ("h100:8", "training", 7),
    *(
        (SIZES[chip][0], "reduction", groups)
        for chip in ("v6e", "v5p", "v5e")
        for groups in (7, 14)
    ),
    *((SIZES[chip][0], "training", 7) for chip in ("v6e", "v5p", "v5e")),
    *((SIZES[chip][0], "scoring", 7) for chip in ("v6e", "v5p", "v5e")),
    *((SIZES[chip][0], "selection", 14) for chip in ("h100", "v6e", "v5p", "v5e")),
)


def load_plans() -> list[dict[str, Any]]:
    """The compiled programs, a dict each."""
    return json.loads((BENCHMARKS / "plans.json").read_text())["programs"]


def resnet50_on_imagenet(devices: str, groups: int) -> Request:
    """The run whose programs are compiled: bfloat16, 64 pictures a chip and micro-batch.

    Args:
        devices: as `fairgrape plan --on` takes them.
        groups: of equal sizes.
    """
    target = parse(devices)
    experiment = Experiment(
        data=source("synthetic"),
        model="resnet50",
        methods=("fairgrape",),
        batch=64 * target.chips,
        precision="bfloat16",
        scoring=Scoring(micro_batch=64),
    )
    sizes = (IMAGES // groups,) * groups
    return Request(
        experiment, Description(IMAGES, 50_000, 50_000, (224, 224, 3), (1000,), sizes), target
    )


def compile_missing(words: list[str]) -> None:
    """Compile what plans.json lacks, and write each program there as it comes.

    Args:
        words: that the names of devices and program hold, all of them; none for all programs.
    """
    path = BENCHMARKS / "plans.json"
    for devices, program, groups in PROGRAMS:
        record = json.loads(path.read_text())
        kind: dict[str, Any] = {"target": devices, "model": "resnet50", "px": 224}
        kind |= {"groups": groups, "each": 64, "precision": "bfloat16"}
        known = any({**row, **kind, "name": program} == row for row in record["programs"])
        if known or not all(word in f"{devices} {program}" for word in words):
            continue
        facts = ask(resnet50_on_imagenet(devices, groups), program, 7200).facts
        assert facts is not None
        print(f"{devices} {program} {groups} groups: {facts.status} {facts.message}", flush=True)
        if facts.status != "compiled":
            continue
        row = kind | dataclasses.asdict(facts)
        del row["message"]
        for name in ("lower_seconds", "compile_seconds"):
            row[name] = round(row[name], 1)
        record = json.loads(path.read_text())  # another process may have written meanwhile
        record["programs"] = sorted([*record["programs"], row], key=_order)
        with atomic_write(path) as new:
            new.write_text(json.dumps(record, indent=1) + "\n")


def _order(row: dict[str, Any]) -> tuple[Any, ...]:
    """Networks, then training before the other programs, each by its devices."""
    training = row["name"] != "training"
    return (
        row["model"],
        -row["px"],
        training,
        row["name"],
        row["target"],
        row["each"],
        row["groups"],
    )


def facts_of(row: dict[str, Any]) -> Facts:
    """The facts in a row."""
    names = Facts.__dataclass_fields__
    values = {name: value for name, value in row.items() if name in names}
    values["collectives"] = tuple(Collectives(**each) for each in row["collectives"])
    return Facts(**values)


def beside_measured() -> list[dict[str, str]]:
    """Plans for one H100, beside the same steps on a real one."""
    measured = json.loads((BENCHMARKS / "h100.json").read_text())["training steps"]
    steps = {(m["model"], m["size"], m["batch"], m["precision"]): m for m in measured}
    table = []
    for row in load_plans():
        step = steps.get((row["model"], row["px"], row["each"], row["precision"]))
        if row["target"] != "h100:1" or row["name"] != "training" or step is None:
            continue
        facts = facts_of(row)
        floor = floor_of(facts, parse("h100:1"), row["precision"])
        assert floor is not None
        table.append(
            {
                "network, pixels, batch": f"{row['model']}, {row['px']}, {row['each']}",
                "precision": row["precision"],
                "temporaries planned, MB": f"{facts.temporaries / 1e6:,.0f}",
                "on the H100": f"{step['memory_analysis']['temp_size'] / 1e6:,.0f}",
                "GFLOP planned": f"{facts.flops / 1e9:,.0f}",
                "traffic, GB": f"{facts.traffic / 1e9:,.1f}",
                "floor, ms": f"{1e3 * floor.seconds:.1f} ({floor.bound})",
                "measured, ms": f"{step['ms']:.1f}",
                "floor over measured": f"{1e3 * floor.seconds / step['ms']:.2f}",
            }
        )
    return table


def training_row(row: dict[str, Any], target: Target) -> dict[str, str]:
    """ResNet-50's step compiled for one kind of chip, on so many of them."""
    facts = facts_of(row)
    floor = floor_of(facts, target, row["precision"])
    assert floor is not None
    epoch = IMAGES // (row["each"] * target.chips) * floor.seconds / UTILISATION
    sums = facts.collectives[0] if facts.collectives else None
    return {
        "devices": target.name,
        "images a step": f"{row['each'] * target.chips:,}",
        "memory, GB": f"{facts.alone / 1e9:.2f} + {facts.resident / 1e9:.2f}",
        "traffic, GB": f"{facts.traffic / 1e9:.1f}",
        "all-reduces": f"{sums.count}, {sums.bytes / 1e6:.0f} MB" if sums else "none",
        "compute, ms": f"{1e3 * floor.compute:.2f}",
        "memory, ms": f"{1e3 * floor.memory:.2f}",
        "links, ms": f"{1e3 * floor.links:.2f}",
        f"epoch at {UTILISATION:.0%}, s": f"{epoch:.1f}",
    }


def training() -> list[dict[str, str]]:
    """ResNet-50 on ImageNet: bfloat16, 64 pictures a chip."""
    table = []
    for row in load_plans():
        kind = (row["model"], row["px"], row["each"], row["precision"], row["name"])
        if kind != ("resnet50", 224, 64, "bfloat16", "training"):
            continue
        chip = row["target"].partition(":")[0]
        if row["target"] == SIZES.get(chip, ("",))[0]:
            table += [training_row(row, parse(name)) for name in SIZES[chip]]
    return table


def others() -> list[dict[str, str]]:
    """The programs of a round of ResNet-50 beside training.

    On more chips of a kind scoring and reduction are the same program of a device, and the links'
    share is reckoned anew; the choice cuts its layers over all of them, which is another program.
    """
    table = []
    for row in load_plans():
        if row["model"] != "resnet50" or row["name"] == "training":
            continue
        target, facts = parse(row["target"]), facts_of(row)
        alike = row["name"] in ("scoring", "reduction")
        sizes = SIZES[target.chip.name] if alike else (target.name,)
        floors = [floor_of(facts, parse(size), row["precision"]) for size in sizes]
        sums = [f"{c.count} {c.kind}, {c.bytes / 1e6:,.0f} MB" for c in facts.collectives]
        numbers = dict.fromkeys(f"{1e3 * floor.seconds:.2f}" for floor in floors if floor)
        bounds = dict.fromkeys(floor.bound for floor in floors if floor)
        table.append(
            {
                "devices": target.name,
                "program": row["name"],
                "groups": str(row["groups"]),
                "memory, GB": f"{facts.alone / 1e9:.2f} + {facts.resident / 1e9:.2f}",
                "fits": "yes" if facts.total <= target.memory else "no",
                "collectives": "; ".join(sums) or "none",
                "calls a round": f"{facts.calls:,}",
                "floor, ms, on 8, 64 and 256": f"{', '.join(numbers)} ({', '.join(bounds)})",
            }
        )
    return table


def markdown(rows: list[dict[str, str]]) -> str:
    """Rows of equal keys as a table."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *[list(row.values()) for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def tables() -> list[str]:
    """The tables of docs/scaling.md."""
    return [markdown(rows) for rows in (beside_measured(), training(), others()) if rows]


def main() -> None:
    """Compile what is asked for, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--compile", nargs="*", metavar="WORD", help="first compile what is missing"
    )
    options = parser.parse_args()
    if options.compile is not None:
        compile_missing(options.compile)
    print("\n\n".join(tables()))


if __name__ == "__main__":
    main()
