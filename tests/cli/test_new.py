"""`fairgrape new`: files that run at once, and names that are refused."""

import pytest

from fairgrape_jax import config
from fairgrape_jax.cli.main import main
from fairgrape_jax.cli.new import TEMPLATES, text
from fairgrape_jax.cli.run import load
from tests.helpers import plugins

tables = plugins.tables
# What makes a run of it tiny; the file itself is run as it stands by a slow test.
FEW = {
    "writers": "--model mlp --data.limit 300 --data.limit-evaluation 100 --data.size 8",
    "arrays": "--seeds 0",
    "rows": "--data.samples 400 --seeds 0",
}
TINY = "--dense.epochs 1 --rounds 1 --scoring.select greedy --execution.devices 1"


@pytest.fixture
def folder(tmp_path, monkeypatch, tables):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.whole(but=1)
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_new_file_runs(template, folder, capsys):
    assert main(["new", "mine", "--template", template]) == 0
    assert "`fairgrape run mine.py` does it" in capsys.readouterr().out
    assert [path.name for path in folder.iterdir()] == ["mine.py"]
    assert "NAME" not in (folder / "mine.py").read_text()
    config.check(load(folder / "mine.py"))
    assert main(["run", "mine.py", *TINY.split(), *FEW[template].split()]) == 0
    assert (folder / "runs/mine/report.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_new_file_runs_as_it_stands(template, folder):
    assert main(["new", "mine", "--template", template]) == 0
    assert main(["run", "mine.py"]) == 0


def test_the_default_is_embedded_handwriting(folder):
    assert main(["new", "first-try.py"]) == 0
    written = (folder / "first-try.py").read_text()
    assert written == text("writers").replace("NAME", "first-try")
    assert load(folder / "first-try.py").data.name == "writers"


@pytest.mark.parametrize("name", ["", "a/b", "../a", "a b", "1st", "a.b", ".py", "ä", "a" * 65])
def test_a_name_that_is_none_is_refused(name, folder, capsys):
    assert main(["new", name]) == 2
    error = capsys.readouterr().err
    assert "no name for an experiment" in error or "Unrecognized" in error or "-a" in error
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["random", "jax", "numpy.py", "fairgrape_jax", "__main__"])
def test_a_name_that_would_hide_a_module_is_refused(name, folder, capsys):
    assert main(["new", name]) == 2
    assert "would hide the Python module" in capsys.readouterr().err
    assert list(folder.iterdir()) == []


def test_nothing_is_overwritten(folder, capsys):
    (folder / "mine.py").write_text("x = 1\n")
    assert main(["new", "mine"]) == 2
    assert "mine.py: is there already" in capsys.readouterr().err
    assert (folder / "mine.py").read_text() == "x = 1\n"


def test_an_unknown_template_is_refused_by_name(folder, capsys):
    assert main(["new", "mine", "--template", "faces"]) == 2
    assert "unknown template 'faces': choose from writers, arrays" in capsys.readouterr().err


def test_the_list_is_never_empty(folder, capsys):
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    for name in (
        *TEMPLATES,
        "fairgrape new NAME",
        "mobilenet_v2",
        "lottery",
        "arrays",
        "rho_change",
    ):
        assert name in listed
