"""Devices by name: what can be had, and for what cannot an error that says what can."""

import sys

import pytest

from fairgrape_jax.errors import UsageError
from fairgrape_jax.plan import targets
from fairgrape_jax.plan.chips import CHIPS, GIB

# The name, chips, hosts, name in full.
GOOD = [
    ("v5e:4x4", 16, 4, "v5e:4x4"),
    ("v5e", 1, 1, "v5e:1x1"),
    ("v5e:16x16", 256, 64, "v5e:16x16"),
    ("v5e:4x2", 8, 2, "v5e:2x4"),
    ("v6e:8x16", 128, 32, "v6e:8x16"),
    ("v4:2x2x1", 4, 1, "v4:2x2x1"),
    ("v4:4x4x4", 64, 16, "v4:4x4x4"),
    ("v4", 4, 1, "v4:2x2x1"),
    ("v5p:8x8x4", 256, 64, "v5p:8x8x4"),
    ("v5p:16x16x24", 6144, 1536, "v5p:16x16x24"),
    ("h100:8", 8, 1, "h100:8"),
    ("h100:3", 3, 1, "h100:3"),
    ("h200", 1, 1, "h200:1"),
    ("a100:256", 256, 32, "a100:256"),
    ("b200:16", 16, 2, "b200:16"),
    ("cpu", 1, 1, "cpu:1"),
    ("cpu:4", 4, 1, "cpu:4"),
]
# The name, and what the error says would do.
BAD = [
    ("v7:2x2", "v5e:4x4"),
    ("", "v5e:4x4"),
    ("v5e:32x16", "16x16"),
    ("v5e:3x3", "2x2"),
    ("v6e:16x32", "16x16"),
    ("v5e:2x2x1", "has 2 sides"),
    ("v4:4x4", "has 3 sides"),
    ("v4:3x3x3", "multiples of 4"),
    ("v4:2x2x3", "2x2x4"),
    ("v4:16x16x20", "4096"),
    ("v5p:16x16x28", "6144"),
    ("v5e:16", "v5e:4x4"),
    ("v5e:5", "v5e:2x2"),
    ("v5e:", "v5e:2x2"),
    ("v5e:4x", "v5e:4x4"),
    ("v5e:0x4", "v5e:4x4"),
    ("v5e:-2x2", "v5e:2x2"),
    ("v5e:axb", "v5e:2x2"),
    ("v5e:٤x٤", "v5e:4x4"),
    ("h100:12", "h100:8 or h100:16"),
    ("h100:0", "h100:8"),
    ("h100:-8", "h100:8"),
    ("h100:8x1", "h100:8"),
    ("h100:", "h100:8"),
    ("cpu:", "cpu:2"),
    ("cpu:0", "cpu:2"),
    ("cpu:2x2", "cpu:2"),
]


@pytest.mark.parametrize(("text", "chips", "hosts", "name"), GOOD)
def test_a_name_gives_its_devices(text, chips, hosts, name):
    target = targets.parse(text)
    assert (target.chips, target.hosts, target.name) == (chips, hosts, name)
    assert targets.parse(target.name) == target
    assert target.memory > 0


@pytest.mark.parametrize(("text", "cure"), BAD)
def test_what_cannot_be_had_is_refused_with_what_can(text, cure):
    with pytest.raises(UsageError, match=r"--on") as caught:
        targets.parse(text)
    assert cure in str(caught.value)


def test_data_sheets_agree_with_themselves():
    for name, chip in CHIPS.items():
        assert chip.name == name
        assert chip.peak["float32"] <= chip.peak["bfloat16"]
        assert GIB < chip.memory < 300e9
        assert chip.far <= chip.link < chip.bandwidth
    assert set(targets.GPUS) == {name for name, chip in CHIPS.items() if chip.kind == "cuda"}


def test_memory_of_a_gpu_is_what_jax_takes_of_it(monkeypatch):
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    h100 = targets.parse("h100")
    assert h100.memory == 0.75 * h100.chip.memory
    assert "75%" in h100.note
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", ".9")
    assert h100.memory == 0.9 * h100.chip.memory
    assert targets.parse("v5e").memory == 16 * GIB


def test_a_v4_chip_is_one_device_and_the_note_says_so():
    assert "two cores" in targets.parse("v4:4x4x4").note
    assert targets.parse("v4:4x4x4").memory == 32 * GIB


def test_devices_of_a_processor_share_its_memory():
    assert targets.parse("cpu:4").memory == targets.parse("cpu").memory / 4


@pytest.mark.parametrize("name", ["v5e:4x4", "h100:8", "cpu:3"])
def test_the_process_that_compiles_sees_no_accelerator(name, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--a=1 --xla_force_host_platform_device_count=7")
    variables = targets.environment(targets.parse(name))
    assert variables["JAX_PLATFORMS"] == "cpu"
    flags = variables["XLA_FLAGS"].split()
    assert flags[0] == "--a=1"
    assert "--xla_force_host_platform_device_count=7" not in flags
    assert ("--xla_force_host_platform_device_count=3" in flags) == (name == "cpu:3")
    assert ("--xla_gpu_deterministic_ops=true" in flags) == (name == "h100:8")


def test_flags_of_the_user_stand(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_deterministic_ops=false")
    flags = targets.environment(targets.parse("h100"))["XLA_FLAGS"]
    assert "--xla_gpu_deterministic_ops=false" in flags
    assert "=true" not in flags


def test_the_extra_that_is_missing_is_named(monkeypatch):
    for module in ("libtpu", "jax_cuda13_plugin"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(targets.importlib.util, "find_spec", lambda name: None)
    assert targets.missing_extra(targets.parse("v5e:2x2")) == "tpu"
    assert targets.missing_extra(targets.parse("h100:8")) == "cuda"
    assert targets.missing_extra(targets.parse("cpu")) == ""


@pytest.mark.parametrize("name", ["a100", "h100", "h200", "b200"])
def test_the_description_of_a_gpu_holds_its_data_sheet(name):
    target = targets.parse(name)
    text = targets.gpu_config(target)
    assert f"memory_bandwidth: {int(target.chip.bandwidth)} " in text
    assert f"device_memory_size: {int(target.chip.memory)} " in text
    assert text.count("{") == text.count("}")
