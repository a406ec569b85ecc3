"""What `make docs` fills into pages: the help of commands, the front door, the modules of a folder.

On a line of its own a page has `<!-- help: run -->`, `<!-- front door -->` or
`<!-- modules: fairgrape_jax.scoring -->`.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import pkgutil
import re
from typing import Any

HELP = re.compile(r"^<!-- help: (.*?) -->$", re.MULTILINE)
MODULES = re.compile(r"^<!-- modules: ([\w.]+) -->$", re.MULTILINE)


def help_of(words: list[str]) -> str:
    """What `fairgrape WORDS --help` prints.

    Args:
        words: the names of a command.

    Raises:
        ValueError: it prints none.

    Example:
        >>> help_of(["report"]).startswith("usage: fairgrape report")
        True
    """
    from fairgrape_jax.cli.command import parse
    from fairgrape_jax.cli.main import COMMANDS

    printed = io.StringIO()
    os.environ["COLUMNS"] = "100"
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        parse(COMMANDS, [*words, "--help"])
    if not printed.getvalue().startswith("usage: "):
        raise ValueError(f"fairgrape {' '.join(words)} --help prints no help")
    return printed.getvalue()


def front_door() -> str:
    """A section of the reference for every name of `import fairgrape_jax as fg`.

    Example:
        >>> front_door().splitlines()[0]
        '::: fairgrape_jax.kernels.full_masks'
    """
    import fairgrape_jax as fg

    values = [getattr(fg, name) for name in fg.__all__ if not name.startswith("_")]
    return "\n\n".join(f"::: {value.__module__}.{value.__qualname__}" for value in values)


def modules_of(package: str) -> str:
    """A section of the reference for every public module below a package.

    Args:
        package: its dotted name.

    Example:
        >>> "::: fairgrape_jax.scoring.importance" in modules_of("fairgrape_jax.scoring")
        True
    """
    folder = importlib.import_module(package).__path__
    names = [module.name for module in pkgutil.walk_packages(folder, f"{package}.")]
    public = [name for name in names if "._" not in name]
    return "\n\n".join(f"::: {name}" for name in public)


def on_page_markdown(markdown: str, **page: Any) -> str:
    """The text of a page with what it asks for; mkdocs calls it.

    Args:
        markdown: as it stands in docs/.
        page: what mkdocs knows of it.
    """
    if "<!-- front door -->" in markdown:
        markdown = markdown.replace("<!-- front door -->", front_door())
    markdown = MODULES.sub(lambda mark: modules_of(mark[1]), markdown)
    return HELP.sub(lambda mark: f"```text\n{help_of(mark[1].split())}\n```", markdown)
