"""Where the command begins: in UTF-8 and huge pages, GPUs repeatable, refused without JAX."""

from __future__ import annotations

import os
import platform
import sys
import zlib


def main() -> int:
    """The `fairgrape` command; 2 if what it needs is not installed, or of versions that clash."""
    anew = use_huge_pages()
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        # Names of columns and folders could not be read as typed, and TensorStore, which writes
        # checkpoints, takes paths as UTF-8 alone. The same process begins anew in UTF-8 mode.
        os.environ["PYTHONUTF8"] = "1"
        anew = True
    if anew:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    make_gpus_deterministic()
    keep_programs()
    try:
        from fairgrape_jax.cli import main as cli
    except (ImportError, RuntimeError) as error:
        print(
            f"fairgrape: error: cannot be started ({' '.join(str(error).split())}); install it "
            "again with what it needs: pip install --upgrade --force-reinstall fairgrape-jax",
            file=sys.stderr,
        )
        return 2
    return cli.main()


def use_huge_pages(setting: str = "/sys/kernel/mm/transparent_hugepage/enabled") -> bool:
    """Ask glibc for memory in huge pages, unless GLIBC_TUNABLES says something of that already.

    XLA takes the memory of every step anew from the kernel, which gives it page by page: a fifth of
    the CPU seconds of a training step at 64 and 224 pixels. glibc reads this as a process begins.

    Args:
        setting: the file in which Linux tells who is given huge pages.

    Returns:
        Whether the process must begin anew.
    """
    name, tunables = "glibc.malloc.hugetlb", os.environ.get("GLIBC_TUNABLES", "")
    try:
        with open(setting, encoding="ascii", errors="replace") as file:
            on_request = "[madvise]" in file.read()
    except OSError:
        return False
    if name in tunables or not on_request:
        return False
    os.environ["GLIBC_TUNABLES"] = f"{tunables}:{name}=1".strip(":")
    return True


def make_gpus_deterministic() -> None:
    """Ask XLA for sums in one order on GPUs, unless XLA_FLAGS says something of that already.

    Without it the same command on the same GPU gives other bits each time (seen on an H100: masks
    differ from the first round on), and a run that was stopped another network than one that was
    not. It must be set before JAX is imported.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if os.environ.get("JAX_PLATFORMS") != "cpu" and "xla_gpu_deterministic_ops" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()


def keep_programs(cpuinfo: str = "/proc/cpuinfo") -> None:
    """Have JAX keep compiled programs in the user's cache folder, for the next run of the command.

    In $XDG_CACHE_HOME or ~/.cache, fairgrape_jax/programs/CPU; JAX tells versions, flags and
    programs apart, but not processors, whose instructions a shared home would hand to others. A
    folder that JAX_COMPILATION_CACHE_DIR names is left to whoever named it, an empty name keeps
    none, and so does a home that cannot be written. It must be set before JAX is imported.

    Args:
        cpuinfo: the file in which Linux tells what the processor can do.
    """
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or not os.path.isabs(base):
        return
    try:
        with open(cpuinfo, encoding="utf-8", errors="replace") as lines:
            features = next((x for x in lines if x.lower().startswith(("flags", "features"))), "")
    except OSError:
        features = ""
    machine = platform.machine() or "machine"
    name = f"{machine}-{zlib.crc32((features or platform.processor()).encode()):08x}"
    folder = os.path.join(base, "fairgrape_jax", "programs", name)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return
    if os.access(folder, os.W_OK | os.X_OK):
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder


if __name__ == "__main__":
    sys.exit(main())
