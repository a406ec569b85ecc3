"""Where the command begins: in UTF-8, repeatable on GPUs, and in one line where JAX is missing."""

from __future__ import annotations

import os
import sys


def main() -> int:
    """The `fairgrape` command; 2 if what it needs is not installed, or of versions that clash."""
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        # Names of columns and folders could not be read as typed, and TensorStore, which writes
        # checkpoints, takes paths as UTF-8 alone. The same process begins anew in UTF-8 mode.
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    make_gpus_deterministic()
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


def make_gpus_deterministic() -> None:
    """Ask XLA for sums in one order on GPUs, unless XLA_FLAGS says something of that already.

    Without it the same command on the same GPU gives other bits each time (seen on an H100: masks
    differ from the first round on), and a run that was stopped another network than one that was
    not. It must be set before JAX is imported.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if os.environ.get("JAX_PLATFORMS") != "cpu" and "xla_gpu_deterministic_ops" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()


if __name__ == "__main__":
    sys.exit(main())
