"""Where the command begins: in UTF-8, and a JAX that cannot be imported is said in a line."""

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


if __name__ == "__main__":
    sys.exit(main())
