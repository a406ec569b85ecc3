"""Shapes and dtypes of the package's jaxtyping annotations, checked at every call in the tests."""

import importlib.machinery
import inspect
import sys
import types
import typing

from beartype import beartype
from jaxtyping import AbstractArray, PyTree, TypeCheckError, _typeguard, jaxtyped

FOLDERS = ("masks", "scoring", "selection", "losses", "metrics")


def install():
    """Check the functions of FOLDERS from their import on; before anything imports them."""
    sys.meta_path.insert(0, _Finder())
    if _typeguard.typechecked is not typechecked:
        _typeguard.typechecked = typechecked


def typechecked(function, full=_typeguard.typechecked):
    """What jaxtyping asks of each node of a tree, by isinstance where the leaves' type has that.

    It reads the signature of a function of its own at each node otherwise: a fifth of the CPU time
    of tests that look at trees.
    """
    (hint,) = function.__annotations__.values()
    kinds = typing.get_args(hint) if typing.get_origin(hint) is typing.Union else (hint,)
    if not all(isinstance(kind, type) for kind in kinds):
        return full(function)

    def accepts(node):
        if not isinstance(node, kinds):
            raise TypeError

    return accepts


class _Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        parts = name.split(".")
        if parts[0] != "fairgrape_jax" or len(parts) < 2 or parts[1] not in FOLDERS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and type(spec.loader) is importlib.machinery.SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module):
        super().exec_module(module)
        for name, value in list(vars(module).items()):
            if inspect.isfunction(value) and value.__module__ == module.__name__:
                setattr(module, name, checked(value))


def checked(function):
    """The function with its arrays checked; an error of its own about them comes first."""
    hints = typing.get_type_hints(function)
    hints = {name: hint if of_arrays(hint) else typing.Any for name, hint in hints.items()}
    if all(hint is typing.Any for hint in hints.values()):
        return function
    twin = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__,
        function.__closure__,
    )  # fmt: skip
    twin.__kwdefaults__, twin.__annotations__ = function.__kwdefaults__, hints
    twin.__module__, twin.__qualname__ = function.__module__, function.__qualname__
    typed, error = jaxtyped(twin, typechecker=beartype), TypeCheckError

    def call(*args, **kwargs):
        try:
            return typed(*args, **kwargs)
        except error as found:
            try:
                function(*args, **kwargs)
            except ValueError:
                raise
            except Exception:
                pass
            raise found

    # Of the function's own module, where doctest looks for it.
    wrapper = types.FunctionType(
        call.__code__, function.__globals__, function.__name__, None, call.__closure__
    )
    for field in ("__module__", "__qualname__", "__doc__", "__annotations__"):
        setattr(wrapper, field, getattr(function, field))
    wrapper.__wrapped__ = function
    return wrapper


def of_arrays(hint):
    """Whether a type speaks of an array's shape or dtype, or of those in a tree."""
    if inspect.isclass(hint) and issubclass(hint, (AbstractArray, PyTree)):
        return True
    return any(of_arrays(part) for part in typing.get_args(hint))
