"""Compile the programs of runs for accelerators that are not here, and check what comes out.

    python -m tools.plan_check            # the whole grid, unattended: hours on two cores
    python -m tools.plan_check --covering # the 20 cases that the tests compile

A line for each case; cases in --record FILE are not done again. It needs the compilers: the extra
`tpu` for TPUs, `jax-cuda13-plugin` and `jax-cuda13-pjrt` for GPUs; other cases are left out with a
line.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from fairgrape_jax.config import Execution, Experiment, Scoring
from fairgrape_jax.data import source
from fairgrape_jax.plan import planning, targets
from fairgrape_jax.plan.compiled import Facts
from fairgrape_jax.plan.described import Description
from fairgrape_jax.plan.requests import Request, ask
from fairgrape_jax.remedies import Remedy

PROGRAMS = (
    "training",
    "retraining",
    "scoring",
    "reduction",
    "evaluation",
    "selection",
    "max-min",
)
CHIPS = (
    "v4:2x2x1",
    "v5e:2x4",
    "v5p:2x2x2",
    "v6e:2x4",
    "a100:8",
    "h100:8",
    "h200:8",
    "b200:8",
    "cpu:8",
)


@dataclasses.dataclass(frozen=True)
class Case:
    """One program of one run on one kind of device."""

    devices: str
    program: str
    model: str = "cnn"
    size: int = 28
    groups: int = 3
    each: int = 8
    lift: Literal["pmap", "shard_map"] = "pmap"
    precision: Literal["float32", "bfloat16"] = "bfloat16"

    @property
    def chip(self) -> str:
        """Its kind of device."""
        return self.devices.partition(":")[0]

    def __str__(self) -> str:
        words = (self.devices, self.program, self.model, self.size, f"{self.groups} groups")
        return " ".join(map(str, (*words, self.each, self.lift, self.precision)))

    @property
    def request(self) -> Request:
        """What is compiled for it."""
        target = targets.parse(self.devices)
        experiment = Experiment(
            data=source("synthetic"),
            model=self.model,
            methods=("fairgrape", "fairgrape-maxmin"),
            batch=self.each * target.chips,
            precision=self.precision,
            remedy=Remedy(kd=1.0) if self.program == "retraining" else Remedy(),
            scoring=Scoring(micro_batch=self.each),
            execution=Execution(lift=self.lift, evaluation_batch=self.each),
        )
        classes = 1000 if self.size == 224 else 2
        sizes = (1000,) * self.groups
        samples = 1000 * self.groups
        shape = (self.size, self.size, 3)
        return Request(experiment, Description(samples, 500, 500, shape, (classes,), sizes), target)


# At most twenty, small where size is not the subject: minutes on two cores. Every kind of chip,
# program and family of networks has both lifts, both precisions, and a TPU and a GPU.
COVERING = (
    Case("v4:2x2x1", "evaluation", "resnet50", 32, lift="shard_map"),
    Case("v4:2x2x1", "evaluation", "mobilenet_v2", 32, precision="float32"),
    Case("v5e:2x2", "retraining", "mlp"),
    Case("v5e:2x4", "reduction", "vit_s_16", 32, lift="shard_map", precision="float32"),
    Case("v5p:2x2x1", "selection", "cnn", 8, lift="shard_map", precision="float32"),
    Case("v5p:2x2x2", "reduction", "convnext_tiny", 32),
    Case("v6e:2x2", "training", "cnn", precision="float32"),
    Case("v6e:2x2", "scoring", "mlp", lift="shard_map"),
    Case("v6e:2x2", "max-min", "cnn", 64, lift="shard_map", precision="float32"),
    Case("a100:2", "retraining", "cnn", lift="shard_map", precision="float32"),
    Case("a100:8", "reduction", "vit_s_16", 32),
    Case("h100:16", "training", "resnet18", 32, lift="shard_map"),
    Case("h100:8", "scoring", "mlp", precision="float32"),
    Case("h100:1", "selection", "resnet50", 224, groups=14, lift="shard_map"),
    Case("h200:1", "selection", "resnet50", 224, groups=7, precision="float32"),
    Case("h200:8", "evaluation", "mobilenet_v2", 32, lift="shard_map"),
    Case("b200:8", "evaluation", "convnext_tiny", 32, lift="shard_map", precision="float32"),
    Case("b200:8", "max-min", "cnn", 64),
    Case("cpu:2", "training", "vit_s_16", 32),
    Case("cpu:2", "evaluation", "resnet34", 32, lift="shard_map", precision="float32"),
)


MODELS = (
    ("cnn", 64),
    ("resnet18", 64),
    ("resnet34", 64),
    ("mobilenet_v2", 224),
    ("resnet50", 224),
    ("vit_s_16", 224),
    ("convnext_tiny", 224),
)


def grid() -> Iterator[Case]:
    """Every model, program, chip, lift and precision."""
    kinds = typing.get_type_hints(Case)
    lifts, precisions = (typing.get_args(kinds[name]) for name in ("lift", "precision"))
    every = itertools.product(MODELS, PROGRAMS, CHIPS, lifts, precisions)
    for (model, size), program, devices, lift, precision in every:
        yield Case(devices, program, model, size, 7, lift=lift, precision=precision)


def wrong_with(case: Case, facts: Facts, weights: int) -> list[str]:
    """What a compiled program should not have; empty where all is as it should be.

    Args:
        case: what was compiled.
        facts: what came out.
        weights: prunable weights of the network.
    """
    wrong = []
    if facts.status != "compiled":
        return [f"{facts.status}: {facts.message}"]
    if facts.float64:
        wrong.append("computes in float64")
    if facts.host_calls:
        wrong.append("stops for the host")
    if facts.aliases < facts.donated:
        wrong.append(f"{facts.donated} bytes are donated, {facts.aliases} taken over")
    if not planning.fits(facts, targets.parse(case.devices)):
        wrong.append(f"does not fit: {facts.total} bytes")
    kinds = {each.kind: each for each in facts.collectives}
    if case.program == "scoring" and kinds:
        wrong.append(f"devices wait for each other while scoring: {', '.join(kinds)}")
    if case.program == "reduction":
        size = 4 * case.groups * weights
        if set(kinds) != {"all-reduce"} or kinds["all-reduce"].bytes != size:
            wrong.append(f"is not one reduction of {size} bytes: {kinds}")
    if case.program == "selection" and facts.resident < 4 * case.groups * weights:
        wrong.append("was not looked at beside the sums")
    return wrong


def compile_case(case: Case, seconds: float = 3600) -> tuple[Facts, list[str]]:
    """The facts of a case, and what is wrong with them."""
    answer = ask(case.request, case.program, seconds)
    assert answer.facts is not None
    weights = answer.counts.get("weights", 0)
    return answer.facts, wrong_with(case, answer.facts, weights)


def main(arguments: list[str] | None = None) -> int:
    """Compile cases; 1 if anything is wrong with one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--covering", action="store_true", help="the cases of the tests alone")
    parser.add_argument("--record", type=Path, default=Path("build/plan_check.jsonl"))
    options = parser.parse_args(arguments)
    options.record.parent.mkdir(parents=True, exist_ok=True)
    lines = options.record.read_text().splitlines() if options.record.exists() else []
    done: dict[str, list[str]] = {}
    for line in lines:
        row: dict[str, Any] = json.loads(line)
        done[row["case"]] = row["wrong"]
    bad = 0
    for case in COVERING if options.covering else grid():
        extra = targets.missing_extra(targets.parse(case.devices))
        if extra:
            print(f"{case}: left out, the extra {extra!r} is not installed", flush=True)
            continue
        if str(case) not in done:
            facts, wrong = compile_case(case)
            done[str(case)] = wrong
            row = {"case": str(case), "wrong": wrong, "facts": dataclasses.asdict(facts)}
            with options.record.open("a") as file:
                file.write(json.dumps(row) + "\n")
        bad += bool(done[str(case)])
        print(f"{case}: {'; '.join(done[str(case)]) or 'as it should be'}", flush=True)
    print(f"{bad} of {len(done)} are not as they should be")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
