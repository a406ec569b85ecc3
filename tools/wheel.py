"""Is everything in the wheel and the sdist, and nothing else? `make wheel` asks, then tests it."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BESIDE = (".dist-info/",)  # what a wheel holds besides the package


def main(folder: Path) -> int:
    """Compare the archives in `folder` with the tree; 1 and what is wrong, or 0 and a count."""
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    with tarfile.open(sdist) as archive:
        source = {name.partition("/")[2] for name in archive.getnames()}
    expected = package_files()
    wrong = differences(held, expected)
    wrong += [f"not in the sdist: {name}" for name in sorted(expected - source)]
    print("\n".join(wrong) or f"{wheel.name}: the {len(expected)} files of the package, no other")
    return bool(wrong)


def package_files() -> set[str]:
    """The files of the package: modules, the mark of its types, samples and templates."""
    package = ROOT / "fairgrape_jax"
    paths = [*package.rglob("*.py"), package / "py.typed"]
    for folder in ("cli/templates", "data/samples", "reports/templates", "reproduction/tables"):
        paths += (package / folder).iterdir()
    return {str(path.relative_to(ROOT)) for path in paths}


def differences(held: set[str], expected: set[str]) -> list[str]:
    """What is missing in a wheel, and what should not be there.

    >>> differences({"a/b.py", "a-1.dist-info/METADATA", "tests/x.py"}, {"a/b.py", "a/c.py"})
    ['not in the wheel: a/c.py', 'not of the package: tests/x.py']
    """
    others = {name for name in held - expected if not any(mark in name for mark in BESIDE)}
    missing = [f"not in the wheel: {name}" for name in sorted(expected - held)]
    return missing + [f"not of the package: {name}" for name in sorted(others)]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
