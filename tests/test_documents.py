"""The README: its code runs, its commands exist, and the folders that it draws are there."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import fairgrape_jax
from fairgrape_jax import models
from fairgrape_jax.cli.command import Command, parse
from fairgrape_jax.cli.data import DATA_COMMANDS
from fairgrape_jax.cli.main import COMMANDS
from fairgrape_jax.cli.python_files import load_plugins
from fairgrape_jax.data import SOURCES
from fairgrape_jax.data.builders import BUILDERS
from fairgrape_jax.methods import METHODS, Method
from fairgrape_jax.metrics import METRICS
from fairgrape_jax.selection import allocate
from tests.helpers import plugins
from tests.helpers.odd_network import Odd, alive_in, pruned
from tools.reference_pages import help_of

tables = plugins.tables
ROOT = Path(__file__).parents[1]
PACKAGE = Path(fairgrape_jax.__file__).parent
README = (ROOT / "README.md").read_text()
EXTENDING = (ROOT / "docs" / "extending.md").read_text()


def blocks(language, text=README):
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [code for name, code in fenced if name == language]


def test_the_example_of_a_layer_runs():
    names = {}
    exec(blocks("python")[1], names)
    assert names["mask"].sum() == names["layer"].shape[1] // 10


@pytest.mark.parametrize("code", blocks("python", EXTENDING)[:2], ids=["groups", "statistic"])
@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_the_methods_of_the_guide_keep_what_a_method_promises(code, allocation, monkeypatch):
    assert len(code.splitlines()) <= 20
    names = {}
    exec(code, names)
    monkeypatch.setitem(METHODS, "new", Method("a new one", names["score"]))
    monkeypatch.setitem(models.MODELS, "odd", Odd)
    chosen = pruned("new", 0.3, allocation=allocation)
    for layer, wanted in allocate(chosen, 0.3, allocation, minimum=1).items():
        found = alive_in(chosen)
        assert (sum(found.values()) if allocation == "global" else found[layer]) == wanted
    assert "everybody" not in METHODS  # else the guide should show another one


def test_the_arrays_of_the_data_page_are_a_dataset():
    names = {}
    exec(blocks("python", (ROOT / "docs/data.md").read_text())[0], names)
    assert [task.name for task in names["faces"].tasks] == ["smile", "age"]
    assert names["faces"].groups == ("blue", "red")
    assert len(names["faces"].train) == 480


def test_the_rows_of_the_guide_are_registered_from_a_file(tables, tmp_path):
    code = blocks("python", EXTENDING)[-1]
    (tmp_path / "my_rows.py").write_text(code)
    load_plugins([tmp_path / "my_rows.py"])
    assert METHODS.origins["everybody"].file == "my_rows.py"
    params = {"kernel": np.ones((1, 3), np.float32)}
    scores = {"kernel": np.array([[[0.1, 0.4, 0.5]], [[0.8, 0.2, 0.0]]])}
    masks, _ = fairgrape_jax.prune(
        params, fairgrape_jax.full_masks(params), 0.4, method="everybody", scores=scores
    )
    assert masks["kernel"].tolist() == [[False, True, False]]
    counts = [np.array([[[k, 10, 10]] for k in (1, 5, 9)])]
    assert METRICS["middle_group"](counts, counts) == 50.0


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"(?:experiments|docs)/[\w/]+\.\w+", README)))
)
def test_files_that_the_readme_names_exist(path):
    assert (ROOT / path).is_file()


DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"```\w*\n(.*?)```", re.DOTALL)


def commands(path):
    """What stands after `fairgrape` in the code of a document, a line each."""
    text = path.read_text()
    lines = [
        line
        for block in FENCE.findall(text)
        for line in re.sub(r"\\\n\s*", " ", block).splitlines()
    ]
    lines += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", FENCE.sub("", text))]
    found = (re.search(r"(?:^|[ /])fairgrape (?=[a-z-])([^&#]*)", line) for line in lines)
    return [each[1].strip(' "') for each in found if each]


# What a reader puts in place of these.
PLACEHOLDERS = {"EXPERIMENT": "experiments/writers.py", "runs/small": "experiments/writers.py"}
PLACEHOLDERS |= {"data prepare NAME": "data prepare folder_csv", "sheet ...": "sheet synthetic"}
PLACEHOLDERS |= {"--num-processes N": "--num-processes 2", "--process-id I": "--process-id 1"}
PLACEHOLDERS |= {"--process-id $i": "--process-id 0"}
PLACEHOLDERS |= {
    "run RUN": "run experiments/writers.py",
    "run mine.py": "run experiments/writers.py",
}
PLACEHOLDERS |= {"--plugin my_rows.py": ""}
COMMANDS_IN_DOCUMENTS = sorted({line for path in DOCUMENTS for line in commands(path)})


@pytest.mark.parametrize("line", COMMANDS_IN_DOCUMENTS)
def test_a_command_in_the_documents_is_one(line, monkeypatch, capsys):
    """It is parsed as it is printed; nothing is run."""
    monkeypatch.chdir(ROOT)
    if line in COMMANDS or (line.startswith("data ") and line.split()[1] in DATA_COMMANDS):
        line += "" if line.split()[1:2] else " --help"  # its name alone
    for name, meant in PLACEHOLDERS.items():
        line = line.replace(name, meant)
    words = shlex.split(line)
    if words[-1] == "--help":
        with pytest.raises(SystemExit) as stop:
            parse(COMMANDS, words)
        assert not stop.value.code
        assert capsys.readouterr().out.startswith("usage: fairgrape ")
    else:
        assert isinstance(parse(COMMANDS, words), Command)


def test_the_reference_has_every_command():
    page = (ROOT / "docs/reference/command_line.md").read_text()
    helps = re.findall(r"^<!-- help: (.*) -->$", page, re.MULTILINE)
    names = {" ".join(help.split()[: 2 if help.startswith("data") else 1]) for help in helps}
    expected = set(COMMANDS) - {"data"} | {f"data {name}" for name in DATA_COMMANDS}
    assert names == expected - {"data list"}  # which has no options
    assert all(help_of(help.split()) for help in helps)


def test_every_flag_in_the_text_of_the_documents_exists(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    asked = [[name] for name in COMMANDS if name != "data"]
    asked += [["run", "experiments/writers.py", "--dataset", name] for name in SOURCES]
    asked += [["data", name] for name in DATA_COMMANDS]
    asked += [["data", "prepare", name] for name in BUILDERS]
    asked += [["data", "sheet", name] for name in SOURCES]
    for words in asked:
        with pytest.raises(SystemExit):
            parse(COMMANDS, [*words, "--help"])
    known = {"--version", *re.findall(r"--[a-z][\w.-]*", capsys.readouterr().out)}
    for path in (ROOT / "experiments").rglob("*.py"):  # which have flags of their own
        known |= set(re.findall(r"add_argument\(\"(--[\w-]+)", path.read_text()))
    for path in DOCUMENTS:
        codes = re.findall(r"`(--[^`]+)`", FENCE.sub("", path.read_text()))
        named = {flag for code in codes for flag in re.findall(r"--[a-z][\w.-]*", code)}
        assert sorted(flag for flag in named - known if not flag.startswith("--xla_")) == []


def test_make_targets_in_the_readme_exist():
    targets = set(re.findall(r"^make ([\w-]+)", README, re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text()
    assert targets
    assert all(f"\n{target}:" in makefile for target in targets)


def test_the_folders_that_the_readme_draws_are_those_of_the_package():
    inside = README.partition("\nfairgrape_jax/\n")[2].partition("```")[0]
    drawn = set(re.findall(r"(?<=[ (])([a-z_]+)/(?= |,|\n|$)", inside))
    there = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert there <= drawn
