"""A notice of preemption: at every kind of place a run saves, ends, and loses no step."""

import dataclasses
import multiprocessing
import os
import re
import signal
import threading
import time

import pytest

from fairgrape_jax import config
from fairgrape_jax.config import KeepLast, Scoring, Stage
from fairgrape_jax.data.prefetch import prefetch
from fairgrape_jax.errors import Preempted
from fairgrape_jax.parallel import preemption
from fairgrape_jax.rounds import select, steps
from fairgrape_jax.runner import run as rounds
from tests.helpers.experiments import TINY, assert_same, stage_files, with_fields
from tests.helpers.processes import EXPERIMENT, SAVING, Cluster, start

SMALL = with_fields(
    TINY,
    seeds=(0,),
    methods=("fairgrape",),
    dense=Stage((2, 1), (1e-2, 1e-3), best=True),
    final=Stage((1,), (1e-3,), best=True),
    scoring=Scoring(fraction=0.2, micro_batch=16, select="greedy"),
    checkpoints=KeepLast(),
    evaluation_batch=16,
)


@pytest.fixture
def made(monkeypatch):
    """What is made, in order: the number of each training step, "score", "evaluate", "choose"."""
    build, prune, found = steps.build, select.prune, []

    def counted(*args):
        compiled = build(*args)

        def train(carry, *rest):
            found.append(int(carry.state.step))
            return compiled.train(carry, *rest)

        def accumulate(*how):
            return noting("score", compiled.accumulate(*how))

        evaluate = noting("evaluate", compiled.evaluate)
        return dataclasses.replace(compiled, train=train, accumulate=accumulate, evaluate=evaluate)

    def noting(what, step):
        def noted(*args):
            found.append(what)
            return step(*args)

        return noted

    monkeypatch.setattr(steps, "build", counted)
    monkeypatch.setattr(select, "prune", lambda *given: (found.append("choose"), prune(*given))[1])
    return found


@pytest.mark.whole
def test_a_run_with_notices_all_along_loses_no_step_and_leaves_the_same_bits(
    tmp_path, monkeypatch, made, capsys
):
    """No step of training, no micro-batch of a scoring and no batch of an evaluation."""
    rounds.run(SMALL, tmp_path / "whole")
    whole = made.copy()
    made.clear()
    noticed, places = {"after": 0}, []

    def reached():
        noticed["after"] -= 1
        return noticed["after"] == 0

    monkeypatch.setattr(preemption, "stop_requested", reached)
    for number in range(60):
        noticed["after"] = 5 + number % 4
        try:
            rounds.run(SMALL, tmp_path / "run")
        except Preempted as place:
            places.append(str(place))
        else:
            break
    assert [step for step in made if step != "choose"] == [s for s in whole if s != "choose"]
    steps_made = [step for step in made if isinstance(step, int)]
    assert steps_made == list(range(len(steps_made)))
    assert len(places) > 6
    assert any("round 1/3, saved after epoch 0, step" in place for place in places)
    assert any("in the scoring, kept after batch" in place for place in places)
    assert any("in the evaluation, kept after batch" in place for place in places)
    assert "going on after epoch" in capsys.readouterr().out
    assert_same(stage_files(tmp_path / "run"), stage_files(tmp_path / "whole"))
    assert not list((tmp_path / "run").rglob("partial"))


@pytest.mark.parametrize("number", preemption.SIGNALS, ids=lambda number: number.name)
def test_a_signal_is_noted_and_handlers_come_back(number, capfd):
    before = [signal.getsignal(each) for each in preemption.SIGNALS]
    with preemption.catch_signals():
        assert not preemption.stop_requested()
        os.kill(os.getpid(), number)
        with pytest.raises(Preempted, match="in the wait"):
            preemption.stop_if_requested("the wait")
        code = preemption.exit_code()
        if number == signal.SIGINT:
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)
        else:
            os.kill(os.getpid(), number)  # schedulers repeat themselves
    assert code == (130 if number == signal.SIGINT else 75)
    assert [signal.getsignal(each) for each in preemption.SIGNALS] == before
    assert f"{number.name}: stopping after this step" in capfd.readouterr().err
    with preemption.catch_signals():
        assert not preemption.stop_requested()


def test_outside_the_main_thread_nothing_is_watched():
    def body():
        with preemption.catch_signals():
            handlers.append(signal.getsignal(signal.SIGTERM))

    handlers = []
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM)]


@pytest.mark.multiprocess
def test_processes_that_read_are_not_ended_by_a_notice():
    """Schedulers tell the whole group of processes."""
    batches = prefetch(lambda number: number * number, range(60), workers=2)
    found = [next(batches)]
    readers = multiprocessing.active_children()
    assert len(readers) == 2
    for reader in readers:
        os.kill(reader.pid, signal.SIGTERM)
    assert [*found, *batches] == [number * number for number in range(60)]


def test_a_process_that_gets_sigterm_ends_with_the_code_for_requeueing(tmp_path):
    """In the middle of a training that would take minutes."""
    (tmp_path / "small.py").write_text(EXPERIMENT)
    command = ["-c", SAVING, *["run", "small.py", "--out", "run", "--dense.epochs", "4000"]]
    process = Cluster(tmp_path, [command], [1])
    saved = tmp_path / "run/seed_0/dense/partial"
    process.wait_for(lambda _: any(saved.glob("*/digests.json")))
    process.processes[0].send_signal(signal.SIGTERM)
    started = time.monotonic()
    assert process.wait() == [preemption.EXIT_REQUEUE], process.said()
    assert time.monotonic() - started < 20  # SLURM and Kubernetes give 30 seconds
    assert "SIGTERM: stopping after this step" in process.said()
    assert "the same command goes on from here" in process.said()
    assert not list((tmp_path / "run").rglob("*.lock"))


# The second process gets a notice when the scoring of the first round begins, once; jax takes a
# moment to tell the other, and so the scoring is slow.
TOLD = """
import os, signal, time
import jax
from fairgrape_jax.cli import main as cli
from fairgrape_jax.storage import resumable

fold = resumable.Passes.__call__

def slow_fold(passes, step, *rest, key, **options):
    scoring = key["pass"] == "scoring" and key["result"] != "totals"

    def slow(*args):
        time.sleep(0.05 * scoring)
        return step(*args)

    if scoring and jax.process_index() == 1 and not os.path.exists("told"):
        open("told", "x").close()
        os.kill(os.getpid(), signal.SIGTERM)
    return fold(passes, slow, *rest, key=key, **options)

resumable.Passes.__call__ = slow_fold
raise SystemExit(cli.main())
"""


@pytest.mark.multiprocess
def test_two_processes_stop_within_a_scoring_and_go_on_with_their_sums(tmp_path):
    extra = ("--scoring.micro_batch", "1", "--scoring.fraction", "1")
    two = start(tmp_path, "run", *extra, devices=(2, 2), main=TOLD)
    assert two.wait() == [preemption.EXIT_REQUEUE] * 2, two.said()
    places = set(re.findall(r"stopped in the scoring, kept after batch (\d+)", two.said()))
    assert len(places) == 1, two.said()
    kept = tmp_path / "run/seed_0/fairgrape/round_01/partial/passes"
    assert len(list(kept.glob("scoring_*.[01].json"))) == 2
    again = start(tmp_path, "run", *extra, devices=(2, 2))
    assert again.wait() == [0, 0], again.said()
    assert f"the scoring: going on after batch {places.pop()}" in again.said()
    whole = start(tmp_path, "whole", *extra, devices=(2, 2))
    assert whole.wait() == [0, 0], whole.said()
    assert_same(stage_files(tmp_path / "run"), stage_files(tmp_path / "whole"))


@pytest.mark.multiprocess
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_one_of_two_processes_gets_the_notice_and_both_save_the_same_step(tmp_path, number):
    """And go on in one process; the scoring of 1 and of 2 processes is the same here."""
    extra = ("--final.epochs", "40")
    two = start(tmp_path, "run", *extra, devices=(1, 1))
    two.wait_for(lambda said: "round 1/2 " in said)
    time.sleep(1)
    two.processes[1].send_signal(number)
    assert two.wait() == [preemption.EXIT_REQUEUE] * 2, two.said()
    saved = [line for line in two.said().splitlines() if "fairgrape: stopped" in line]
    assert len(saved) == 2
    assert saved[0] == saved[1]
    again = start(tmp_path, "run", *extra, devices=(1, 1))
    assert again.wait() == [0, 0], again.said()
    whole = start(tmp_path, "whole", *extra, devices=(1, 1))
    assert whole.wait() == [0, 0], whole.said()
    found, wanted = (config.load(tmp_path / name / "config.json") for name in ("run", "whole"))
    assert found == wanted
    for name in ("masks.npz", "predictions.csv"):
        stages = sorted(
            path.relative_to(tmp_path / "whole") for path in tmp_path.glob(f"whole/**/{name}")
        )
        assert len(stages) == 3
        for stage in stages:
            ours, theirs = ((tmp_path / run / stage).read_bytes() for run in ("run", "whole"))
            assert ours == theirs, stage
