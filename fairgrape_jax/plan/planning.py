"""A plan: all programs of a run compiled for its devices, and what the run takes there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from fairgrape_jax import config
from fairgrape_jax.config import Experiment
from fairgrape_jax.errors import UsageError
from fairgrape_jax.plan import batch_search, described, run_time, targets
from fairgrape_jax.plan.batch_search import BatchSearch
from fairgrape_jax.plan.compiled import Facts
from fairgrape_jax.plan.described import Description
from fairgrape_jax.plan.floors import UTILISATION, Floor, floor_of
from fairgrape_jax.plan.requests import Answer, Request, ask
from fairgrape_jax.plan.run_time import Disk, RunTime
from fairgrape_jax.plan.targets import Target


@dataclasses.dataclass(frozen=True)
class Options:
    """What of a plan is made, and how.

    Attributes:
        utilisation: the part of the data sheet's speed that the run is reckoned at.
        time_limit: seconds for the compile of one program.
        search: whether the largest batch is sought.
        programs: names of those that are compiled; empty for all.
    """

    utilisation: float = UTILISATION
    time_limit: float = 900.0
    search: bool = True
    programs: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Sharding:
    """Whether the sums of groups should be cut over the devices.

    Attributes:
        whole: bytes of the sums on a device that holds all groups.
        cut: likewise with `execution.shard_groups`.
        advice: in words.
    """

    whole: int
    cut: int
    advice: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run needs on devices that are not here.

    Attributes:
        experiment: what is run.
        description: of its data.
        target: the devices.
        counts: parameters, weights and bytes of a checkpoint.
        facts: of each program, by name.
        sharding: of the sums of groups; None where no method scores.
        search: of the largest batch; None where none was sought.
        time: of the run; None where there is no data sheet.
        disk: bytes that it writes.
        notes: what is to be known.
    """

    experiment: Experiment
    description: Description
    target: Target
    counts: dict[str, int]
    facts: dict[str, Facts]
    sharding: Sharding | None
    search: BatchSearch | None
    time: RunTime | None
    disk: Disk
    notes: tuple[str, ...]

    def floor(self, name: str) -> Floor | None:
        """The floor of one call of a program.

        Args:
            name: of the program.

        Returns:
            The floor; None where there is no data sheet.
        """
        return floor_of(self.facts[name], self.target, self.experiment.precision)

    def fits(self, name: str) -> bool | None:
        """Whether a program fits beside what the run holds.

        Args:
            name: of the program.

        Returns:
            None where that is not known.
        """
        return fits(self.facts[name], self.target)


def fits(facts: Facts, target: Target) -> bool | None:
    """Whether a program fits on a device.

    Args:
        facts: of the program.
        target: the devices that are planned for.

    Returns:
        None where it was not compiled.
    """
    if facts.status == "not compiled":
        # Arguments are known without a compiler, and may be too many by themselves.
        return False if facts.arguments + facts.resident > target.memory else None
    return facts.status == "compiled" and facts.total <= target.memory


def check_fit(experiment: Experiment, target: Target) -> None:
    """Refuse a batch that the devices do not divide, and what is not planned.

    Args:
        experiment: what is planned.
        target: the devices that are planned for.

    Raises:
        UsageError: a batch that the devices do not divide, with those that they do; accumulated
            gradients, whose program is another.
    """
    if experiment.scoring.gradients == "accumulated":
        raise UsageError(
            "plan: the scoring of accumulated gradients is not planned; give "
            "--scoring.gradients cleared"
        )
    batch, chips = experiment.batch, target.chips
    least = 2 * chips if experiment.mixup else chips
    if batch % least:
        pairs = ", in pairs for mixup" if experiment.mixup else ""
        sizes = [n for n in (batch // least * least, (batch // least + 1) * least) if n]
        raise UsageError(
            f"batch: {batch} images cannot be cut evenly over the {chips} devices of {target.name}"
            f"{pairs}; give --batch {' or '.join(map(str, sizes))}"
        )


def make_plan(
    request: Request, options: Options, say: Callable[[str], None] = lambda line: None
) -> Plan:
    """Compile the programs of a run one after the other, each in a process of its own.

    Args:
        request: experiment, data and devices.
        options: what is made of it.
        say: called with a line before each compile, which takes from seconds to minutes.

    Raises:
        UsageError: for what cannot be run on these devices.
    """
    if not 0 < options.utilisation <= 1:
        raise UsageError(f"--utilisation: {options.utilisation} is not in (0, 1]")
    if options.time_limit <= 0:
        raise UsageError(f"--time-limit: {options.time_limit} seconds; give more than 0")
    for problem in described.problems(request.description):
        raise UsageError(problem)
    experiment, target, notes = request.experiment, request.target, []
    if experiment.execution.devices not in (0, target.chips):
        whole = dataclasses.replace(experiment.execution, devices=0)
        experiment = dataclasses.replace(experiment, execution=whole)
        notes.append(f"execution.devices: the plan is for all {target.chips} devices")
    check_fit(experiment, target)
    extra = targets.missing_extra(target)
    if extra:
        notes.append(
            f"nothing is compiled: the compiler for {target.chip.title} is not installed; "
            f"pip install 'fairgrape-jax[{extra}]'. What follows is arithmetic"
        )
    if target.note:
        notes.append(target.note)
    if options.programs:
        notes.append(f"times are of the programs named alone: {', '.join(options.programs)}")
    request = dataclasses.replace(request, experiment=experiment, compile_it=not extra)

    def about(program: str | None, other: Experiment | None = None) -> Answer:
        new = request if other is None else dataclasses.replace(request, experiment=other)
        return ask(new, program, options.time_limit)

    known = about(None)
    names = chosen(known.names, options.programs)
    facts: dict[str, Facts] = {}
    for number, name in enumerate(names, 1):
        say(f"{target.name}: {name} ({number} of {len(names)})")
        answer = about(name)
        assert answer.facts is not None
        facts[name] = answer.facts

    sharding = None
    if "scoring" in names:
        sharding = sharded(request, known, facts, options, say)
    search = None
    if options.search and not extra and "training" in facts:
        search = largest_batch(request, facts["training"], options, say)
    return Plan(
        experiment=experiment,
        description=request.description,
        target=target,
        counts=known.counts,
        facts=facts,
        sharding=sharding,
        search=search,
        time=run_time.run_time(experiment, request.description, target, facts, options.utilisation),
        disk=run_time.disk(experiment, request.description, known.counts["checkpoint_bytes"]),
        notes=tuple(notes),
    )


def chosen(names: tuple[str, ...], selected: tuple[str, ...]) -> tuple[str, ...]:
    """The programs that are compiled, in the order of the run.

    Args:
        names: of all programs of the run.
        selected: those that are asked for; all if empty.

    Returns:
        The programs that are compiled.

    Raises:
        UsageError: for a name that is none.
    """
    for name in selected:
        if name not in names:
            raise UsageError(f"--programs: {name!r} is none of this run: {', '.join(names)}")
    return tuple(name for name in names if name in selected) if selected else names


def sharded(
    request: Request,
    known: Answer,
    facts: dict[str, Facts],
    options: Options,
    say: Callable[[str], None],
) -> Sharding:
    """Whether to cut the sums of groups over the devices; tried where whole ones do not fit.

    Args:
        request: what is planned.
        known: what was found so far.
        facts: of each program.
        options: of the command.
        say: prints a line of progress.

    Returns:
        The answer, and how it was reached.
    """
    target, groups = request.target, request.description.groups
    weights = known.counts["weights"]
    whole, cut = 4 * groups * weights, 4 * -(-groups // target.chips) * weights
    now = request.experiment.execution.shard_groups
    parts = [facts[name] for name in ("scoring", "reduction", "selection") if name in facts]
    room = [fits(each, target) for each in parts]
    if now:
        return Sharding(whole, cut, "sharded, as the experiment has it")
    if all(room):
        return Sharding(whole, cut, "not sharded: whole sums fit")
    if None in room and False not in room:
        return Sharding(whole, cut, "not known without a compiler")
    if target.chips == 1:
        return Sharding(whole, cut, "one device holds all groups: nothing to shard")
    say(f"{target.name}: scoring with sharded groups")
    execution = dataclasses.replace(request.experiment.execution, shard_groups=True)
    other = dataclasses.replace(request.experiment, execution=execution)
    answer = ask(dataclasses.replace(request, experiment=other), "scoring", options.time_limit)
    assert answer.facts is not None
    if fits(answer.facts, target):
        return Sharding(whole, cut, "sharded: whole sums do not fit, --execution.shard-groups does")
    return Sharding(whole, cut, "neither whole nor sharded sums fit")


def largest_batch(
    request: Request, first: Facts, options: Options, say: Callable[[str], None]
) -> BatchSearch:
    """The largest batch whose training step fits, and that the devices divide.

    Args:
        request: what is planned.
        first: facts of the training step at the experiment's batch.
        options: of the command.
        say: prints a line of progress.

    Returns:
        The batch, and what was tried.
    """
    experiment, target = request.experiment, request.target

    def compile_at(images: int) -> Facts | None:
        say(f"{target.name}: training, {images * target.chips} images a step")
        other = dataclasses.replace(experiment, batch=images * target.chips, mixup=0.0)
        new = dataclasses.replace(request, experiment=other)
        return ask(new, first.name, options.time_limit).facts

    each = experiment.batch // target.chips
    most = request.description.train // target.chips
    return batch_search.search(compile_at, first, each, target.memory, most)


def to_json(plan: Plan) -> dict[str, Any]:
    """The plan in plain values: bytes, seconds and operations, on one device unless said else.

    Args:
        plan: what was planned.

    Returns:
        Numbers, words, lists and tables of them.
    """
    programs = {}
    for name, facts in plan.facts.items():
        floor = plan.floor(name)
        programs[name] = dataclasses.asdict(facts) | {
            "fits": plan.fits(name),
            "total": facts.total,
            "floor": None
            if floor is None
            else dataclasses.asdict(floor) | {"seconds": floor.seconds, "bound": floor.bound},
        }
    chip = plan.target.chip
    return {
        "experiment": config.to_dict(plan.experiment),
        "data": dataclasses.asdict(plan.description),
        "devices": {
            "name": plan.target.name,
            "chip": chip.title,
            "count": plan.target.chips,
            "hosts": plan.target.hosts,
            "memory": plan.target.memory,
            "peak": chip.peak.get(plan.experiment.precision),
            "bandwidth": None if not chip.peak else chip.bandwidth,
        },
        "network": plan.counts,
        "programs": programs,
        "groups": None if plan.sharding is None else dataclasses.asdict(plan.sharding),
        "largest_batch": None if plan.search is None else dataclasses.asdict(plan.search),
        "run": None if plan.time is None else dataclasses.asdict(plan.time),
        "disk": dataclasses.asdict(plan.disk),
        "notes": list(plan.notes),
    }
