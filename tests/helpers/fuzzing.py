"""A request tried in this process: it is done, or refused in one of our lines, and does no harm."""

import collections
import contextlib
import csv
import html.parser
import io
import os
import re
import signal
import tempfile
from pathlib import Path

from fairgrape_jax.cli import main as cli
from fairgrape_jax.config import Execution, Experiment, Scoring, Stage
from fairgrape_jax.data import source

PATIENCE = 300  # seconds after which a case hangs, on a machine that does much else
ENDED = collections.Counter()  # (kind, how): cases

TINY = Experiment(
    data=source("synthetic", samples=120, groups=2, classes=2, size=8, seed=1),
    model="mlp",
    methods=("magnitude",),
    sparsity=0.75,
    keep_per_round=0.5,
    dense=Stage((1,), (1e-3,)),
    retrain=Stage((1,), (1e-3,)),
    final=Stage(),
    scoring=Scoring(fraction=0.5, micro_batch=16),
    batch=16,
    execution=Execution(devices=1),
)


class AcceptedError(Exception):
    """All that is looked at before the first step is compiled has been."""


class Printed(io.TextIOWrapper):
    """A standard output or error that is a file: UTF-8, as strict as the real one."""

    def __init__(self, errors):
        super().__init__(io.BytesIO(), "utf-8", errors, write_through=True)

    def text(self):
        return self.buffer.getvalue().decode("utf-8")


@contextlib.contextmanager
def patience():
    def late(*_):
        raise AssertionError(f"hangs: nothing after {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def attempt(kind, given_arguments, *, stops=False):
    """The command in this process: (exit code, standard output). Every failure must be one line.

    stops: a run may also stop for what its numbers come to, a layer without weights say.
    """
    out, err = Printed("strict"), Printed("backslashreplace")
    with patience(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.attempt([str(word) for word in given_arguments])
            how = "refused" if code else "done"
        except AcceptedError:
            code, how = 0, "accepted"
    said = err.text()
    if stops and code == 1:
        assert re.fullmatch(r"(note: .*\n)*fairgrape: stopped: [^\n]+\n", said), said
        code, how = 0, "stopped"
    if how == "refused":
        assert code == 2, said
        assert re.fullmatch(r"(note: .*\n)*fairgrape: error: [^\n]+\n", said), said
    assert code in (0, 2), (code, said)
    assert "Traceback" not in said
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", said + out.text()), said
    ENDED[kind, how] += 1
    return code, out.text()


@contextlib.contextmanager
def folder():
    """A folder with a place to break out to: nothing may be written beside the inner one."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as outer:
        inside = Path(outer, "a", "b", "c")
        inside.mkdir(parents=True)
        before = Path.cwd()
        os.chdir(inside)
        try:
            yield inside
        finally:
            os.chdir(before)
        found = [path for path in Path(outer).rglob("*owned*") if path != inside]
        assert not [path for path in found if inside not in path.parents], found
        assert len(list(Path(outer).iterdir())) == len(list(Path(outer, "a").iterdir())) == 1


def written(path, header, rows):
    with path.open("w", newline="", encoding="utf-8", errors="surrogatepass") as file:
        csv.writer(file).writerows([header, *rows])


class Elements(html.parser.HTMLParser):
    """The elements and attributes of a page, as a browser would see them."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes = collections.Counter(), set()

    def handle_starttag(self, tag, attrs):
        if tag == "a" and re.fullmatch("#[a-z0-9-]+", dict(attrs).get("href") or ""):
            attrs = [(name, value) for name, value in attrs if name != "href"]  # to a definition
            tag = "a within the page"
        self.tags[tag] += 1
        self.attributes |= {name for name, _ in attrs}


FOREIGN = {"script", "img", "iframe", "object", "embed", "a", "form", "base", "meta", "link"}


def harmless(out):
    """No name of a file or cell is markup, breaks a table, or is a formula in what was written."""
    page = (out / "report.html").read_text(encoding="utf-8")
    _, _, body = page.partition("</style>")
    seen = Elements()
    seen.feed(body)
    assert not seen.tags.keys() & FOREIGN, body
    assert not [
        name for name in seen.attributes if name.startswith("on") or name in ("src", "href")
    ], body
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", page.replace("\t", ""))
    assert seen.tags["svg"] == body.count("<svg ") == body.count("</svg>")
    text = (out / "report.md").read_text(encoding="utf-8")
    assert not re.search(r"<\w|\]\(javascript|[\x00-\x08\x0b-\x1f\x7f]", text), text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        lines = [re.sub(r"\\.", "", line) for line in block.splitlines()]
        assert len({line.count("|") for line in lines}) == 1, block
    for path in out.glob("*.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.reader(file):
                for cell in row:
                    assert not re.match(r"[=@\t\r]|[+-](?!inf$|nan$|[\d.])", cell), cell
