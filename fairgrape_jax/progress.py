"""A progress bar on a terminal, plain lines elsewhere; only process 0 speaks."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich import progress as rich

from fairgrape_jax import escape

# What long work calls now and then: (done, in all).
Progress = Callable[[int, int], None]


def _first() -> bool:
    from fairgrape_jax.parallel import hosts  # JAX: not in the processes that only read pictures

    return hosts.is_process_0()


def say(line: str) -> None:
    """Print a line at once, on process 0.

    Args:
        line: the text; no name in it controls the terminal.
    """
    if _first():
        print(escape.lines(line), flush=True)


@contextlib.contextmanager
def bar(title: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """A bar that vanishes when it is done; without a terminal, and on other processes, nothing.

    Yields:
        The function that moves it: without arguments by one; with (done, total) to there; with
        note=TEXT it shows the text behind the title.

    Args:
        title: before the bar.
        total: how many steps there are, if it is known.
    """
    if not sys.stdout.isatty() or not _first():
        yield lambda *_, **options: None
        return
    columns = (rich.TextColumn("{task.description}"), rich.BarColumn(), rich.MofNCompleteColumn())
    with rich.Progress(*columns, rich.TimeRemainingColumn(), transient=True) as progress:
        task = progress.add_task(title, total=total)

        def move(done: int | None = None, total: int | None = None, *, note: str = "") -> None:
            if note:
                progress.update(task, description=f"{title}  {note}")
            else:
                step = 1 if done is None else None
                progress.update(task, advance=step, completed=done, total=total)

        yield move
