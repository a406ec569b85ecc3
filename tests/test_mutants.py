"""The tool of `make mutants`: what it changes, what becomes of it, its list of equivalent ones."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from tools import mutants


def changed(text):
    return {mutant.after for mutant in mutants.mutants("a.py", text, mutants.FULL)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = a < b", {"x = a <= b", "x = a > b"}),
        ("x = a == b != c", {"x = a != b != c", "x = a == b == c"}),
        ("x = a + b * c", {"x = a - b * c", "x = a + b / c"}),
        ("x = a and b", {"x = a or b"}),
        ("x = not a", {"x = a"}),
        ("x = True", {"x = False"}),
        ("x = 7", {"x = 8", "x = 6"}),
        ("x = min(a, b)", {"x = max(a, b)"}),
        ("x = np.floor(a)", {"x = np.ceil(a)"}),
        ("x += a", {"x -= a", "pass"}),
        ("f(a)", {"pass"}),
        ("x = a if b else c", {"x = a", "x = c"}),
        ("x = [a for a in b if a]", {"x = [a for a in b]"}),
        ("if a:\n    b = c", {"if True:", "if False:"}),
        ("for a in b:\n    break", {"for a in []:", "continue"}),
        ("try:\n    a = b\nexcept OSError:\n    a = c", {"except NotImplementedError:"}),
        ("def f():\n    return a", {"return None"}),
        # No mutants: of text, of annotations, of what is None already.
        ('"""Text, 1 < 2."""\nx = "a"', set()),
        ("def f(x: int | None = None, *, y: Literal[1]) -> int | str:\n    return None", set()),
        ("x: int | str = a", set()),
    ],
)
def test_each_kind_of_change_is_made_and_nothing_else(text, expected):
    assert changed(text) == expected


def test_a_mutant_is_the_whole_module_with_one_change():
    text = "def f(x):\n    return x + 1\n\n\ndef g(x):\n    return x + 1\n"
    found = mutants.mutants("a.py", text, mutants.FULL)
    assert len({mutant.source for mutant in found}) == len(found) == 8
    assert {mutant.line for mutant in found} == {2, 6}
    for mutant in found:
        lines = mutant.source.splitlines()
        assert sum(line.strip() == "return x + 1" for line in lines) == 1


def test_every_module_of_the_table_and_its_tests_are_there():
    package = mutants.ROOT / "fairgrape_jax"
    for path, (_, tests) in mutants.TARGETS.items():
        assert (package / path).exists(), path
        for test in tests:
            assert (mutants.ROOT / test).exists(), test
    assert mutants.part_of("selection/greedy.py")[0] == mutants.FULL
    assert mutants.part_of("selection/maxmin/tree.py")[0] == mutants.SAMPLE
    assert mutants.part_of("cli/main.py") is None


def test_every_equivalent_mutant_is_one_of_its_module():
    listed = list(mutants.equivalent())
    assert len(set(listed)) == len(listed)
    for path in {path for path, _, _ in listed}:
        text = (mutants.ROOT / "fairgrape_jax" / path).read_text(encoding="utf-8")
        there = {mutant.key for mutant in mutants.mutants(path, text, mutants.FULL)}
        assert [key for key in listed if key[0] == path and key not in there] == []


def test_a_mutant_without_a_reason_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(mutants, "EQUIVALENT", tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("# why\n\na.py\n- x = 1\n+ x = 2\n")
    with pytest.raises(SystemExit, match="give a reason"):
        list(mutants.equivalent())


@pytest.mark.parametrize(
    ("source", "limit", "how"),
    [
        ("def test(): assert True", 60, "survived"),
        ("def test(): assert False", 60, "killed"),
        ("import time\ndef test(): time.sleep(60)", 0.5, "time"),
    ],
)
def test_what_became_of_a_mutant(tmp_path, monkeypatch, source, limit, how):
    """Tried as all are, in a process of its own, with a module of another source."""

    def run(path, source, log):
        names = {}
        exec(source, names)
        names["test"]()
        return 0

    monkeypatch.setattr(mutants, "run_tests", run)
    # A fork of this process alone; jax warns of any.
    monkeypatch.setattr(os, "fork", forked(os.fork))
    child = mutants.start("a.py", source, tmp_path)
    running = {child: ("a", mutants.time.monotonic() + limit)}
    assert mutants.wait(running) == ("a", how)
    assert not running


def forked(fork):
    import warnings

    def quiet():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return fork()

    return quiet


def test_the_tests_of_a_module_are_tried_in_the_order_of_its_row():
    items = [SimpleNamespace(path=mutants.ROOT / file) for file in ("a.py", "b.py", "a.py")]
    mutants.in_order(["b.py", "a.py"]).pytest_collection_modifyitems(items)
    assert [item.path.name for item in items] == ["b.py", "a.py", "a.py"]


def test_a_module_is_imported_from_the_other_source(monkeypatch):
    path = mutants.ROOT / "fairgrape_jax" / "escape.py"
    finder = mutants.Mutated("fairgrape_jax.escape", path, "MUTATED = 7\n")
    assert mutants.module_name("metrics/__init__.py") == "fairgrape_jax.metrics"
    spec = finder.find_spec("fairgrape_jax.escape")
    assert Path(spec.origin) == path
    names = {}
    exec(spec.loader.get_code("fairgrape_jax.escape"), names)
    assert names["MUTATED"] == 7
    assert finder.find_spec("fairgrape_jax.masks") is None


def test_the_score_has_wilsons_interval():
    one = mutants.mutants("masks.py", "x = 7\ny = a < b\nz = a + b", mutants.FULL)
    lines = mutants.score({mutant: "killed" for mutant in one[1:]} | {one[0]: "survived"})
    # Of 4 of 5, by hand: (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n).
    assert [line.split() for line in lines[1:4]] == [
        [*name.split(), "5", "4", "80.0", "37.6", "-", "96.4"]
        for name in ("masks.py", "all", "all in full")
    ]
