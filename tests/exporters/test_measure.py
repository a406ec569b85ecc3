"""What networks cost, measured, and the commands that measure and export."""

import json
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fairgrape_jax as fg
from fairgrape_jax import models
from fairgrape_jax.cli.main import main
from fairgrape_jax.exporters import measure

STAGE = "seed_0/fairgrape/round_03"


def test_measure_counts_what_zeros_save(run):
    dense, pruned = (measure.measure(run / name, 3) for name in ("seed_0/dense", STAGE))
    stage = fg.load(run)
    weights = sum(leaf.size for leaf in jax.tree.leaves(stage.params))
    assert dense.parameters == pruned.parameters == weights
    alive = sum(int(np.count_nonzero(leaf)) for leaf in jax.tree.leaves(stage.params))
    assert pruned.nonzeros == alive < dense.nonzeros
    assert pruned.bytes[0] == dense.bytes[0] == 4 * weights
    assert pruned.bytes[1] < pruned.bytes[2] < pruned.bytes[0]
    for one, other in zip(dense.calls, pruned.calls, strict=True):
        assert one.flops == other.flops  # zeros are multiplied like any number
        kernels = [leaf for leaf in jax.tree.leaves(stage.params) if leaf.ndim == 2]
        assert one.flops >= one.batch * sum(2 * leaf.size for leaf in kernels)
        assert one.memory >= 4 * weights + one.batch * 8 * 8 * 3
        median, low, high = one.milliseconds
        assert 0 < low <= median <= high
    lines = measure.table([dense, pruned]).splitlines()
    assert lines[0].split() == ["seed_0/dense", STAGE]
    assert len({len(line) for line in lines[:-1]}) == 1


def test_a_bare_model_is_measured_without_a_run(capsys):
    assert main(["measure", "mlp", "--size", "8", "--classes", "3", "--repeats", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    module = models.create("mlp", 3)
    params = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert lines[0].split() == ["mlp"]
    assert lines[1].split() == ["parameters", f"{count:,}"]
    (least,) = (2 * 64 * leaf.size for leaf in jax.tree.leaves(params) if leaf.shape[:1] == (192,))
    million = next(line for line in lines if line.startswith("batch 64: million")).split()[-1]
    assert least / 1e6 < float(million) < 2 * 64 * count / 1e6 + 1


def test_the_commands_print_what_they_did(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["measure", str(run), "--repeats", "1"]) == 0
    assert "not zero" in capsys.readouterr().out
    assert not (run / STAGE / "cost.json").exists()
    assert main(["measure", str(run / STAGE), "--repeats", "1", "--save"]) == 0
    assert f"saved: {run / STAGE / 'cost.json'}" in capsys.readouterr().out
    cost = json.loads((run / STAGE / "cost.json").read_text())
    assert main(["report", str(run), "--out", "report"]) == 0
    text = Path("report/report.md").read_text()
    assert f"| {cost['bytes_sparse']:,} | {cost['flops']:,.0f} |" in text
    capsys.readouterr()
    shutil.rmtree("report")
    (run / STAGE / "cost.json").write_text(json.dumps(cost | {"flops": 1}))
    assert main(["report", str(run), "--out", "report"]) == 2
    assert "cost.json: damaged; delete it, or measure the stage again" in capsys.readouterr().err
    (run / STAGE / "cost.json").unlink()
    assert main(["export", str(run / STAGE), "--to", "npz"]) == 0
    assert "0 predictions other than the run's" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-seed_0-fairgrape-round_03-npz"]
    assert main(["export", str(run / STAGE), "--to", "npz"]) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["measure"], "name a run"),
        (["measure", "nowhere"], "nowhere: not a run, and no stage of one"),
        (["measure", "resnet81"], "resnet81: not a run.*no model: choose one of .*resnet18"),
        (["measure", "mlp", "--save"], "mlp: --shrink, --strip and --save are for stages"),
        (["measure", "mlp", "--size", "0"], "--size and --classes are 1 or more"),
        (["measure", "mlp", "--repeats", "0"], "--repeats is 1 or more"),
        (["measure", "RUN", "--repeats", "0"], "--repeats is 1 or more"),
        (["export", "nowhere", "--to", "npz"], "nowhere: not a run, and no stage of one"),
        (["export", "RUN", "--to", "gguf"], "'gguf' is no format"),
        (["export", "RUN/seed_0/slimming", "--to", "npz"], "slimming.* is not there"),
    ],
)
def test_bad_requests_are_one_line(words, message, run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([word.replace("RUN", str(run)) for word in words]) == 2
    err = capsys.readouterr().err
    assert re.search(message, err)
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())
