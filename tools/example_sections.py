"""Lets griffe read a docstring's "Example:" as its section "Examples:", which it shows as code."""

from __future__ import annotations

import re
from typing import Any

import griffe


class ExampleSections(griffe.Extension):
    """Renames the section while docstrings are collected for `make docs`."""

    def on_instance(self, *, obj: griffe.Object, **loading: Any) -> None:
        """Change the docstring of an object that was read.

        Args:
            obj: a module, class, function or attribute.
            loading: what griffe knows besides.
        """
        if obj.docstring is not None:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = text
