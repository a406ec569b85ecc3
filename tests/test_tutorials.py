"""A stranger follows the tutorials word by word: their code and commands, in an empty folder."""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.multiprocess


def steps(page):
    """The Python and the shell of a page, in their order; other blocks are only shown."""
    fence = re.compile(r"^```(python|bash)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    return fence.findall((ROOT / "docs" / "tutorials" / page).read_text())


def follow(page, folder):
    """Do every step; all Python of a page is one session, as a reader's would be."""
    scripts = sysconfig.get_path("scripts")
    environment = os.environ | {
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "JAX_PLATFORMS": "cpu",
    }
    printed, session = [], ""
    for language, code in steps(page):
        session += code if language == "python" else ""
        words = [sys.executable, "-c", session] if language == "python" else ["bash", "-ec", code]
        done = subprocess.run(
            words, cwd=folder, env=environment, capture_output=True, text=True, timeout=500
        )
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        printed.append(done.stdout)
    return printed


def test_your_own_pictures(tmp_path):
    printed = follow("my_pictures.md", tmp_path)
    assert "1,200" in printed[1]
    report = (tmp_path / "runs" / "mine" / "report.html").read_text()
    assert "employee" in report
    assert "student" in report
    assert list(tmp_path.rglob("model.safetensors"))


def test_audit_any_model(tmp_path):
    assert "students" in follow("audit_any_model.md", tmp_path)[1]
    assert (tmp_path / "audit" / "report.html").is_file()
