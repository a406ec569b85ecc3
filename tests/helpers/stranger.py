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


SHORT = """
import dataclasses
from {whole} import EXPERIMENT as WHOLE
from fairgrape_jax.config import Stage
EXPERIMENT = dataclasses.replace(
    WHOLE,
    data=dataclasses.replace(WHOLE.data, limit=600, limit_evaluation=400),
    methods={methods},
    scoring=dataclasses.replace(WHOLE.scoring, select="greedy"),
    dense=Stage((1,), (1e-3,)),
    **{fields},
)
"""


def short_experiments(folder):
    """The experiments that a checkout has, those of handwriting made to take seconds.

    The demo keeps its rounds, which the README names, and the first two of its methods.
    """
    shutil.copytree(ROOT / "experiments", folder / "experiments")
    few = {"densities": (0.5, 0.1), "seeds": (0,)}
    for name, methods, fields in (
        ("demo", "WHOLE.methods[:2]", {"variants": {}, "seeds": (0,)}),
        ("writers", "('magnitude', 'fairgrape')", few),
        ("writers_methods", "('random',)", few | {"seeds": (0, 1)}),
    ):
        path = folder / "experiments" / f"{name}.py"
        path.rename(path.with_name(f"{name}_whole.py"))
        path.write_text(SHORT.format(whole=f"{name}_whole", methods=methods, fields=fields))
