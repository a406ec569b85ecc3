"""Files of a run: atomic writes, checksums, locks, checkpoints, passes that can be resumed."""

from fairgrape_jax.storage.addresses import as_path, is_object_path, require_local
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
    remove_tree,
    require_regular_file,
    unique_sibling,
    write_arrays,
    write_json,
    write_text,
)

__all__ = [
    "CURES",
    "as_path",
    "atomic_write",
    "changed_files",
    "check_writable",
    "describe_write_error",
    "directory_digests",
    "explain_write_errors",
    "is_object_path",
    "name_path_in_errors",
    "read_arrays",
    "read_checksummed",
    "remove_tree",
    "require_local",
    "require_regular_file",
    "sha256",
    "sha256_or_empty",
    "unique_sibling",
    "write_arrays",
    "write_checksummed",
    "write_json",
    "write_text",
]
