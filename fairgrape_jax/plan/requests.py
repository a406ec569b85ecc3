"""Compile one program in a process of its own, with a time limit and the target's variables."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from fairgrape_jax import config
from fairgrape_jax.config import Experiment
from fairgrape_jax.errors import UsageError
from fairgrape_jax.plan import targets
from fairgrape_jax.plan.compiled import Facts
from fairgrape_jax.plan.described import Description
from fairgrape_jax.plan.hlo import Collectives
from fairgrape_jax.plan.targets import Target

MARK = "fairgrape-plan: "  # before the answer: compilers write to the same output


@dataclasses.dataclass(frozen=True)
class Request:
    """What is compiled.

    Attributes:
        experiment: whose program.
        description: of its data.
        target: for which devices.
        files: Python files that may add networks and methods to the tables: plugins, and the
            experiment's.
        compile_it: False to count alone.
    """

    experiment: Experiment
    description: Description
    target: Target
    files: tuple[Path, ...] = ()
    compile_it: bool = True


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a process has found of one program.

    Attributes:
        names: of all programs of the run, in order.
        counts: parameters, weights and bytes of a checkpoint.
        facts: of the program; None where only these were selected.
    """

    names: tuple[str, ...]
    counts: dict[str, int]
    facts: Facts | None


def ask(request: Request, program: str | None, seconds: float) -> Answer:
    """The facts of one program, made in a process of its own.

    Args:
        request: what is compiled.
        program: its name; None for the names of all.
        seconds: after which it is given up.

    Returns:
        The answer; its facts are "not compiled", with the reason, where the compiler was killed or
        took too long.

    Raises:
        UsageError: in one line, what the experiment or the data lacks.
    """
    words = {
        "experiment": config.to_dict(request.experiment),
        "description": dataclasses.asdict(request.description),
        "target": request.target.name,
        "files": [str(file.absolute()) for file in request.files],
        "program": program,
        "compile": request.compile_it,
    }
    command = [sys.executable, "-m", "fairgrape_jax.plan.requests"]
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    place = request.target if request.compile_it else counted_on(request.target)
    environment = {**os.environ, **targets.environment(place), "PYTHONPATH": path}
    try:
        done = subprocess.run(
            command,
            input=json.dumps(words),
            capture_output=True,
            text=True,
            env=environment,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _failed(program, f"not compiled within {seconds:.0f} s (--time-limit)")
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode < 0:
        number = -done.returncode
        if number == signal.SIGKILL:
            return _failed(
                program, f"the compiler was killed by signal {number}: too little memory here"
            )
        return _failed(program, f"the compiler crashed (signal {number})")
    if not lines:
        last = done.stderr.strip().splitlines()[-1:] or ["no word of it"]
        return _failed(program, f"the compiler failed: {' '.join(last)[:400]}")
    return parse_answer(json.loads(lines[-1].removeprefix(MARK)))


def _failed(program: str | None, message: str) -> Answer:
    if program is None:
        raise UsageError(f"plan: {message}")
    return Answer((), {}, Facts(program, "not compiled", message=message))


def parse_answer(values: dict[str, Any]) -> Answer:
    """An answer from JSON.

    Args:
        values: what a process wrote.

    Returns:
        The answer.

    Raises:
        UsageError: what it says is wrong.
    """
    if "error" in values:
        raise UsageError(values["error"])
    facts = values["facts"]
    if facts is not None:
        facts["collectives"] = tuple(Collectives(**each) for each in facts["collectives"])
        facts = Facts(**facts)
    return Answer(tuple(values["names"]), values["counts"], facts)


def answer(words: dict[str, Any]) -> Answer:
    """Do what a request in plain values asks for, in this process.

    Args:
        words: the request as JSON holds it.

    Returns:
        The answer.
    """
    from fairgrape_jax.plan import compiled, described, programs, shapes

    for file in words["files"]:
        execute(Path(file))
    experiment = config.from_dict(words["experiment"])
    parts: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in words["description"].items()
    }
    dataset = described.described_dataset(Description(**parts))
    target = targets.parse(words["target"])
    compile_it = words["compile"]
    place = target if compile_it else counted_on(target)
    if not compile_it:  # only this lift lowers for a platform that has no devices here
        execution = dataclasses.replace(experiment.execution, lift="shard_map")
        experiment = dataclasses.replace(experiment, execution=execution)
    devices = targets.abstract_devices(place)
    network = shapes.shapes_of(experiment, dataset, devices)
    made = programs.programs(network)
    name, facts = words["program"], None
    if name is not None and name in made:
        only_for = "" if compile_it else target.chip.kind
        facts = compiled.lower(made[name](), len(devices), only_for=only_for)
    elif name is not None:
        facts = Facts(name, "not compiled", message="the run has no such program")
    return Answer(tuple(made), shapes.counts_of(network), facts)


def execute(path: Path) -> None:
    """Run a Python file that has run without an error in the process that asks.

    Args:
        path: of an experiment or a plugin; it may import files of its folder.
    """
    name = f"fairgrape_plan_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    sys.path.insert(0, str(path.parent))
    sys.modules[name] = module = importlib.util.module_from_spec(spec)  # types are looked up there
    spec.loader.exec_module(module)


def counted_on(target: Target) -> Target:
    """Where programs are lowered only to be counted: on as many processors of this machine.

    Args:
        target: the devices that are planned for.

    Returns:
        A target of as many processors.
    """
    return targets.parse(f"cpu:{target.chips}")


def main() -> int:
    """Read a request from the standard input, and write the answer as one line of JSON."""
    try:
        values = dataclasses.asdict(answer(json.loads(sys.stdin.read())))
    except UsageError as error:
        values = {"error": str(error)}
    print(MARK + json.dumps(values), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
