"""Flags of JAX that change numbers: written down with a run, and compared when it goes on."""

import dataclasses
import json

import jax
import pytest

from fairgrape_jax import config
from fairgrape_jax.config import Stage
from fairgrape_jax.errors import UsageError
from fairgrape_jax.runner import preflight
from fairgrape_jax.runner import run as runner
from tests.helpers.experiments import TINY

SHORT = dataclasses.replace(
    TINY,
    seeds=(0,),
    methods=("random",),
    sparsity=0.5,
    model="mlp",
    augmentation="flip",
    final=Stage(),
)
OTHERS = {
    "jax_default_prng_impl": ("rbg", "JAX_DEFAULT_PRNG_IMPL=threefry2x32"),
    "jax_threefry_partitionable": (False, "JAX_THREEFRY_PARTITIONABLE=1"),
    "jax_enable_x64": (True, "JAX_ENABLE_X64=0"),
    "jax_default_matmul_precision": ("highest", "JAX_DEFAULT_MATMUL_PRECISION"),
    "jax_numpy_dtype_promotion": ("strict", "JAX_NUMPY_DTYPE_PROMOTION=standard"),
    "jax_random_seed_offset": (1, "JAX_RANDOM_SEED_OFFSET=0"),
}


@pytest.fixture
def flag():
    """set(name, value): a flag of JAX, as it was afterwards."""
    before = {}

    def change(name, value):
        before.setdefault(name, jax.config.values[name])
        jax.config.update(name, value)

    yield change
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    directory = tmp_path_factory.mktemp("flags") / "run"
    runner.run(SHORT, directory)
    return directory


def test_a_run_writes_them_down(complete):
    stored = json.loads((complete / "config.json").read_text())["flags"]
    assert stored == config.numeric_flags()
    assert set(OTHERS) <= set(stored)


@pytest.mark.parametrize("name", OTHERS)
def test_a_run_does_not_go_on_under_another(name, complete, flag):
    value, cure = OTHERS[name]
    flag(name, value)
    with pytest.raises(UsageError, match=f"begun with {name}=") as error:
        runner.run(SHORT, complete)
    assert cure in str(error.value)
    assert "another --out" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_run_of_before_the_flags_were_written_goes_on(complete, flag, monkeypatch):
    stored = json.loads((complete / "config.json").read_text())
    stored.pop("flags")
    monkeypatch.setattr(config, "read", lambda path: stored)
    flag("jax_random_seed_offset", 1)
    preflight.check_directory(SHORT, complete)


@pytest.mark.whole
@pytest.mark.parametrize("kind", ["rbg", pytest.param("unsafe_rbg", marks=pytest.mark.slow)])
def test_a_run_under_another_kind_of_random_numbers_is_a_run(kind, tmp_path, flag, monkeypatch):
    """Whole, and stopped and gone on with, to the same bits."""
    flag("jax_default_prng_impl", kind)
    runner.run(SHORT, tmp_path / "whole")

    def stop(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runner, "prune_rounds", stop)
        with pytest.raises(KeyboardInterrupt):
            runner.run(SHORT, tmp_path / "run")
    runner.run(SHORT, tmp_path / "run")
    same = [records(tmp_path / name) for name in ("run", "whole")]
    assert same[0] == same[1]


def records(directory):
    """What each stage's record holds but for times."""
    found = {}
    for path in sorted(directory.glob("seed_*/**/metrics.json")):
        record = json.loads(path.read_text())
        files = record.pop("files")
        found[path.parent.name] = {
            k: v for k, v in record.items() if k not in ("seconds", "checksum")
        }
        found[path.parent.name]["masks"] = files["masks.npz"]
    return found
