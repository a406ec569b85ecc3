"""Files of a run: atomic writes, checksums, locks, checkpoints, passes that can be resumed."""

from fairgrape_jax.storage.checksums import (
    changed_files,
    directory_digests,
    read_checksummed,
    sha256,
    sha256_or_empty,
    write_checksummed,
)
from fairgrape_jax.storage.files import (
    CURES,
    atomic_write,
    check_writable,
    describe_write_error,
    explain_write_errors,
    name_path_in_errors,
    read_arrays,
    require_regular_file,
    unique_sibling,
    write_arrays,
    write_json,
    write_text,
)

__all__ = [
    "CURES",
    "atomic_write",
    "changed_files",
    "check_writable",
    "describe_write_error",
    "directory_digests",
    "explain_write_errors",
    "name_path_in_errors",
    "read_arrays",
    "read_checksummed",
    "require_regular_file",
    "sha256",
    "sha256_or_empty",
    "unique_sibling",
    "write_arrays",
    "write_checksummed",
    "write_json",
    "write_text",
]
