"""The report of a run: one tree, its numbers, names and pictures, the same bytes each time."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fairgrape_jax
from fairgrape_jax.cli.main import main
from fairgrape_jax.errors import UsageError
from fairgrape_jax.reports import layers, results, run, run_results, thumbnails
from tests.helpers import made_runs
from tests.helpers.fuzzing import harmless


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return made_runs.make(tmp_path_factory.mktemp("runs") / "made")


@pytest.fixture(scope="module")
def written(made, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    run.write([made], out)
    return out


def sections_of(text):
    parts = re.split(r"^## (.*)$", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_page_and_markdown_have_the_same_sections_and_numbers(written):
    page = (written / "report.html").read_text(encoding="utf-8")
    text = (written / "report.md").read_text(encoding="utf-8")
    assert re.findall(r"<h2>(.*?)</h2>", page) == list(sections_of(text))
    plain = re.sub(r"<[^>]*>", "", page)
    cells = re.findall(r"(?<=\| )[^|\n]*\d \[[^|\n]*(?= \|)", text)
    assert len(cells) > 100
    for cell in cells:
        assert cell.replace("&", "&amp;") in plain
    pictures = re.findall(r"!\[[^]]*\]\(([^)]*)\)", text)
    assert sorted(pictures) == sorted(path.name for path in written.glob("*.png"))
    assert len(pictures) == 5
    harmless(written)


def test_the_report_says_who_is_in_no_group_and_what_the_samples_tell(written):
    text = (written / "report.md").read_text(encoding="utf-8")
    assert "in no group 7" in text
    assert "the loss is largest for b and smallest for" in text
    assert "corrected for picking two of 3" in text


@pytest.mark.whole
def test_methods_are_compared_on_shared_seeds_only(made, tmp_path):
    models = results.read(made)
    cells = run_results.last_rounds(results.compare_rounds(models, 20))
    shared = run_results.compare_methods(cells)
    assert shared.values.shape == (2, 3)
    other = made_runs.make(tmp_path / "other", seeds=(5,))
    others = run_results.last_rounds(results.compare_rounds(results.read(other), 20))
    assert run_results.compare_methods([cells[0], others[1]]) is None
    run.write([made, other], tmp_path / "both")
    text = (tmp_path / "both" / "report.md").read_text()
    assert "share no seed, or not their samples: they are not compared" in text


@pytest.mark.whole
def test_changed_samples_have_their_names_or_numbers(made, written, tmp_path):
    listed = sections_of((written / "report.md").read_text())["Samples that pruning changed"]
    assert "Ids are file names" in listed
    ids = re.findall(r"faces/(\d+)\.jpg", listed)
    models = results.read(made)
    last = [m for m in models if m.name == "magnitude" and m.record["round"] == 3]
    changed = np.all([m.predicted.predictions != m.dense.predictions for m in last], axis=0)[:, 0]
    assert [int(i) for i in ids[: changed.sum()]] == np.flatnonzero(changed).tolist()
    assert f"| all | 240 | {changed.sum()} (" in listed
    unnamed = made_runs.make(tmp_path / "unnamed", named=False)
    run.write([unnamed], tmp_path / "out")
    listed = sections_of((tmp_path / "out" / "report.md").read_text())
    assert "Ids are the index in predictions.csv" in listed["Samples that pruning changed"]


@pytest.mark.whole
def test_thumbnails_from_a_folder_of_the_files(made, tmp_path, capsys):
    for i in range(0, 240, 2):
        path = tmp_path / "all" / "faces" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (i, 0, 0)).save(path)
    place = ["--pictures", str(tmp_path / "all"), "--out", str(tmp_path / "out")]
    assert main(["report", str(made), *place]) == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    shown = re.findall(r'<img alt="" src="data:image/jpeg[^"]*"><figcaption>([^<]*)', page)
    assert shown
    assert all(int(re.search(r"(\d+)\.jpg", name)[1]) % 2 == 0 for name in shown)
    assert main(["report", str(made), "--thumbnails", "--out", str(tmp_path / "x")]) == 2
    assert "its dataset is another one now" in capsys.readouterr().err
    unnamed = made_runs.make(tmp_path / "unnamed", named=False)
    assert main(["report", str(unnamed), *place]) == 2
    assert "its predictions do not name pictures" in capsys.readouterr().err


def test_thumbnails_from_the_dataset_of_the_run(made, monkeypatch):
    dataset = made_runs.dataset()
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, dataset.test.images.shape, np.uint8)
    object.__setattr__(dataset.test, "images", pixels)
    monkeypatch.setattr(thumbnails.data, "load", lambda _: dataset)
    predicted = results.read(made)[0].predicted
    found = thumbnails.pictures_of_run(made, predicted, [3, 200])
    assert found == {row: thumbnails.data_address(pixels[row]) for row in (3, 200)}
    object.__setattr__(dataset.test, "labels", 1 - dataset.test.labels)
    with pytest.raises(UsageError, match="its test labels differ"):
        thumbnails.pictures_of_run(made, predicted, [3])


@pytest.mark.whole
def test_a_report_is_the_same_bytes_whatever_the_hash_seed(made, written, tmp_path):
    code = "import sys; from fairgrape_jax.cli.main import main; sys.exit(main(sys.argv[1:]))"
    root = str(Path(fairgrape_jax.__file__).parents[1])
    # That of this process is another one at each start.
    subprocess.run(
        [sys.executable, "-c", code, "report", str(made), "--out", str(tmp_path)],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": root},
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(os.listdir(written))
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (written / path.name).read_bytes(), path.name


def test_where_weights_are_left_is_the_mean_of_the_seeds(made):
    cells = run_results.last_rounds(results.compare_rounds(results.read(made), 5))
    for seed, cell_model in enumerate(cells[0].models):
        cell_model.record["layers"] = [
            {"layer": "conv1", "weights": 8, "alive": 2 + 4 * seed},
            {"layer": "fc1", "weights": 8, "alive": 1},
        ]
    table, figure = layers.weights_left(cells[:1])
    assert table.rows == [["magnitude", "12 % (fc1)", "50 % (conv1)"]]
    assert figure.charts[0].label == "Weights left by layer"


def test_a_deep_network_has_its_layers_folded(made, monkeypatch):
    models = results.read(made)
    monkeypatch.setattr(layers, "FEW_LAYERS", 1)
    whole, folded = layers.importance_share(models)
    assert whole.charts[0].label == "Mean of all layers"
    assert folded.blocks[0].picture == "importance_share.png"
    cells = run_results.last_rounds(results.compare_rounds(models, 5))
    assert "Weights left in each of 2 layers" in layers.weights_left(cells)[1].title


def test_the_words_of_a_report_are_explained_at_its_end(written):
    page = (written / "report.html").read_text(encoding="utf-8")
    anchors = set(re.findall(r'<dt id="([^"]*)"', page))
    links = set(re.findall(r'<a class="term" href="#([^"]*)"', page))
    assert {"interval", "worst-group", "rho-delta", "pie", "cev"} <= links <= anchors
    assert sections_of((written / "report.md").read_text()).popitem()[0] == "Definitions"
