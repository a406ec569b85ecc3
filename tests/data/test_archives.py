"""Archives, weights and arrays: nothing is unpickled, or written elsewhere."""

import ast
import gzip
import io
import os
import pickle
import re
import signal
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

import fairgrape_jax
from fairgrape_jax import data, models
from fairgrape_jax.cli import main
from fairgrape_jax.data.builders import builder
from fairgrape_jax.data.images import archives, decode, files
from fairgrape_jax.data.sources import utkface, writers
from fairgrape_jax.errors import UsageError
from fairgrape_jax.storage import checkpoint
from tests.helpers import layouts

PACKAGE = Path(fairgrape_jax.__file__).parent
NAMES = [f"{age}_{age % 2}_{age % 4}_2017.jpg" for age in range(1, 21)]
SECRET = layouts.jpeg(99)  # a picture outside of the archive, which links point to


@pytest.fixture(autouse=True)
def no_hang():
    """A reader that goes in a circle fails its test, not the suite."""

    def late(*_):
        raise AssertionError("hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def member(name, content=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


HOSTILE = {
    "parent": member("../../owned_0_0_1.jpg", layouts.jpeg(50)),
    "absolute": member("/tmp/owned_0_0_2.jpg", layouts.jpeg(51)),
    "symbolic link": member("7_0_0_3.jpg", type=tarfile.SYMTYPE, linkname="../secret.jpg"),
    "absolute link": member("7_0_0_4.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "hard link": member("7_0_0_5.jpg", type=tarfile.LNKTYPE, linkname="../secret.jpg"),
    "link then through it": member("7_0_0_6.jpg/x.jpg", type=tarfile.SYMTYPE, linkname="/"),
    "pipe": member("7_0_0_7.jpg", type=tarfile.FIFOTYPE),
    "device": member("7_0_0_8.jpg", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
    "folder": member("7_0_0_9.jpg", type=tarfile.DIRTYPE),
}


def hostile_tar(path):
    """Twenty faces among members that would write elsewhere, or read what is not theirs."""
    good = [member(name, layouts.jpeg(i)) for i, name in enumerate(NAMES)]
    packed = path.suffix == ".gz"
    with tarfile.open(path, "w:gz" if packed else "w") as archive:
        for info, content in [*HOSTILE.values(), *good]:
            archive.addfile(info, io.BytesIO(content))


def hostile_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("../../owned_0_0_1.jpg", "/tmp/owned_0_0_2.jpg", *NAMES):
            archive.writestr(name, layouts.jpeg(len(name)))
        link = zipfile.ZipInfo("7_0_0_3.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "../secret.jpg")


def contents(place):
    return {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}


@pytest.mark.parametrize("form", ["tar", "tar.gz", "zip"])
def test_a_builder_writes_nothing_by_the_names_in_an_archive(form, tmp_path):
    inside = tmp_path / "a" / "b"
    (inside / "from").mkdir(parents=True)
    (inside / "secret.jpg").write_bytes(SECRET)
    archive = inside / "from" / f"faces.{form}"
    (hostile_zip if form == "zip" else hostile_tar)(archive)
    before = contents(tmp_path)
    listing = builder("utk_face").read(
        inside / "from", builder("utk_face").options(lenient=True), inside / "scratch"
    )
    assert set(NAMES) <= {row.name for row in listing.rows}
    assert all(files.read(row.file) != SECRET for row in listing.rows)
    after = contents(tmp_path)
    new = after.keys() - before.keys()
    assert all(path.parent == inside / "scratch" and path.suffix == ".tar" for path in new)
    assert {path: after[path] for path in before} == before


@pytest.mark.parametrize("form", ["tar", "tar.gz"])
def test_a_source_reads_only_the_files_of_an_archive(form, tmp_path):
    (tmp_path / "secret.jpg").write_bytes(SECRET)
    hostile_tar(tmp_path / f"faces.{form}")
    before = contents(tmp_path)
    listed = utkface.faces(tmp_path / f"faces.{form}", tmp_path / "scratch")
    assert [face.name for face in listed.faces] == sorted(NAMES)
    assert listed.misnamed == ["owned_0_0_1.jpg", "owned_0_0_2.jpg"]
    assert SECRET not in {files.read(face.file) for face in listed.faces}
    assert f"{sum('link' in what for what in HOSTILE)} not read, a link" in listed.notes[0]
    after = contents(tmp_path)
    assert {path: after[path] for path in before} == before
    assert {path.parent for path in after.keys() - before.keys()} <= {tmp_path / "scratch"}


def test_tars_within_a_tar_are_read_in_place(tmp_path):
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as archive:
        archive.addfile(*(lambda i, c: (i, io.BytesIO(c)))(*member("../owned.jpg", b"x")))
        archive.addfile(*(lambda i, c: (i, io.BytesIO(c)))(*HOSTILE["hard link"]))
    with tarfile.open(tmp_path / "outer.tar", "w") as archive:
        info, content = member("../../n01440764.tar", inner.getvalue())
        archive.addfile(info, io.BytesIO(content))
    found = files.find(tmp_path / "outer.tar", tmp_path / "scratch", "")
    assert [files.read(entry) for entry in found.entries] == [b"x"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["outer.tar"]


def with_size(number):
    """A tar whose first member says it has `number` bytes, which may be less than none."""
    info, content = member(NAMES[0], layouts.jpeg(0))
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = (number & (1 << 96) - 1 | 1 << 95).to_bytes(12, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    return bytes(block) + content + bytes(10240)


def both_readers(path, scratch):
    yield lambda: files.find(path, scratch, "a tar")
    yield lambda: data.load(data.source("utkface", path=str(path)))


def test_a_tar_that_leads_back_to_its_beginning_is_refused(tmp_path):
    for number in (-1024, -2048, -512, -(2**40)):
        (tmp_path / "faces.tar").write_bytes(with_size(number))
        for read in both_readers(tmp_path / "faces.tar", tmp_path / "scratch"):
            with pytest.raises(UsageError, match=r"faces\.tar: (cannot be read|no picture)"):
                read()


def test_a_picture_that_says_it_is_huge_is_refused(tmp_path):
    (tmp_path / "faces.tar").write_bytes(with_size(1 << 40))
    for read in both_readers(tmp_path / "faces.tar", tmp_path / "scratch"):
        with pytest.raises(UsageError, match=r"bytes are no picture|cannot be read"):
            read()
    with zipfile.ZipFile(tmp_path / "faces.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(NAMES[0], bytes(archives.PICTURE_BYTES + 1))
    assert (tmp_path / "faces.zip").stat().st_size < 1 << 20
    with pytest.raises(UsageError, match="bytes are no picture"):
        files.find(tmp_path / "faces.zip", tmp_path / "scratch", "")


def test_a_sparse_member_is_passed_over(tmp_path):
    big = tmp_path / "sparse"
    with big.open("wb") as file:
        file.truncate(1 << 30)
    if os.system(f"cd {tmp_path} && tar --sparse --format=gnu -cf faces.tar sparse") != 0:
        pytest.skip("no GNU tar")
    with tarfile.open(tmp_path / "faces.tar") as archive:
        assert next(iter(archives.members(archive))).issparse()
    others = {}
    assert list(archives.entries(tmp_path / "faces.tar", tmp_path, others)) == []
    assert others == {"sparse": "not a regular file"}


def test_what_unpacks_to_far_more_than_it_is_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "ROOM", 1 << 20)
    with tarfile.open(tmp_path / "faces.tar.gz", "w:gz") as archive:
        info, content = member("zeros", bytes(1 << 26))
        archive.addfile(info, io.BytesIO(content))
    for read in both_readers(tmp_path / "faces.tar.gz", tmp_path / "scratch"):
        with pytest.raises(UsageError, match="unpacks to more than 20 times its size"):
            read()
    assert contents(tmp_path / "scratch") == {}


def test_a_zip_that_lies_about_a_size_gives_no_more_than_it_said(tmp_path):
    with zipfile.ZipFile(tmp_path / "faces.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(NAMES[0], bytes(1 << 24))
    content = (tmp_path / "faces.zip").read_bytes()
    true, lie = (1 << 24).to_bytes(4, "little"), (10).to_bytes(4, "little")
    (tmp_path / "faces.zip").write_bytes(content.replace(true, lie))
    (entry,) = files.find(tmp_path / "faces.zip", tmp_path / "scratch", "").entries
    assert entry.size == 10
    with pytest.raises(OSError, match="CRC"):
        files.read(entry)


def test_a_gzipped_idx_file_is_read_no_further_than_it_should_be_long(tmp_path):
    head = np.array([0x801, 100], ">u4").tobytes()
    with gzip.open(tmp_path / "train-labels-idx1-ubyte.gz", "wb") as file:
        file.write(head + bytes(1 << 26))
    tracemalloc.start()
    with pytest.raises(UsageError, match="more than 100 bytes of data, expected 100"):
        writers.read_idx_file(tmp_path / "train-labels-idx1-ubyte.gz", 0x801, (100,))
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_picture_of_a_billion_pixels_is_not_decoded(kind):
    content = bytearray(layouts.jpeg(0, kind=kind))
    if kind == "png":
        import zlib

        content[16:24] = (60_000).to_bytes(4, "big") * 2
        content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    else:
        frame = content.index(b"\xff\xc0")
        content[frame + 5 : frame + 9] = (60_000).to_bytes(2, "big") * 2
    assert "exceeds limit" in decode.fault(bytes(content))
    with pytest.raises(decode.BrokenPictureError, match="exceeds limit"):
        decode.decode(bytes(content), 8, reduced=False)


# --- pickles


class Bomb:
    """Says so in a file if it is ever unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def unpickled(tmp_path, monkeypatch):
    """A pickle that would show, and every way to load one an error."""
    path = tmp_path / "unpickled"

    def never(*_, **__):
        raise AssertionError("unpickled")

    content = pickle.dumps(Bomb(path))
    objects = np.empty(1, object)
    objects[0] = Bomb(path)
    out = io.BytesIO()
    np.savez(out, values=objects, name=objects, clusters=objects, train_images=objects)
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, never)
    yield content, out.getvalue()
    assert not path.exists()


def test_weights_that_would_run_code_are_refused(unpickled, tmp_path):
    """Whatever the file is called; tests/models/test_pretrained.py has those that are read."""
    content, arrays = unpickled
    torch_zip = io.BytesIO()
    with zipfile.ZipFile(torch_zip, "w") as archive:
        archive.writestr("archive/data.pkl", content)
    for suffix in (".pt", ".pth", ".bin", ".pkl", ".ckpt", ".npz", ".safetensors"):
        for held in (content, torch_zip.getvalue(), arrays):
            path = tmp_path / f"weights{suffix}"
            path.write_bytes(held)
            with pytest.raises(UsageError, match=r"refused|holds no weights|no checkpoint"):
                models.load_pretrained("resnet18", path, {})


def test_arrays_are_read_without_pickle(unpickled, tmp_path, monkeypatch):
    _, arrays = unpickled
    (tmp_path / "x.npz").write_bytes(arrays)
    np.savez(tmp_path / "masks.npz", **{"a": np.ones(1, object), "a.shape": np.ones(1, int)})
    with pytest.raises(ValueError, match="allow_pickle"):
        checkpoint.load_masks(tmp_path / "masks.npz")
    monkeypatch.setattr(writers, "SAMPLE", tmp_path / "x.npz")
    monkeypatch.setattr(writers, "SAMPLE_SHA256", __import__("hashlib").sha256(arrays).hexdigest())
    with pytest.raises(UsageError, match="corrupt"):
        data.load(data.source("writers"))
    made = tmp_path / "x" / "1.0.0"
    layouts.folder(tmp_path / "from")
    line = ["data", "prepare", "folder_csv", "--from", str(tmp_path / "from"), "--name", "x"]
    assert main.main([*line, "--data-dir", str(tmp_path)]) == 0
    (made / "columns.npz").write_bytes(arrays)
    with pytest.raises(UsageError, match=r"columns\.npz: cannot be read"):
        data.load(data.source("prepared", path=str(tmp_path), dataset="x"))


PICKLES = re.compile(r"pickle|dill|joblib|marshal|shelve|torch|allow_pickle")


def test_no_module_of_the_package_can_unpickle():
    """By name: no import of what does, and no NumPy call that allows it.

    One file does: the reader of PyTorch's files, which lets nothing but tensors be made.
    """
    for path in sorted(set(PACKAGE.rglob("*.py")) - {PACKAGE / "models" / "torch_files.py"}):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
                names = [name for name in names if not re.search("torchvision|torch_files", name)]
                assert not [name for name in names if PICKLES.search(name)], path
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), path
                assert node.value.value is False, path
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("eval", "system", "popen"), (path, node.lineno)
