"""A stranger follows the README and the tutorials word by word, with the installed wheel.

In an empty folder, without the tree. Experiments of handwriting are shorter than they are; what
needs data or weights that nobody can carry along is named in NEEDS.
"""

import re
import socket
from pathlib import Path

import pytest

from tests.helpers import stranger

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted(path.name for path in (ROOT / "docs" / "tutorials").glob("*.md"))
pytestmark = pytest.mark.multiprocess
# Words of the README in whose place others stand here, and why.
INSTEAD = {
    # It makes an environment of its own and then runs this.
    "make demo": "fairgrape run experiments/demo.py --out runs/demo",
    # Minutes otherwise.
    "fairgrape run mine.py": "fairgrape run mine.py --seeds 0 --rounds 2 --data.limit 600 "
    "--dense.epochs 1 --dense.rates 1e-3",
    # The pictures of the tutorial.
    "--from FOLDER": "--from pictures",
}
NEEDS = {
    "FOLDER_OR_TAR": "faces",
    "WEIGHTS": "pretrained weights",
    "--data.path FOLDER": "all of MNIST",
}


def steps(page):
    """The Python and the shell of a page, in their order; other blocks are only shown."""
    fence = re.compile(r"^```(python|bash)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    return fence.findall((ROOT / "docs" / "tutorials" / page).read_text())


def readme_commands():
    """The commands of the README's blocks, in their order, each with what it lacks here, or ""."""
    text = (ROOT / "README.md").read_text()
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    blocks = [block.replace("\\\n", " ") for language, block in fences if not language]
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    commands = [line for line in lines if re.match("fairgrape [a-z]|make demo", line)]
    for command in commands:
        need = next((need for word, need in NEEDS.items() if word in command), "")
        for words, others in INSTEAD.items():
            command = command.replace(words, others)
        yield command, need


@pytest.fixture(scope="module")
def bin_(tmp_path_factory):
    return stranger.install(tmp_path_factory.mktemp("machine"))


@pytest.fixture
def folder(tmp_path):
    """An empty folder but for the experiments of a checkout."""
    empty = tmp_path / "empty"
    empty.mkdir()
    stranger.short_experiments(empty)
    return empty


def test_the_package_is_that_of_the_wheel(folder, bin_):
    (printed,) = stranger.follow(
        [("python", "import fairgrape_jax; print(fairgrape_jax.__file__)")], folder, bin_
    )
    assert Path(printed.strip()).is_relative_to(bin_.parent)


def test_every_tutorial_is_followed():
    assert TUTORIALS == ["audit_any_model.md", "my_pictures.md", "on_a_pod.md"]


def test_your_own_pictures(folder, bin_):
    printed = stranger.follow(steps("my_pictures.md"), folder, bin_)
    assert "1,200" in printed[1]
    report = (folder / "runs" / "mine" / "report.html").read_text()
    assert "employee" in report
    assert "student" in report
    assert list(folder.rglob("model.safetensors"))


def test_audit_any_model(folder, bin_):
    assert "students" in stranger.follow(steps("audit_any_model.md"), folder, bin_)[1]
    assert (folder / "audit" / "report.html").is_file()


def test_on_a_pod(folder, bin_):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    of_page = [(language, code.replace("9876", port)) for language, code in steps("on_a_pod.md")]
    assert "training" in stranger.follow(of_page, folder, bin_)[0]
    assert (folder / "runs" / "two" / "report.html").is_file()


def test_the_readme(folder, bin_):
    """With the pictures and the tables that the tutorials begin with."""
    commands = list(readme_commands())
    assert {lack for _, lack in commands} <= {"", *NEEDS.values()}
    done = [command for command, lack in commands if not lack]
    for word in ("list", "new", "run", "report", "recommend", "data", "audit", "export"):
        assert any(f"fairgrape {word}" in command for command in done), word
    for page in ("my_pictures.md", "audit_any_model.md"):
        stranger.follow(steps(page)[:1], folder, bin_)
    stranger.follow([("bash", command) for command in done], folder, bin_)
    assert (folder / "runs" / "demo" / "report.html").is_file()
    assert (folder / "runs" / "mine" / "report.html").is_file()
    assert list(folder.rglob("model.safetensors"))
