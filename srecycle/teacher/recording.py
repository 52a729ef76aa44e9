"""Where recorded tables stand: files in a folder, or splits of a hub data set."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from srecycle.errors import UserError

_KINDS = (".parquet", ".jsonl", ".ndjson", ".json")


def is_hub_id(path: str) -> bool:
    """Say whether a path has the form of a hub id, like `org/name`."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", path) is not None and not path.endswith(_KINDS)


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
    from huggingface_hub import HfApi, constants, try_to_load_from_cache

    cached = try_to_load_from_cache(name, "README.md", revision=revision, repo_type="dataset")
    if constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE") == "1":
        if isinstance(cached, str):
            return Path(cached).parent.name
        raise UserError(f"teacher.path={name} is neither a file or folder nor in the local hub cache; the hub is off")
    try:
        return str(HfApi().dataset_info(name, revision=revision).sha)
    except Exception as error:  # which http library raises here changes with the hub's client
        if isinstance(cached, str):
            return Path(cached).parent.name
        raise UserError(
            f"teacher.path={name} is no file or folder here, and the hub can't be asked for it "
            f"({type(error).__name__}): check the path, the id, or the connection"
        ) from error


def hub_records(name: str, commit: str | None, split: str) -> Iterator[dict[str, Any]]:
    """Yield the records of a hub data set's split at a commit. Raises UserError where it can't be loaded."""
    from datasets import load_dataset

    try:
        loaded = load_dataset(name, split=split, revision=commit)
    except Exception as error:  # the library raises its own, the hub's and pyarrow's
        raise UserError(
            f"teacher.path={name}: the split {split} can't be loaded: {' '.join(str(error).split())}"
        ) from error
    yield from (dict(record) for record in loaded)
