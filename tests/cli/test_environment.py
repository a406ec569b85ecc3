"""What surrounds a run: devices, versions, folders, locales, paths. It works, or says why not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import fairgrape_jax
from fairgrape_jax import data, parallel
from fairgrape_jax.__main__ import keep_programs, make_gpus_deterministic, use_huge_pages
from fairgrape_jax.cli import main as cli
from fairgrape_jax.config.environment import numeric_flags
from fairgrape_jax.errors import UsageError
from fairgrape_jax.selection import greedy
from tests.helpers import layouts
from tests.helpers.command_line import EXPERIMENT

PACKAGE = Path(fairgrape_jax.__file__).parent
UMLAUTS = "Ärzte & Söhne, Größe 3"
MAIN = "import sys; from fairgrape_jax.__main__ import main; sys.exit(main())"
C = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def fairgrape(place, *arguments, main=MAIN, before=(), **environment):
    """The command in a process of its own; a variable that is None is not set."""
    inherited = os.environ | {"PYTHONPATH": str(PACKAGE.parent)} | environment
    return subprocess.run(
        [*before, sys.executable, "-c", main, *map(str, arguments)],
        cwd=place,
        env={name: value for name, value in inherited.items() if value is not None},
        capture_output=True,
        timeout=300,
    )


def refused(done, *said):
    """One line, which says this."""
    error = done.stderr.decode()
    assert done.returncode == 2, error
    lines = [line for line in error.splitlines() if line.startswith("fairgrape: ")]
    assert len(lines) == 1
    assert "Traceback" not in error
    for text in said:
        assert text in lines[0]


def worked(done):
    assert done.returncode == 0, done.stderr.decode()
    assert b"Traceback" not in done.stderr


@pytest.fixture
def place(tmp_path):
    (tmp_path / "tiny.py").write_text(EXPERIMENT, encoding="utf-8")
    return tmp_path


def tables(place, group="group"):
    """Predictions of a dense and of a pruned model, for groups with umlauts."""
    for name, wrong in (("dense", 9), ("pruned", 4)):
        rows = [f'{i},{i % 2},{(i + (i % wrong == 0)) % 2},"{(UMLAUTS, "名")[i % 3 == 0]}"'
                for i in range(60)]  # fmt: skip
        text = "\n".join([f"id,label,prediction,{group}", *rows]) + "\n"
        (place / f"{name}.csv").write_text(text, encoding="utf-8")
    return ["audit", "--dense", "dense.csv", "--compressed", "pruned.csv", "--replicates", "20"]


# --- memory


@pytest.mark.parametrize(
    ("setting", "before", "after"),
    [
        ("always [madvise] never\n", None, "glibc.malloc.hugetlb=1"),
        ("always [madvise] never\n", "", "glibc.malloc.hugetlb=1"),
        (
            "always [madvise] never\n",
            "glibc.malloc.trim_threshold=1",
            "glibc.malloc.trim_threshold=1:glibc.malloc.hugetlb=1",
        ),
        ("always [madvise] never\n", "glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0"),
        ("[always] madvise never\n", None, None),
        ("always madvise [never]\n", None, None),
        (None, None, None),
    ],
)
def test_memory_comes_in_huge_pages_where_a_process_may_ask(
    tmp_path, monkeypatch, setting, before, after
):
    file = tmp_path / "enabled"
    if setting is not None:
        file.write_text(setting)
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if before is not None:
        monkeypatch.setenv("GLIBC_TUNABLES", before)
    assert use_huge_pages(str(file)) == (after != before)
    assert os.environ.get("GLIBC_TUNABLES") == after
    assert not use_huge_pages(str(file))  # it begins anew once


def test_the_command_that_begins_anew_takes_its_arguments_along(place):
    code = (
        "import os; print(os.environ.get('GLIBC_TUNABLES'), flush=True)\n"
        "import fairgrape_jax.__main__ as m; m.use_huge_pages.__defaults__ = ('mode',)\n"
    )
    (place / "mode").write_text("always [madvise] never")
    done = fairgrape(place, "--version", main=code + MAIN, GLIBC_TUNABLES=None)
    worked(done)
    before, after, version = done.stdout.decode().split(maxsplit=2)
    assert (before, after) == ("None", "glibc.malloc.hugetlb=1")
    assert fairgrape_jax.__version__ in version


# --- devices and versions


@pytest.mark.whole
def test_an_accelerator_that_is_not_there_is_an_error_and_a_report_needs_none(place):
    refused(
        fairgrape(place, "run", "tiny.py", JAX_PLATFORMS="cuda"),
        "no device of JAX_PLATFORMS='cuda'",
        "set JAX_PLATFORMS=cpu",
    )
    assert not (place / "runs").exists()
    worked(fairgrape(place, *tables(place), JAX_PLATFORMS="cuda"))


@pytest.mark.parametrize(
    "said",
    [
        "Unable to initialize backend 'cuda': INTERNAL: failed initializing StreamExecutor for "
        "CUDA device ordinal 0:\n CUDA_ERROR_DEVICE_UNAVAILABLE: CUDA-capable device(s) are busy",
        "Unable to initialize backend 'tpu': ABORTED: The TPU is already in use by process 7",
    ],
)
def test_a_device_that_another_process_holds_is_an_error(said, place, monkeypatch, capsys):
    def busy(*_, **__):
        raise RuntimeError(said)

    monkeypatch.chdir(place)
    monkeypatch.setattr(jax, "local_devices", busy)
    with pytest.raises(UsageError, match="no other process holds it"):
        parallel.local_devices()
    assert cli.main(["run", "tiny.py"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_jaxlib_of_another_version_is_said_in_a_line(place):
    other = f"import jaxlib.version; jaxlib.version.__version__ = '0.3.1'; {MAIN}"
    refused(fairgrape(place, "list", main=other), "jaxlib", "0.3.1", "install it again")
    none = f"import sys; sys.modules['jax'] = None; {MAIN}"
    refused(fairgrape(place, "list", main=none), "jax", "install it again")


# --- folders


def test_no_home_folder_is_said_where_one_is_needed(monkeypatch):
    def none(self):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setattr(Path, "expanduser", none)
    with pytest.raises(UsageError, match="no home folder is known; set TFDS_DATA_DIR or HOME"):
        data.load(data.source("prepared", dataset="x"))


def test_the_greedy_walk_is_compiled_where_nothing_can_be_cached(monkeypatch):
    import numba.core.caching

    def nowhere(self):
        raise OSError(30, "Read-only file system")

    importance = np.random.default_rng(0).random((2, 50)).astype(np.float32)
    alive = np.ones(50, bool)
    expected = greedy.select_greedy(importance, alive, 10)
    monkeypatch.setattr(numba.core.caching._CacheLocator, "ensure_cache_path", nowhere)
    greedy._walk.cache_clear()
    try:
        np.testing.assert_array_equal(greedy.select_greedy(importance, alive, 10), expected)
    finally:
        greedy._walk.cache_clear()


def everything(place, **how):
    """A run with greedy choice, its report, an audit, a prepared dataset: all that writes."""
    layouts.folder(place / "pictures")
    worked(fairgrape(place, "run", "tiny.py", "--scoring.select", "greedy", **how))
    worked(fairgrape(place, "report", "runs/tiny", **how))
    worked(fairgrape(place, *tables(place), **how))
    prepare = ["data", "prepare", "folder_csv", "--from", "pictures", "--data-dir", "to"]
    worked(fairgrape(place, *prepare, **how))
    worked(fairgrape(place, "data", "check", "folder_csv", "--data-dir", "to", **how))
    page = (place / "audit" / "report.html").read_text(encoding="utf-8")
    assert UMLAUTS.replace("&", "&amp;") in page
    assert "名" in page
    assert (place / "runs" / "tiny" / "accuracy_over_rounds.png").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.parametrize("home", ["/dev/null/home", None], ids=["unwritable", "unset"])
def test_everything_works_without_a_home_folder(home, place):
    none = {"XDG_CACHE_HOME": None, "XDG_CONFIG_HOME": None, "MPLCONFIGDIR": None}
    everything(place, HOME=home, **none)


def mounted(*commands):
    """A command in a view of its own of the file system; skips where that cannot be."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    return ["unshare", "-m", "sh", "-c", " && ".join([*commands, 'exec "$@"']), "sh"]


@pytest.mark.slow
def test_everything_works_without_room_for_temporary_files(place):
    (place / "tmp").mkdir()
    tmp = place / "tmp"
    full = mounted(f"mount -t tmpfs -o size=4k tmpfs {tmp}", f"(yes > {tmp}/full || true) 2>&-")
    everything(place, TMPDIR=str(tmp), before=full)
    gone = {"TMPDIR": str(place / "nowhere")}
    worked(fairgrape(place, *tables(place), "--out", "other", **gone))


@pytest.mark.slow
def test_everything_works_from_a_read_only_install(place):
    """The package's folder, the home folder and that of compiled programs cannot be written to."""
    install, cache = place / "install", place / "cache"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, install / "fairgrape_jax", ignore=ignored)
    cache.mkdir()
    each = [f"mount --bind {p} {p} && mount -o remount,ro,bind {p}" for p in (install, cache)]
    everything(
        place,
        before=mounted(*each),
        PYTHONPATH=str(install),
        HOME=str(cache),
        XDG_CACHE_HOME=str(cache),
        JAX_COMPILATION_CACHE_DIR=str(cache),
    )
    assert not list(install.rglob("__pycache__"))


# --- words


@pytest.mark.whole
def test_an_audit_with_umlauts_in_a_locale_without_them(place):
    done = fairgrape(place, *tables(place, group="größe"), "--group-column", "größe", **C)
    worked(done)
    assert f"accuracy of {UMLAUTS}" in done.stdout.decode("utf-8")
    page = (place / "audit" / "report.html").read_text(encoding="utf-8")
    assert UMLAUTS.replace("&", "&amp;") in page


@pytest.mark.slow
def test_everything_works_in_a_locale_without_umlauts(place):
    everything(place, **C)


@pytest.mark.slow
@pytest.mark.parametrize("locale", [{}, C], ids=["UTF-8", "C"])
def test_everything_works_in_a_folder_with_spaces_and_umlauts(locale, tmp_path):
    place = tmp_path / "Ein Ordner mit Größe, 名 & 'Zitat'"
    place.mkdir()
    (place / "tiny.py").write_text(EXPERIMENT, encoding="utf-8")
    everything(place, **locale)
    shutil.copytree(place / "runs" / "tiny", place / "Läufe" / "erster Lauf")
    worked(fairgrape(place, "run", "Läufe/erster Lauf", **locale))
    out = place / "aus gabe"
    worked(fairgrape(place, "report", "Läufe/erster Lauf", "runs/tiny", "--out", out, **locale))
    assert (out / "report.html").is_file()


@pytest.mark.parametrize(
    ("platforms", "flags", "after"),
    [
        (None, None, "--xla_gpu_deterministic_ops=true"),
        ("cuda", "--xla_dump_to=x", "--xla_dump_to=x --xla_gpu_deterministic_ops=true"),
        (None, "--xla_gpu_deterministic_ops=false", "--xla_gpu_deterministic_ops=false"),
        ("cpu", None, None),
    ],
)
def test_sums_on_gpus_are_asked_for_in_one_order(platforms, flags, after, monkeypatch):
    for name, value in (("JAX_PLATFORMS", platforms), ("XLA_FLAGS", flags)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    make_gpus_deterministic()
    assert os.environ.get("XLA_FLAGS") == after
    monkeypatch.setenv("XLA_FLAGS", after or "")
    assert not [name for name in numeric_flags() if "xla_gpu" in name]  # there is none here


def test_programs_are_kept_in_the_users_cache_by_processor(tmp_path, monkeypatch):
    folders = []
    for flags in ("flags : sse", "Features : neon", ""):
        cpuinfo = tmp_path / "cpuinfo"
        cpuinfo.write_text(f"model : x\n{flags}\n")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
        keep_programs(str(cpuinfo))
        folders.append(Path(os.environ["JAX_COMPILATION_CACHE_DIR"]))
    assert len(set(folders)) == 3
    for folder in folders:
        assert folder.is_dir()
        assert folder.parent == tmp_path / "cache" / "fairgrape_jax" / "programs"


@pytest.mark.parametrize("named", ["", "/somewhere/else"])
def test_a_cache_that_is_named_or_switched_off_is_left(named, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", named)
    keep_programs()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == named
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_written_no_program_is_kept(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for base in (str(tmp_path / "file"), "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", base)
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
        keep_programs(str(tmp_path / "no file"))
        assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
