"""Where recorded tables stand: files in a folder, or splits of a hub data set."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from srecycle.data.pinned import PinnedData
from srecycle.errors import UserError

_KINDS = (".parquet", ".jsonl", ".ndjson", ".json")


def table_files(folder: Path, table: str) -> list[Path]:
    """Return a table's files, in order: `TABLE.parquet` (or .jsonl, .json), or a hub snapshot's `TABLE-00000-of-...`.

    Raises UserError where there is none.
    """
    for place in (folder, folder / "data"):
        whole = [file for kind in _KINDS if (file := place / f"{table}{kind}").is_file()]
        parts = sorted(file for file in place.glob(f"{table}-*") if file.suffix in _KINDS)
        if whole or parts:
            return whole[:1] or parts
    raise UserError(
        f"teacher.path={folder} has no table {table} (looked for {table}.parquet, .jsonl, .json and {table}-*, there "
        "and in its folder data): see teacher.versions, null for a version that was not recorded"
    )


def hub_commit(name: str, revision: str) -> str:
    """Return the commit behind a hub data set's revision: from the hub, or offline from the local cache.

    Raises UserError where neither knows it.
    """
    return PinnedData(setting="teacher.path", path=name, revision=revision).commit


def hub_records(name: str, commit: str | None, split: str) -> Iterator[dict[str, Any]]:
    """Yield the records of a hub data set's split at a commit. Raises UserError where it can't be loaded."""
    yield from PinnedData(setting="teacher.path", path=name, revision=commit or "main", split=split).records()
