"""A stranger's machine: the wheel in a fresh environment, an empty folder, nothing of the tree."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("fairgrape_jax", "pyproject.toml", "setup.cfg", "README.md", "LICENSE")


def install(folder):
    """The `bin` of an environment with the wheel in it; its dependencies are those of the tests.

    The wheel is built from a copy, so that nothing is left in the tree. Skips, saying why, where
    it cannot be built: its build needs setuptools, from here or from a registry.
    """
    uv = shutil.which("uv", path=sysconfig.get_path("scripts")) or shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed: the wheel is not built")
    tree, bin_ = folder / "tree", folder / "venv" / "bin"
    tree.mkdir(parents=True)
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tree / name)
    build = [uv, "build", "--quiet", "--wheel", "--out-dir", folder / "dist", tree]
    built = subprocess.run(build, capture_output=True, text=True, timeout=300)
    if built.returncode and re.search(r"[Nn]etwork|connect|resolve|fetch|offline", built.stderr):
        pytest.skip(f"setuptools cannot be fetched to build the wheel: {built.stderr[-300:]}")
    assert built.returncode == 0, built.stderr
    (wheel,) = (folder / "dist").glob("*.whl")
    shutil.rmtree(tree)
    for words in (
        [uv, "venv", "--quiet", "--python", sys.executable, bin_.parent],
        [uv, "pip", "install", "--quiet", "--no-deps", "--python", bin_ / "python", wheel],
    ):
        subprocess.run(words, check=True, capture_output=True, timeout=300)
    (packages,) = (bin_.parent / "lib").glob("python*/site-packages")
    # After the wheel in the path; the files here that would add the tree to it are not read there.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return bin_


def follow(steps, folder, bin_):
    """Do every step in the folder; all Python of a page is one session, as a reader's would be.

    Returns what each step printed.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST"))}
    environment |= {
        "PATH": f"{bin_}{os.pathsep}{environment['PATH']}",
        "HOME": str(folder.parent),
        "JAX_PLATFORMS": "cpu",
    }
    printed, session = [], ""
    for language, code in steps:
        session += code if language == "python" else ""
        words = [bin_ / "python", "-c", session] if language == "python" else ["bash", "-ec", code]
        done = subprocess.run(
            words, cwd=folder, env=environment, capture_output=True, text=True, timeout=500
        )
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        printed.append(done.stdout)
    return printed


def short_experiments(folder):
    """The experiments that a checkout has, those of handwriting made to take seconds."""
    shutil.copytree(ROOT / "experiments", folder / "experiments")
    whole = folder / "experiments" / "writers.py"
    whole.rename(whole.with_name("writers_whole.py"))
    whole.write_text(
        "import dataclasses\n"
        "from writers_whole import EXPERIMENT as WHOLE\n"
        "from fairgrape_jax.config import Stage\n"
        "EXPERIMENT = dataclasses.replace(\n"
        "    WHOLE,\n"
        "    data=dataclasses.replace(WHOLE.data, limit=600, limit_evaluation=400),\n"
        "    methods=('magnitude', 'fairgrape'),\n"
        "    scoring=dataclasses.replace(WHOLE.scoring, select='greedy'),\n"
        "    dense=Stage((1,), (1e-3,)),\n"
        "    seeds=(0,),\n"
        ")\n"
    )
    study = folder / "experiments" / "writers_methods.py"
    text = study.read_text()
    text += "\nEXPERIMENT = dataclasses.replace(EXPERIMENT, methods=('random',), seeds=(0, 1))\n"
    study.write_text(text)
