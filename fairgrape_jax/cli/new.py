"""`fairgrape new`: write an experiment file from a template."""

from __future__ import annotations

import dataclasses
import importlib.resources
import importlib.util
import re
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from fairgrape_jax.cli.command import Command
from fairgrape_jax.config import check_name
from fairgrape_jax.errors import UsageError
from fairgrape_jax.progress import say

# A new template is a file templates/NAME.py.txt and its name here.
TEMPLATES = ("writers", "arrays", "rows")
WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


@dataclasses.dataclass(frozen=True)
class New(Command):
    """Write an experiment file with comments, which `fairgrape run` does at once."""

    name: Annotated[str, Positional, arg(metavar="NAME")]
    """What it is called; NAME.py is written here."""
    template: Annotated[str, arg(metavar="TEMPLATE")] = TEMPLATES[0]
    """Which, of those in `fairgrape list`: writers (embedded handwriting), arrays (your own), rows
    (a method and a metric of your own)."""

    def run(self) -> None:
        """Write the file; UsageError for a name that is none, or taken."""
        check_name(self.template, TEMPLATES, "template")
        name = self.name.removesuffix(".py")
        path = Path(f"{name}.py")
        check_free(name, path)
        with path.open("x", encoding="utf-8") as file:
            file.write(text(self.template).replace("NAME", name))
        say(f"{path}: change it to your needs; `fairgrape run {path}` does it")


def check_free(name: str, path: Path) -> None:
    """Refuse a name that an experiment cannot have.

    Args:
        name: of the experiment.
        path: of its file.

    Raises:
        UsageError: what is no name, a file that is there, or the name of a module of Python.
    """
    if not WORD.fullmatch(name):
        raise UsageError(
            f"new: {name!r} is no name for an experiment; give letters, digits, _ and -, not a path"
        )
    if path.exists():
        raise UsageError(f"{path}: is there already; give another name, or remove it")
    try:
        hidden = importlib.util.find_spec(name) is not None
    except ValueError:  # a module that was not imported from anywhere
        hidden = True
    if hidden:
        raise UsageError(
            f"new: {path} would hide the Python module {name!r} from everything in this folder; "
            "give another name"
        )


def text(template: str) -> str:
    """The text of a template.

    Args:
        template: one of TEMPLATES.

    Returns:
        A Python file, with NAME for the name of the experiment.
    """
    folder = importlib.resources.files("fairgrape_jax.cli") / "templates"
    return (folder / f"{template}.py.txt").read_text(encoding="utf-8")


def summaries() -> dict[str, str]:
    """What each template is, its first line."""
    lines = {name: text(name).splitlines()[0] for name in TEMPLATES}
    return {name: line.partition("NAME: ")[2] for name, line in lines.items()}
