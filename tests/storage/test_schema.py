"""What is no text is a misfit with its place, wherever it stands."""

import json

import pytest

from fairgrape_jax.storage.schema import SchemaError, convert, misfit


@pytest.mark.parametrize("half", [r"\ud800", r"\udfff", r"name \udc00 of"])
@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('"HALF"', ""),
        ('{"a": "HALF"}', "a"),
        ('{"a": {"b": [1, "HALF"]}}', "a.b.1"),
        ('{"a": {"HALF": 1}}', "a"),
        ('{"a": ["HALF", "x"]}', "a.0"),
    ],
)
@pytest.mark.parametrize("form", [int, dict[str, int], dict[str, dict[str, list[int]]]])
def test_half_of_a_surrogate_pair(text, place, half, form):
    """JSON may hold it, UTF-8 may not."""
    value = json.loads(text.replace("HALF", half))
    message = misfit(value, form, "record")
    assert message.startswith("record")
    message.encode()  # can be printed
    if "surrogate" in message:
        assert message.startswith(f"record.{place}:" if place else "record:")
    with pytest.raises(SchemaError):
        convert(value, form)
