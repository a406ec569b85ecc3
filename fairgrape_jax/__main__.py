"""Where the command begins: a JAX that cannot even be imported is said in a line."""

from __future__ import annotations

import sys


def main() -> int:
    """The `fairgrape` command; 2 if what it needs is not installed, or of versions that clash."""
    try:
        from fairgrape_jax import cli
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
