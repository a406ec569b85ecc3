"""Near-valid and senseless input of every kind: each is done, or refused in one of our lines.

The short form makes the same cases every time; `make fuzz CASES=n` makes n new ones of all kinds
together and prints how many of each kind ended how.
"""

import contextlib
import io
import math
import os
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fairgrape_jax.cli.main import attempt
from fairgrape_jax.runner import resume
from fairgrape_jax.runner.run import run
from tests.helpers import fuzz_files, fuzz_requests, layouts
from tests.helpers.fuzzing import ENDED, TINY

pytestmark = pytest.mark.whole

CASES = int(os.environ.get("CASES", "2400"))  # of all kinds together in the long form


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What cases begin with: a finished run, prepared data, weights."""
    place = tmp_path_factory.mktemp("made")
    with contextlib.redirect_stdout(io.StringIO()):
        run(TINY, place / "run")
        assert attempt(["report", str(place / "run")]) == 0
        layouts.folder(place / "pictures")
        code = ["data", "prepare", "folder_csv", "--from", place / "pictures", "--data-dir", place]
        assert attempt([str(word) for word in code]) == 0
    return place


# --- the kinds. Each draws a case and tries it.


# A kind: what draws and tries a case; its cases in the fast suite; its share of 2,400 in the long.
KINDS = {
    "command line": (fuzz_requests.command_line, 32, 380),
    "experiment file": (fuzz_requests.experiment_file, 10, 100),
    "configuration": (fuzz_requests.configuration, 40, 400),
    "audit table": (fuzz_files.audit_table, 30, 320),
    "picture table": (fuzz_files.picture_table, 20, 200),
    "layout of pictures": (fuzz_files.layout_of_pictures, 18, 200),
    "prepared dataset": (fuzz_files.prepared_dataset, 18, 200),
    "archive": (fuzz_files.archive_of_faces, 20, 200),
    "state dict": (fuzz_files.state_dict, 16, 200),
    "run directory": (fuzz_files.run_directory, 4, 80),
    "record of a stage": (fuzz_files.record_of_a_stage, 10, 80),
    "whole run": (fuzz_requests.whole_run, 0, 40),
}
PHASES = [Phase.generate, Phase.shrink]  # without explaining, which traces every line
HEALTH = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


def fuzz(kind, count, made, *, again):
    """`count` cases of a kind; again: the same ones every time."""

    @settings(max_examples=count, deadline=None, derandomize=again, database=None, print_blob=True,
              suppress_health_check=HEALTH, phases=PHASES)  # fmt: skip
    @given(st.data())
    def cases(data):
        with pytest.MonkeyPatch.context() as patch:
            KINDS[kind][0](data, made, patch)

    cases()


@pytest.mark.parametrize("kind", [kind for kind, (_, count, _) in KINDS.items() if count])
def test_every_case_is_done_or_refused_in_one_line(kind, made):
    fuzz(kind, KINDS[kind][1], made, again=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_new_cases(kind, made, capfd):
    fuzz(kind, math.ceil(KINDS[kind][2] * CASES / 2400), made, again=False)
    ended = {how: count for (of, how), count in sorted(ENDED.items()) if of == kind}
    line = ", ".join(f"{count} {how}" for how, count in ended.items())
    with capfd.disabled():
        print(f"\n{kind:<19}{sum(ended.values()):>6} cases: {line}", flush=True)


# --- the newest round, damaged at any place


def damaged(content, how, place):
    if how == "truncated":
        return content[: place % len(content)]
    if how == "a bit flipped":
        at = place % len(content)
        return content[:at] + bytes([content[at] ^ 1 << place % 8]) + content[at + 1 :]
    return b"" if how == "emptied" else None


def test_two_hundred_damages_to_the_newest_round_are_found_and_named(made, tmp_path, capsys):
    """Every file, each way, bits and cuts at random places: found before use, the round before
    it is gone on from, and said by name (unless nothing is left that could tell of a round)."""
    shutil.copytree(made / "run" / "seed_0" / "magnitude", tmp_path / "magnitude")
    newest = tmp_path / "magnitude" / "round_02"
    files = sorted(path for path in newest.rglob("*") if path.is_file() and path.stat().st_size)
    rng = np.random.default_rng(0)
    tried = 0
    while tried < 200:
        for path in files:
            content = path.read_bytes()
            for how in ("truncated", "a bit flipped", "emptied", "deleted"):
                changed = damaged(content, how, int(rng.integers(1 << 40)))
                path.unlink() if changed is None else path.write_bytes(changed)
                assert resume.last_intact_round(newest.parent, 2) == 1, (path, how)
                said = capsys.readouterr().out
                assert path.name in said or (path.name, how) == ("metrics.json", "deleted"), said
                path.write_bytes(content)
                tried += 1
    assert resume.last_intact_round(newest.parent, 2) == 2


def test_half_a_line_of_metrics_is_made_whole_by_the_same_command(made, tmp_path):
    """Though every stage is complete, and whatever stood in the file."""
    shutil.copytree(made / "run", tmp_path / "run")
    log = tmp_path / "run" / "metrics.jsonl"
    whole = log.read_bytes()
    for damage in (
        whole[:-20],
        whole + b'{"seed": 0, "meth',
        b"\xff\x00",
        b"",
        whole[len(whole) // 2 :],
    ):
        log.write_bytes(damage)
        run(TINY, tmp_path / "run")
        assert log.read_bytes() == whole
