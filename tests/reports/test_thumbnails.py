"""Thumbnails: whose picture, which form, and a report that stays one file."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from fairgrape_jax.cli.main import main
from fairgrape_jax.errors import UsageError
from fairgrape_jax.reports import thumbnails


def picture(path, shade, size=(40, 80)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 0, 0)).save(path)


def pixels(address):
    head, _, content = address.partition(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(content)))
    assert head == f"data:image/{image.format.lower()}"
    return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_small_picture_is_kept_to_the_bit_and_a_large_one_shrunk(channels):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (28, 30, channels), np.uint8)
    np.testing.assert_array_equal(
        pixels(thumbnails.data_address(small)), np.broadcast_to(small, (28, 30, 3))
    )
    large = rng.integers(0, 256, (300, 200, channels), np.uint8)
    assert pixels(thumbnails.data_address(large)).shape == (96, 64, 3)
    assert thumbnails.data_address(large) == thumbnails.data_address(large)


def test_pictures_are_found_by_path_name_and_stem(tmp_path):
    picture(tmp_path / "a" / "1.jpg", 10)
    picture(tmp_path / "b" / "1.jpg", 200)
    picture(tmp_path / "b" / "two.png", 90)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    found = thumbnails.pictures_by_name(
        tmp_path, ["a/1.jpg", "b/1", "two", "1.jpg", "broken", "../x", "no"]
    )
    assert sorted(found) == ["a/1.jpg", "b/1", "two"]  # 1.jpg is two pictures
    shades = [int(pixels(address)[5, 5, 0]) for _, address in sorted(found.items())]
    assert np.abs(np.array(shades) - [10, 200, 90]).max() < 6
    with pytest.raises(UsageError, match="no picture is called as a sample is"):
        thumbnails.pictures_by_name(tmp_path, ["three"])


def test_an_audit_shows_the_samples_that_changed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for i in range(4):
        picture(tmp_path / "faces" / f"f{i}.png", 60 * i)
    rows = [f"f{i}.png,{i % 2},{i % 2},{'ab'[i // 2]}" for i in range(4)]
    (tmp_path / "a.csv").write_text("id,label,prediction,group\n" + "\n".join(rows))
    (tmp_path / "b.csv").write_text("id,prediction\nf0.png,0\nf1.png,0\nf2.png,0\nf3.png,0\n")
    line = ["audit", "--dense", "a.csv", "--compressed", "b.csv", "--replicates", "20"]
    assert main([*line, "--thumbnails", "faces"]) == 0
    page = (tmp_path / "audit" / "report.html").read_text(encoding="utf-8")
    shown = re.findall(r'<img alt="" src="(data:image/[^"]*)"><figcaption>([^<]*)', page)
    assert [name for _, name in shown] == ["f1.png", "f3.png"]
    assert [int(pixels(address)[5, 5, 0]) // 10 for address, _ in shown] == [6, 18]
    assert not re.search(r"https?:|<script", page)
    assert "data:image" not in (tmp_path / "audit" / "report.md").read_text(encoding="utf-8")
    assert main([*line, "--out", "none"]) == 0
    assert "<img" not in (tmp_path / "none" / "report.html").read_text(encoding="utf-8")
    assert main([*line, "--out", "bad", "--thumbnails", "nowhere"]) == 2
    assert "nowhere: no such file or folder" in capsys.readouterr().err
    (tmp_path / "rows.csv").write_text("label,prediction,group\n0,0,a\n1,1,b\n")
    line = ["audit", "--dense", "rows.csv", "--compressed", "rows.csv", "--out", "bad"]
    assert main([*line, "--thumbnails", "faces"]) == 2
    assert "--thumbnails: there are no ids" in capsys.readouterr().err
    assert not (tmp_path / "bad").exists()
