"""Charts that are drawn from the data of a run, but not rendered: half of what a report costs.

All of our code and matplotlib's artists are made; only its writing of letters and lines as SVG or
pixels is left out. tests/reports/ renders.
"""

import struct
import zlib
from contextlib import contextmanager

import pytest

SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"></svg>'


def chunk(kind, content):
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


PNG = b"\x89PNG\r\n\x1a\n" + b"".join(
    [
        chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)),
        chunk(b"IDAT", zlib.compress(b"\0\xff")),
        chunk(b"IEND", b""),
    ]
)


@contextmanager
def charts(formats=("svg", "png")):
    """While the body runs, a figure is saved as one empty pixel in these formats."""
    from matplotlib.figure import Figure

    render = Figure.savefig

    def save(figure, file, *, format, **options):
        if format not in formats:
            render(figure, file, format=format, **options)
        elif format == "svg":
            file.write(SVG)
        else:
            file.write_bytes(PNG)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save)
        yield
