"""Files of a run: written whole, known again by checksum, locked, and read as their schema says."""

from fairgrape_jax.storage.checksums import altered, digest, digests, seal, sha256, unseal
from fairgrape_jax.storage.files import (
    CURES,
    beside,
    check_writable,
    naming,
    read_arrays,
    regular,
    replacing,
    said,
    told,
    write_arrays,
    write_json,
    write_text,
)

__all__ = [
    "CURES",
    "altered",
    "beside",
    "check_writable",
    "digest",
    "digests",
    "naming",
    "read_arrays",
    "regular",
    "replacing",
    "said",
    "seal",
    "sha256",
    "told",
    "unseal",
    "write_arrays",
    "write_json",
    "write_text",
]
