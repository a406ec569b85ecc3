"""Tables with rows from outside: what is a row, whose it is, and what is refused."""

import hashlib
import sys

import numpy as np
import pytest
from flax import linen as nn

import fairgrape_jax as fg
from fairgrape_jax import data, metrics, models
from fairgrape_jax.cli.python_files import load_plugins
from fairgrape_jax.config.registered import TABLES
from fairgrape_jax.data.sources.synthetic import Synthetic
from fairgrape_jax.errors import UsageError
from fairgrape_jax.methods import METHODS, Method
from tests.helpers import plugins

tables = plugins.tables


def number(counts, dense):
    return 1.0


def per_group(counts, dense):
    return np.ones(len(counts[0]))


def wrong(counts, dense):
    return counts[5]


class Network(nn.Module):
    num_classes: int
    axis_name: str | None = None
    dtype: type = float


class Mine(Synthetic):
    name = "mine"


ROWS = {
    "method": Method("a row", number),
    "model": Network,
    "dataset": (Mine, number),
    "metric": number,
}
BAD_ROWS = {
    "no method": ("method", number, "is no Method\\(summary, score\\)"),
    "no score": ("method", Method("x", "score"), "is no Method\\(summary, score\\)"),
    "a choice that is none": ("method", Method("x", number, choose=3), "choose is 3"),
    "a need that is none": ("method", Method("x", number, needs=("luck",)), "needs 'luck'"),
    "no network": ("model", number, "cannot be made with num_classes, axis_name and dtype"),
    "something else": ("model", lambda **fields: 3, "makes 3, and a network is"),
    "no pair": ("dataset", Mine, "give \\(the class of its options"),
    "no options": ("dataset", (3, number), "a frozen dataclass"),
    "options of all": ("dataset", (data.Source, number), "a frozen dataclass"),
    "another name": ("dataset", (Synthetic, number), "'synthetic'"),
    "no function": ("metric", 3, "is no function"),
    "a failure": ("metric", wrong, "fails on the counts of three groups.*IndexError"),
    "of groups": ("metric", per_group, "shape \\(3,\\)"),
    "a word": ("metric", lambda counts, dense: "high", "fails on the counts"),
}
NAMES = ["", "1st", "a b", "a/b", "../up", "x" * 65, "a.b", "nämlich", None, 3]


def test_a_row_is_added_and_taken_out(tables):
    for kind, row in ROWS.items():
        fg.register(kind, "mine", row)
        table = TABLES[kind]
        assert table["mine"] is row
        assert "mine" not in table.built_in
        assert table.origins["mine"].file == "test_registry.py"
        table.unregister("mine")
        assert "mine" not in table
        with pytest.raises(UsageError, match="'mine': was not registered"):
            table.unregister("mine")
        with pytest.raises(UsageError, match="was not registered"):
            table.unregister(table.built_in[0])


@pytest.mark.parametrize("kind", TABLES)
def test_a_name_of_this_package_is_refused(kind, tables):
    for name in TABLES[kind].built_in:
        before = TABLES[kind][name]
        with pytest.raises(UsageError, match=f"'{name}' of .*the name is taken by this package"):
            fg.register(kind, name, ROWS[kind])
        with pytest.raises(UsageError, match=f"there is '{name}' already"):
            fg.register(kind, name.upper(), ROWS[kind])
        assert TABLES[kind][name] is before
    with pytest.raises(UsageError, match="no table of 'methods': choose from method"):
        fg.register("methods", "mine", ROWS["method"])


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_name_that_cannot_be_stored_is_refused(name, tables):
    for kind, row in ROWS.items():
        with pytest.raises(UsageError, match=f"no name for a {kind}"):
            fg.register(kind, name, row)


@pytest.mark.parametrize("name", BAD_ROWS)
def test_what_is_no_row_is_refused(name, tables):
    kind, row, message = BAD_ROWS[name]
    with pytest.raises(UsageError, match=f"'mine' of test_registry.py: .*{message}"):
        fg.register(kind, "mine", row)
    assert "mine" not in TABLES[kind]


@pytest.mark.parametrize("name", ["dense", "DENSE"])
def test_the_network_before_pruning_is_no_method(name, tables):
    with pytest.raises(UsageError, match="a run calls the network before pruning so"):
        fg.register("method", name, ROWS["method"])


@pytest.mark.parametrize("name", metrics.COLUMNS)
def test_a_column_of_the_table_is_no_metric(name, tables):
    with pytest.raises(UsageError, match="another column of this name"):
        fg.register("metric", name, number)


def test_a_metric_of_groups_is_called_so(tables):
    fg.register("metric", "group_mine", per_group)
    with pytest.raises(UsageError, match="shape \\(\\)"):
        fg.register("metric", "group_other", number)


def test_a_file_is_known_by_its_name_and_digest_and_may_replace_its_rows(tables, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(plugins.METHOD)
    path = tmp_path / "a/mine.py"
    load_plugins([path])
    origin = METHODS.origins["smallest"]
    assert (origin.file, origin.sha256) == (
        "mine.py",
        hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    path.write_text(plugins.METHOD.replace("smallest |w|", "the others"))
    load_plugins([path])
    assert METHODS["smallest"].summary == "the others"
    assert METHODS.origins["smallest"] != origin
    with pytest.raises(UsageError, match="the name is taken by mine"):
        load_plugins([tmp_path / "b/mine.py"])


def test_what_is_typed_into_a_session_has_no_digest_and_may_be_typed_again(tables):
    for line in range(2):  # a cell has another name each time
        code = "import fairgrape_jax as fg; fg.register('metric', 'mine', lambda c, d: 1)"
        exec(compile(code, f"<cell {line}>", "exec"), {"__name__": "__main__"})
    origin = metrics.METRICS.origins["mine"]
    assert (origin.file, origin.sha256) == ("a session", "")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1 / 0\n", "mine.py line 1: is no plugin \\(ZeroDivisionError"),
        ("import fairgrape_jax\n\ndef f(:\n", "mine.py line 3: is no plugin"),
        ("import fairgrape_jax as fg\nfg.register('metric', 'gap', 3)\n", "the name is taken"),
        (None, "--plugin: .*mine.py: no such file"),
    ],
)
def test_a_plugin_that_fails_is_named(code, message, tables, tmp_path):
    if code:
        (tmp_path / "mine.py").write_text(code)
    before = dict(sys.modules)
    with pytest.raises(UsageError, match=message):
        load_plugins([tmp_path / "mine.py"])
    assert [name for name in sys.modules if name not in before and "mine" in name] == []


# -- installed packages ---------------------------------------------------------------------------
PACKAGE = plugins.METHOD.replace(
    'fg.register("method", "smallest", Method("smallest |w|", score))',
    'ROW = Method("smallest |w|", score)',
)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed packages."""
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield tmp_path / "site"
    for name in ("fair_module", "fair_other"):
        sys.modules.pop(name, None)


def test_a_row_of_an_installed_package_is_loaded_when_it_is_used(tables, site):
    plugins.install(
        site, "fair-things", "fair_module", PACKAGE, {"methods": {"smallest": "fair_module:ROW"}}
    )
    assert "smallest" not in METHODS
    assert METHODS.find("magnitude")
    assert "fair_module" not in sys.modules
    assert METHODS.find("smallest")
    assert str(METHODS.origins["smallest"]) == "fair-things 1.0"
    params = {"kernel": np.array([[3.0, 1.0, 2.0, 4.0]], np.float32)}
    masks, _ = fg.prune(params, fg.full_masks(params), 0.5, method="smallest")
    assert masks["kernel"].tolist() == [[False, True, True, False]]


def test_every_kind_of_row_comes_from_an_installed_package(tables, site):
    code = plugins.DATASET.partition("fg.register")[0] + plugins.METRICS.partition("fg.register")[0]
    code = "from __future__ import annotations\n" + code.replace(
        "from __future__ import annotations\n", ""
    )
    rows = {
        "models": {"small": "fair_module:Small"},
        "datasets": {"my_npz": "fair_module:ROW"},
        "metrics": {"middle_group": "fair_module:middle_group"},
    }
    plugins.install(site, "fair-things", "fair_module", code + "ROW = (MyNpz, load)\n", rows)
    assert type(models.create("small", 2)).__name__ == "Small"
    assert data.source("my_npz", count=7).count == 7
    assert metrics.METRICS.load_all() == {}
    assert "middle_group" in metrics.METRICS


def test_names_of_several_packages_are_refused(tables, site):
    rows = {"methods": {"magnitude": "fair_module:ROW", "smallest": "fair_module:ROW"}}
    plugins.install(site, "fair-things", "fair_module", PACKAGE, rows)
    with pytest.raises(UsageError, match="'magnitude' is of several: fair-things and this package"):
        METHODS.find("magnitude")
    rows = {"methods": {"smallest": "fair_other:ROW"}}
    plugins.install(site, "other-things", "fair_other", PACKAGE, rows)
    sys.path.append(str(site))  # another path: what is installed is looked for anew
    try:
        with pytest.raises(UsageError, match=r"'smallest' is of several: .* uninstall"):
            METHODS.find("smallest")
    finally:
        sys.path.pop()
    assert "smallest" not in METHODS


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import no_such_module\n", "cannot be loaded \\(ModuleNotFoundError"),
        ("ROW = 3\n", "is no Method"),
        ("OTHER = 3\n", "cannot be loaded \\(AttributeError"),
    ],
)
def test_a_package_that_is_broken_is_named_where_it_is_used(code, message, tables, site):
    rows = {"methods": {"smallest": "fair_module:ROW"}}
    plugins.install(site, "fair-things", "fair_module", code, rows)
    with pytest.raises(UsageError, match=f"'smallest' of fair-things.*{message}"):
        METHODS.find("smallest")
    assert "fair-things" in METHODS.load_all()["smallest"]
    assert METHODS.find("magnitude")


def test_a_row_that_is_assigned_is_recorded_too(tables):
    row = METHODS["magnitude"]
    METHODS["mine"] = Method("mine", number)
    METHODS.update({"theirs": Method("theirs", number)})
    METHODS["magnitude"] = Method("another", number)
    for name in ("mine", "theirs", "magnitude"):
        assert METHODS.origins[name].file == "test_registry.py"
    METHODS["magnitude"] = row
    assert "magnitude" not in METHODS.origins
    assert "magnitude" in METHODS.built_in
    del METHODS["mine"]
    assert "mine" not in METHODS.origins
