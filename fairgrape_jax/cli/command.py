"""Commands as frozen dataclasses: tyro makes the flags from fields, the help from docstrings."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import itertools
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self, TypeAlias, TypeVar, Union

import tyro
from tyro.constructors import PrimitiveConstructorSpec, PrimitiveTypeInfo

from fairgrape_jax.config.forms import WORD_FORMS, as_word
from fairgrape_jax.errors import UsageError
from fairgrape_jax.storage import as_path

CommandT = TypeVar("CommandT", bound="Command")
_COLOURS = re.compile("\x1b\\[[0-9;]*m")
_BORDER = "│|╭╮╰╯─+-"  # of tyro's boxes


@dataclasses.dataclass(frozen=True)
class Command:
    """What a user asks for: its fields are the flags, its docstring is the help."""

    @classmethod
    def complete(cls, arguments: Sequence[str]) -> type[Self]:
        """The class that parses `arguments`: one with more fields, where the first of them decide.

        Args:
            arguments: the words after the name of the command.

        Returns:
            This class, or one with more fields.

        Raises:
            UsageError: for a name in `arguments` that decides and is not known.
        """
        return cls

    def run(self) -> None:
        """Do it."""
        raise NotImplementedError


# The commands of a program by name; a table in place of a class has commands of its own.
Commands: TypeAlias = Mapping[str, "type[Command] | Commands"]


def parse(commands: Commands, arguments: Sequence[str], prog: str = "fairgrape") -> Command:
    """The command in a line of words.

    Args:
        commands: the classes by name, in the order of the help; a dict of such in place of a class
            has commands of its own.
        arguments: the words after the program's name.
        prog: the program's name.

    Raises:
        UsageError: for what cannot be parsed, in one line that names it and what is like it.
        SystemExit: with 0 after the help has been printed.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Greet(Command):
        ...     name: str
        >>> parse({"greet": Greet}, ["greet", "--name", "Ada"])
        Greet(name='Ada')
    """
    word, *rest = arguments or ["--help"]
    if word in ("-h", "--help"):
        show_help(commands, prog)
    if word not in commands:
        raise UsageError(
            f"unknown command {word!r}{nearest(word, commands)}: choose from {', '.join(commands)}"
        )
    kind, prog = commands[word], f"{prog} {word}"
    if isinstance(kind, Mapping):
        return parse(kind, rest, prog)
    return parse_flags(kind.complete(rest), rest, prog)


def parse_flags(kind: type[Command], arguments: Sequence[str], prog: str, **options: Any) -> Any:
    """Read a dataclass from a command line by `tyro.cli`.

    Args:
        kind: a command, or another dataclass.
        arguments: the words.
        prog: the name of the program and its command.
        options: further ones of `tyro.cli`.

    Returns:
        An instance.

    Raises:
        UsageError: words that cannot be parsed, in one line.
        SystemExit: with 0 after the help has been printed.
    """
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(kind, args=arguments, prog=prog, registry=_REGISTRY, **options)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(f"{one_line(errors.getvalue())} (see `{prog} --help`)") from None


def _word(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """How a union of an experiment is read from a word and shown as one; None for other types."""
    form = WORD_FORMS.get(info.type)
    return form and PrimitiveConstructorSpec(
        nargs=1,
        metavar=form.words,
        instance_from_str=lambda words: form.parse(words[0]),
        is_instance=lambda value: any(
            value in typing.get_args(part)
            if typing.get_origin(part) is typing.Literal
            else isinstance(value, typing.get_origin(part) or part)
            for part in typing.get_args(info.type)
        ),
        str_from_instance=lambda value: [as_word(value)],
    )


def _path(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """How a path is read from a word: a local one, or gs://, s3:// and other object stores."""
    if info.type is not Path:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda words: as_path(words[0]),
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda value: [str(value)],
    )


_REGISTRY = tyro.constructors.ConstructorRegistry()
_REGISTRY.primitive_rule(_word)
_REGISTRY.primitive_rule(_path)


def parse_first(kind: type[Command], arguments: Sequence[str], missing: str) -> Any:
    """Read of a command line what one class knows, whatever else is in it.

    Args:
        kind: the command.
        arguments: the words.
        missing: the message where what decides about the other flags is not there.

    Returns:
        An instance; None where help is asked for.

    Raises:
        UsageError: `missing`.
    """
    try:
        return parse_flags(kind, arguments, "", return_unknown_args=True, add_help=False)[0]
    except UsageError:
        if {"-h", "--help"} & set(arguments):
            return None
        raise UsageError(missing) from None


def with_fields_of(kind: type[CommandT], name: str, values: Any) -> type[CommandT]:
    """A command with the fields of another dataclass as flags, without a prefix.

    Args:
        kind: the command.
        name: of the new field.
        values: a dataclass, the defaults.

    Returns:
        A class of the same name and help.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Size:
        ...     width: int
        >>> parse_flags(with_fields_of(Command, "size", Size(2)), ["--width", "3"], "draw").size
        Size(width=3)
    """
    flags: Any = Annotated[type(values), tyro.conf.arg(name="")]
    field = (name, flags, dataclasses.field(default=values))
    return dataclasses.make_dataclass(
        kind.__name__, [field], bases=(kind,), frozen=True, namespace={"__doc__": kind.__doc__}
    )


def one_line(box: str) -> str:
    """What tyro says in a box, in one line.

    Args:
        box: what tyro printed.

    Returns:
        The first of its parts, and the flags that are similar.

    Example:
        >>> one_line("╭─ Bad ─╮\\n│ Unrecognized options: --a │\\n│ ───── │\\n│ For help │\\n╰──╯")
        'Unrecognized options: --a'
    """
    _title, *rows = [_COLOURS.sub("", line).strip("│| ") for line in box.splitlines()]
    ruled = itertools.groupby(rows, key=lambda row: bool(row.strip(_BORDER)))
    message, *more = [list(part) for text, part in ruled if text] or [["cannot be understood"]]
    line = " ".join(message).removesuffix(" (required)")
    for part in more:
        if part[0].startswith("Perhaps you meant"):
            flags = [row.split()[0] for row in part if row.startswith("--")]
            line += f"; did you mean {' or '.join(flags)}?"
    return " ".join(line.split())


def nearest(word: str, names: Iterable[str]) -> str:
    """The name that was probably meant.

    Args:
        word: what was typed.
        names: what could have been.

    Returns:
        The end of a sentence; "" if none is like it.

    Example:
        >>> nearest("rnu", ["run", "report"])
        ' (did you mean run?)'
    """
    similar = difflib.get_close_matches(word, list(names), 1)
    return f" (did you mean {similar[0]}?)" if similar else ""


def show_help(commands: Commands, prog: str) -> None:
    """Print what commands there are, and end.

    Args:
        commands: the classes by name.
        prog: the name of the program.

    Raises:
        SystemExit: always, with 0.
    """
    kinds: list[Any] = [
        Annotated[_group(name, kind), tyro.conf.subcommand(name)] for name, kind in commands.items()
    ]
    tyro.cli(Union[tuple(kinds)], args=["--help"], prog=prog)  # type: ignore[call-overload]  # noqa: UP007


def _group(name: str, kind: Any) -> type:
    if not isinstance(kind, Mapping):
        doc = kind.__doc__
        return dataclasses.make_dataclass(name, [], namespace={"__doc__": doc.partition("\n")[0]})
    doc = f"{', '.join(kind)}: see `fairgrape {name} --help`"
    return dataclasses.make_dataclass(name, [], namespace={"__doc__": doc})
