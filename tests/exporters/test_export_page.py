"""docs/export.md: its code runs, and its table is that of the exporters."""

import re
from pathlib import Path

from fairgrape_jax.exporters import EXPORTERS

PAGE = (Path(__file__).parents[2] / "docs/export.md").read_text()


def test_the_code_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for code in re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        exec(code, names)
    assert names["logits"].shape == (5, 3)
    assert {path.name for path in tmp_path.iterdir()} == {"exported", "small"}


def test_the_table_is_that_of_the_exporters():
    out = PAGE.partition("## In:")[0]
    assert re.findall(r"^\| `(\w+)` \|", out, re.MULTILINE) == list(EXPORTERS)
