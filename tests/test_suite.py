"""The suite's own rules: what tests may import and name, kept programs, what a run costs."""

import ast
import dataclasses
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import jax
import numpy as np
import pytest
from jax._src import compiler
from PIL import Image

from fairgrape_jax.config import Rollback, Stage
from fairgrape_jax.data import load
from fairgrape_jax.remedies import Remedy
from fairgrape_jax.reports import drawing
from fairgrape_jax.rounds.session import open_session
from tests.helpers import compile_cache, cpu, few_passes, shared_steps, unrendered, whole
from tests.helpers.experiments import TINY, with_fields

TESTS = Path(__file__).parent
FILES = sorted(TESTS.rglob("*.py"))
SOURCES = list((TESTS.parent / "fairgrape_jax").rglob("*"))
MODULES = sorted(path.stem for path in SOURCES if path.is_dir() or path.suffix == ".py")
OURS = "|".join(["fairgrape_jax", *MODULES])
PRIVATE = re.compile(rf"(?<![\w.])(?:{OURS})(?:\.\w+)*[.:]_[a-z]\w*")  # a.b:_c, in any string


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{a.name}" for a in node.names)


def strings(tree):
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return [node.value for node in nodes if isinstance(node.value, str)]


def faults(text):
    """What a test file has that it may not have."""
    tree = ast.parse(text)
    texts = strings(tree)
    inside = re.compile(r"(?:from|import)\s+(\.*tests\b[\w.]*)")
    names = [*imported(tree), *(name for text in texts for name in inside.findall(text))]
    others = [n for n in names if n.startswith((".", "tests")) and "helpers" not in n]
    return others + [name for text in texts for name in PRIVATE.findall(text)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_no_test_imports_another_one_or_names_what_is_private(path):
    assert faults(path.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        "from T.data import test_records",
        "from T.data.test_records import read",
        "from .test_records import read",
        "import T.data.test_records",
        "CODE = 'import os\\nfrom T.data import test_records as t'",
        "POINT = 'storage.lock:-create'",
        "monkeypatch.setattr('fairgrape_jax.rounds.train.-begin', None)",
        "CODE = 'from pathlib import Path\\nprepare.-look = None'",
    ],
)
def test_the_rule_above_finds_what_it_is_for(text):
    assert faults(text.replace("T.", "tests.").replace("-", "_")) != []


# --- programs that outlive a test run


def environment(tmp_path):
    return {"XDG_CACHE_HOME": str(tmp_path)}


def test_programs_are_kept_in_the_users_cache_folder_by_versions(tmp_path):
    found = environment(tmp_path)
    assert compile_cache.use(found) == ""
    place = Path(found["JAX_COMPILATION_CACHE_DIR"])
    assert place.parent == tmp_path / "fairgrape_jax" / "tests"
    assert re.fullmatch(r"jax-[\d.]+_jaxlib-[\d.]+_fairgrape-jax-\S+_python-3[\d.]+", place.name)
    assert place.is_dir()
    given = {"JAX_COMPILATION_CACHE_DIR": "elsewhere"}
    assert compile_cache.use(given) == ""
    assert given["JAX_COMPILATION_CACHE_DIR"] == "elsewhere"


@pytest.mark.parametrize("place", ["/dev/null/cache", "/proc/nothing"])
def test_where_nothing_can_be_kept_it_is_said_and_the_run_goes_on(place):
    found = {"XDG_CACHE_HOME": place}
    line = compile_cache.use(found)
    assert line.startswith("compiled programs are not kept after this test run (")
    assert place in line
    assert Path(found["JAX_COMPILATION_CACHE_DIR"]).is_dir()


def test_old_versions_and_what_is_too_much_are_removed(tmp_path, monkeypatch):
    place = compile_cache.place(environment(tmp_path))
    for age in range(6):
        old = place.parent / f"old{age}"
        old.mkdir(parents=True)
        os.utime(old, (10_000 - age, 10_000 - age))
    place.mkdir()
    monkeypatch.setattr(compile_cache, "LIMIT", 250)
    now = time.time()
    for age in range(5):
        path = place / f"jit_{age}-cache"
        path.write_bytes(bytes(100))
        os.utime(path, (now - 60 * age, now - 60 * age))
    (place / f"{compile_cache.PART}1").touch()
    (place / f"{compile_cache.PART}2").touch()
    os.utime(place / f"{compile_cache.PART}2", (0, 0))
    compile_cache.prepare(place)
    assert {path.name for path in place.parent.iterdir()} == {place.name, "old0", "old1", "old2"}
    left = {path.name for path in place.iterdir()}
    assert left == {"jit_0-cache", "jit_1-cache", f"{compile_cache.PART}1"}


WRITE = """
import sys
from pathlib import Path
from jax._src.lru_cache import LRUCache
from tests.helpers import compile_cache
compile_cache.write_whole()
cache = LRUCache(sys.argv[1], max_size=-1)
for number in range(40):
    cache.put(f"jit_{number}", bytes([number]) * 1_000_000)
"""


def test_programs_are_written_whole_whatever_else_is_running(tmp_path):
    """Looked at all along, no file is ever shorter than it will be; what is there stays."""
    (tmp_path / "jit_3-cache").write_bytes(b"there")
    writer = subprocess.Popen([sys.executable, "-c", WRITE, str(tmp_path)], cwd=TESTS.parent)
    looks = 0
    while writer.poll() is None:
        sizes = {path.stat().st_size for path in tmp_path.glob("jit_*-cache")}
        assert sizes <= {5, 1_000_000}
        looks += len(sizes) > 1
    assert writer.returncode == 0
    assert len(list(tmp_path.iterdir())) == 40
    assert (tmp_path / "jit_3-cache").read_bytes() == b"there"
    assert looks


# --- which tests are of the fast suite


def item(name, *marks):
    return SimpleNamespace(nodeid=f"a.py::{name}", own_markers=[m.mark for m in marks])


@pytest.mark.parametrize(("rows", "but"), [(1, 1), (2, 5), (7, 1), (7, 3), (156, 52)])
def test_of_a_table_so_many_rows_stay_spread_evenly(rows, but):
    of_table = pytest.mark.whole(but=but)
    table = [item(f"table[{row}]", pytest.mark.slow, of_table) for row in range(rows)]
    alone, other = item("alone", pytest.mark.whole), item("other[0]", pytest.mark.browser)
    whole.keep_some([alone, *table, other])
    left = [row for row, one in enumerate(table) if len(one.own_markers) == 1]
    assert len(left) == min(rows, but)
    assert left[0] == 0
    assert set(np.diff(left)) <= {rows // but, rows // but + 1}
    assert [mark.name for mark in alone.own_markers] == ["whole"]
    assert [mark.name for mark in other.own_markers] == ["browser"]


def test_the_fast_suite_has_rows_of_a_table_that_is_among_the_whole_runs(tmp_path):
    text = "import pytest\n@pytest.mark.whole(but=2)\n@pytest.mark.parametrize('row', 'abcd')\n"
    (tmp_path / "test_it.py").write_text(text + "def test_it(row): assert row\n")
    for mark, names in (("not whole", "ac"), ("whole", "bd")):
        command = ["-m", "pytest", "-c", "pyproject.toml", "-m", mark, "--collect-only"]
        command += ["--rootdir", str(TESTS.parent), "--confcutdir", str(TESTS)]
        done = subprocess.run(
            [sys.executable, *command, "-p", "tests.conftest", str(tmp_path)],
            capture_output=True,
            text=True,
            cwd=TESTS.parent,
        )
        assert re.findall(r"\[(\w)\]", done.stdout) == list(names), done.stdout + done.stderr


# --- what a run costs

BURN = "import time\nwhile time.process_time() < {}: pass\nprint('done', flush=True)\ninput()"


def test_the_time_of_all_processes_is_counted_while_they_run_and_when_they_have_ended():
    before = cpu.used()
    inner = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BURN.format(0.3)!r}])"
    child = subprocess.Popen(
        [sys.executable, "-c", inner], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "done\n"
    during = cpu.used()
    child.communicate("\n")
    after = cpu.used()
    assert during - before > 0.25
    assert after - during < 0.25  # not counted twice
    assert after - before > 0.25


@pytest.mark.parametrize(
    ("minutes", "state", "text", "over"),
    [
        (7.96, "warm", "CPU: 8.0 minutes, under the ceiling of 8 (warm compile cache)", False),
        (13.0, "cold", "CPU: 13.0 minutes, under the ceiling of 14 (cold compile cache)", False),
        (13.0, "warm", "CPU: 13.0 minutes, OVER the ceiling of 8 (warm compile cache); ", True),
        (14.1, "cold", "CPU: 14.1 minutes, OVER the ceiling of 14 (cold compile cache); ", True),
    ],
)
def test_the_line_says_what_was_used_and_whether_it_was_too_much(minutes, state, text, over):
    line, found = cpu.line(60 * minutes, state)
    assert line.startswith(text)
    assert found == over


@pytest.mark.parametrize(
    ("looked", "there", "state"),
    [(0, 0, "warm"), (100, 0, "cold"), (100, 89, "cold"), (100, 90, "warm"), (100, 100, "warm")],
)
def test_a_run_is_cold_where_many_of_its_programs_had_to_be_compiled(looked, there, state):
    assert cpu.state({cpu.LOOKED: looked, cpu.THERE: there}) == state


def test_jax_tells_of_programs_that_it_looks_for_and_that_are_there():
    """Under the names that are counted: the second time it is read."""
    events = []
    jax.monitoring.register_event_listener(lambda event, **details: events.append(event))
    for found in (None, cpu.THERE):
        jax.jit(lambda x: x * 17.25 - 3)(1.0)
        assert cpu.LOOKED in events
        assert found is None or found in events


@pytest.mark.parametrize("few", [False, True])
def test_few_passes_are_made_here_and_in_processes_that_are_started(few):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("XLA_FLAGS", raising=False)  # the fixture's
        before = jax.config.read("jax_disable_most_optimizations")
        jax.config.update("jax_disable_most_optimizations", few)
        try:
            made = compiler.get_compile_options(1, 1)
            variables = few_passes.environment()
        finally:
            jax.config.update("jax_disable_most_optimizations", before)
    older = few and few_passes.has_option()
    assert made.env_option_overrides == [(few_passes.OPTION, False)] * older
    assert made.executable_build_options.debug_options.xla_llvm_disable_expensive_passes == few
    assert variables.get("XLA_FLAGS") == (f"--{few_passes.OPTION}=false" if older else None)
    read = "jax.config.read('jax_disable_most_optimizations')"
    code = f"import jax; print({read}, jax.jit(lambda x: x + 1)(1))"
    environment = {k: v for k, v in os.environ.items() if k not in few_passes.environment()}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment | variables, capture_output=True, text=True
    )
    assert done.stdout == f"{few} 2\n", done.stderr


def test_an_option_that_xla_does_not_know_is_not_given(monkeypatch):
    monkeypatch.setattr(few_passes, "OPTION", "xla_has_no_such_option")
    assert not few_passes.has_option.__wrapped__()


def test_charts_that_are_not_rendered_are_files_of_their_kind_all_the_same(tmp_path):
    drawn = []
    chart = drawing.Chart("a < b", 1.0, lambda axes: drawn.append(axes.plot([1, 2])))
    with unrendered.charts():
        page = drawing.svg(chart, "x")
        drawing.png(tmp_path / "a.png", [chart, chart])
    assert len(drawn) == 3
    assert ElementTree.fromstring(page).attrib["aria-label"] == "a < b"
    with Image.open(tmp_path / "a.png") as image:
        assert image.getpixel((0, 0)) == 255
    with unrendered.charts(["png"]):
        drawing.png(tmp_path / "b.png", [chart])
        assert len(drawing.svg(chart, "x")) > 2 * len(page)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert len(drawing.svg(chart, "x")) > 2 * len(page)  # afterwards they are again


@pytest.mark.multiprocess
@pytest.mark.parametrize(("processes", "asked", "code"), [(0, "", 0), (2, "fail", 1)])
def test_a_run_over_the_ceiling_says_so_and_fails_where_it_is_to(tmp_path, processes, asked, code):
    (tmp_path / "low.py").write_text("from tests.helpers import cpu\ncpu.CEILINGS = {'cold': 0}\n")
    command = ["-m", "pytest", "-p", "low", "-n", str(processes), "--cpu-durations", "3"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("JAX_COMPILATION_CACHE_DIR")
    done = subprocess.run(
        [sys.executable, *command, "tests/test_escape.py", "fairgrape_jax/escape.py"],
        **{"cwd": TESTS.parent, "capture_output": True, "text": True},
        env=environment | {"FAIRGRAPE_CPU_CEILING": asked},
    )
    assert done.returncode == code, done.stdout
    found = re.search(r"CPU: ([\d.]+) minutes, OVER the ceiling of 0 \(cold", done.stdout)
    assert float(found[1]) * 60 > 1 + processes
    assert re.search(r" \d+\.\d s  tests/test_escape.py", done.stdout)


# --- steps that runs share


def test_runs_share_the_steps_that_would_be_built_alike_and_no_others():
    dataset = load(TINY.data)

    def steps_of(dataset=dataset, devices=1, **changes):
        experiment = with_fields(TINY, **changes)
        return open_session(experiment, dataset, jax.local_devices()[:devices]).steps

    with shared_steps.shared():
        one = steps_of()
        assert one is steps_of(seeds=(7,), methods=("random",), sparsity=0.5, retrain=Stage())
        assert one is steps_of(checkpoints="last", rollback=Rollback(2))
        assert one is steps_of(load(TINY.data))
        changes = [
            {"batch": 16},
            {"evaluation_batch": 7},
            {"optimizer": "sgd"},
            {"momentum": 0.5},
            {"weight_decay": 0.1},
            {"augmentation": "flip"},
            {"mixup": 0.2},
            {"lift": "shard_map"},
            {"shard_groups": True},
            {"micro_batches": "vmap"},
            {"precision": "bfloat16"},
            {"sync_batch_stats": False},
            {"model": "mlp"},
            {"remedy": Remedy(kd=1.0)},
            {"scoring": dataclasses.replace(TINY.scoring, micro_batch=8)},
            {"devices": 2},
            {"dataset": dataclasses.replace(dataset, mean=(0.1,) * 3)},
        ]
        for change in changes:
            found = steps_of(**change)
            assert found is not one, change
            assert found is steps_of(**change), change
    assert steps_of() is not one
