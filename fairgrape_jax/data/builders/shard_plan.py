"""Which rows each shard is of, and whether the shards of an earlier attempt are still good."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from fairgrape_jax.data.builders.listing import Listing, Row

SHARD_BYTES, SHARD_ROWS = 256 << 20, 20_000  # what is done again after a kill, at most


def plan_shards(rows: Sequence[Row], shard_bytes: int) -> list[range]:
    """Cut rows into shards.

    Args:
        rows: All rows, each split's together.
        shard_bytes: Bytes of pictures in a shard, about.

    Returns:
        Numbers of consecutive rows, of one split each.
    """
    shards, first, size = [], 0, 0
    for i, row in enumerate(rows):
        full = size + row.file.size > shard_bytes or i - first == SHARD_ROWS
        if i > first and (full or row.split != rows[first].split):
            shards.append(range(first, i))
            first, size = i, 0
        size += row.file.size
    return [*shards, range(first, len(rows))]


def check_plan(partial: Path, listing: Listing, plan: Sequence[range]) -> None:
    """Forget the shards of an earlier attempt if they were of other rows, or of other files.

    Args:
        partial: The folder of shards.
        listing: The rows of this attempt.
        plan: Which of them each shard is of.
    """
    digest = hashlib.sha256(repr((listing.columns, plan)).encode())
    modified: dict[Path, int] = {}
    for row in listing.rows:
        holder = row.file.holder
        if holder not in modified:
            modified[holder] = holder.stat().st_mtime_ns
        facts = (row.name, row.file.size, row.values, row.source, row.split, modified[holder])
        digest.update(repr(facts).encode())
    record = partial / "plan"
    if record.exists() and record.read_text(encoding="utf-8") == digest.hexdigest():
        return
    for path in partial.glob("shard-*"):
        path.unlink()
    record.write_text(digest.hexdigest(), encoding="utf-8")
