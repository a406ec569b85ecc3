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


_TIME_LEFT = [""]  # of the whole run, behind the titles of bars


def show_time_left(seconds: float) -> None:
    """Show behind the titles of later bars how long all of the work will still take.

    Args:
        seconds: until its end; 0 shows nothing.
    """
    _TIME_LEFT[0] = f"  ({duration(seconds)} left in all)" if seconds else ""


def duration(seconds: float) -> str:
    """A time in words, to the minute.

    Args:
        seconds: how long.

    Example:
        >>> duration(20), duration(3.6e3), duration(7.5e3), duration(3e5)
        ('1 min', '60 min', '2 h 5 min', '3 d 11 h')
    """
    minutes = max(1, round(seconds / 60))
    hours = minutes // 60
    if minutes < 90:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


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
    title += _TIME_LEFT[0]
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
