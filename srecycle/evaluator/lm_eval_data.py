"""Where tasks' data comes from, and what pins it.

A task's YAML names a data set of the hub, or files. A copy in a local folder can stand in for it: `FOLDER` holds
parquet or JSON lines by split (`test.jsonl`, `train.parquet`, ...), or folders of such by configuration
(`FOLDER/anatomy/...`), as a download of the hub's repository does. Files are pinned by content, the hub's data sets by
commit.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from srecycle.digest import file_digest, folder_digest
from srecycle.errors import UserError
from srecycle.evaluator.lm_eval_tasks import Definition, names_code
from srecycle.progress import quiet_libraries
from srecycle.store import write_json

_FILE_READERS = ("json", "csv", "parquet", "text", "arrow", "xml", "pandas")
"""What `datasets` takes in place of a data set's name to read plain files."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The data of one task. `path` is what the harness is to load and `name` the configuration of it; `commit` is the
    hub's, None where it could not be found out, or the data is local (`content` is its digest then). `replaced` says
    that a local copy stands in for what the YAML names, of these `files` by split, where they tell it.
    """

    task: Definition
    path: str
    name: str | None
    local: bool
    replaced: bool = False
    files: Mapping[str, Sequence[str]] | None = None
    content: str | None = None
    commit: str | None = None

    @property
    def identity(self) -> str | None:
        """What stands for the data in an identity."""
        return self.content if self.local else self.commit


def source(task: Definition, folder: Path | None) -> Source:
    """Find out where a task's data comes from: `folder`, where one is given. Raises UserError where files are missing.

    The hub is asked for the commit, or offline its local cache.
    """
    path, name = str(task.content.get("dataset_path") or ""), task.content.get("dataset_name")
    if folder is not None:
        if not folder.is_dir():
            raise UserError(f"the data of {task.name}, {folder}, is not a folder: give one of parquet or JSON lines")
        return _in_folder(task, folder.absolute(), name)
    if path in _FILE_READERS or Path(path).expanduser().exists() or not path:
        return Source(task=task, path=path, name=name, local=True, content=_files_digest(task, path))
    revision = (task.content.get("dataset_kwargs") or {}).get("revision", "main")
    return Source(task=task, path=path, name=name, local=False, commit=hub_commit(path, str(revision)))


def require_safe(one: Source) -> None:
    """Refuse tasks that would run code which comes from elsewhere, or which the model writes."""
    asked = (one.task.content.get("dataset_kwargs") or {}).get("trust_remote_code")
    if asked and not one.local:
        raise UserError(
            f"the task {one.task.name} wants to run code of the data set {one.path} (trust_remote_code): "
            f"give a local copy of its data instead, +evaluator.NAME.data.{one.task.name}=FOLDER"
        )
    if one.task.content.get("unsafe_code"):
        raise UserError(f"the task {one.task.name} runs what the model writes (unsafe_code): it is not run here")


def require_packages(sources: Sequence[Source]) -> None:
    """Raise UserError where a task's functions need a Python package that isn't there."""
    from lm_eval.tasks._yaml_loader import load_yaml

    for one in sources:
        if not any(names_code(file) for file in one.task.files):
            continue
        try:
            load_yaml(one.task.files[0], resolve_func=True)
        except ImportError as error:
            words = " ".join(str(error).split())
            if "antlr4" in words:
                raise UserError(
                    f"the task {one.task.name} can't be run here: it needs antlr4-python3-runtime 4.11, and Hydra 4.9; "
                    "leave it out, as evaluator=[open_llm_v2] does"
                ) from error
            raise UserError(
                f"the task {one.task.name} needs a Python package that isn't installed ({words[:200]}): "
                "lm-eval brings it as an extra, see `pip show lm-eval` and the README beside the task"
            ) from error


def require_reachable(sources: Sequence[Source]) -> None:
    """Raise UserError where data sets of the hub are neither to be had from it nor in the local cache."""
    remote = {one.path: one for one in sources if not one.local}
    missing = [path for path, one in remote.items() if not _reachable(one)]
    if missing:
        tasks = [one.task.name for one in sources if not one.local and one.path in missing]
        told = ", ".join(tasks[:4]) + (f" and {len(tasks) - 4} more" if len(tasks) > 4 else "")
        off = "the hub is switched off" if offline() else "the hub can't be reached"
        raise UserError(
            f"the data of {told} can't be had: {off}, and the local cache has no {', '.join(missing)}; "
            f"give a local copy, +evaluator.NAME.data.{tasks[0]}=FOLDER, or go online once"
        )


def _reachable(one: Source) -> bool:
    if one.commit and not offline():
        _require_access(one)
        return True
    from datasets import load_dataset_builder

    try:
        with quiet_libraries():
            load_dataset_builder(one.path, one.name)
    except (OSError, ValueError):  # the hub's and the cache's own errors are of these
        return False
    return True


def _require_access(one: Source) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError

    try:
        HfApi().auth_check(one.path, repo_type="dataset")
    except GatedRepoError as error:
        raise UserError(
            f"the data of {one.task.name}, {one.path}, is gated: accept its terms at "
            f"https://huggingface.co/datasets/{one.path}, then `hf auth login`"
        ) from error
    except Exception:  # noqa: BLE001 - which http library raises here changes; loading tells what is wrong
        return


def write_overrides(folder: Path, sources: Sequence[Source]) -> None:
    """Write tasks of the same names, with their data in the place found and at the commit found."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    for number, one in enumerate(sources):
        options = dict(one.task.content.get("dataset_kwargs") or {})
        if one.replaced:
            options = {"data_files": one.files} if one.files else {}
        elif one.commit:
            options["revision"] = one.commit
        else:
            continue
        given = {"dataset_path": one.path, "dataset_name": one.name, "dataset_kwargs": options}
        included = {"include": str(one.task.files[0]), "task": one.task.name, "tag": []}
        write_json(folder / f"{number}.yaml", included | given)  # JSON is YAML


def used_commit(task: Any) -> str | None:
    """Return the hub's commit that a loaded task's data was downloaded at, as `datasets` recorded it."""
    splits = getattr(task, "dataset", None) or {}
    for split in splits.values() if isinstance(splits, Mapping) else ():
        for url in getattr(getattr(split, "info", None), "download_checksums", None) or {}:
            if found := re.search(r"@([0-9a-f]{40})/", str(url)):
                return found[1]
    return None


@cache
def hub_commit(data_set: str, revision: str = "main") -> str | None:
    """Return the commit behind a data set's revision: the hub's, offline its local cache's, else None."""
    from huggingface_hub import HfApi, constants

    cached = Path(constants.HF_HUB_CACHE) / f"datasets--{data_set.replace('/', '--')}" / "refs" / revision
    if not offline():
        try:
            return str(HfApi().dataset_info(data_set, revision=revision, timeout=10).sha)
        except Exception:  # noqa: BLE001 - which http library raises here changes with the hub's client
            pass
    return cached.read_text().strip() if cached.is_file() else None


def offline() -> bool:
    """Whether the hub is switched off."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE) or os.environ.get("HF_HUB_OFFLINE") == "1"


def content_digest(folder: Path) -> str:
    """Return a digest of a folder's files, less what Python leaves beside code that it ran."""
    names = (file.relative_to(folder) for file in folder.rglob("*"))
    return f"sha256:{folder_digest(folder, [name.as_posix() for name in names if '__pycache__' not in name.parts])}"


def _in_folder(task: Definition, folder: Path, name: str | None) -> Source:
    """Say how to load a local copy: as its README tells, or its files by split, or however `datasets` takes it.

    A file's name tells its split (`dev-00000-of-00001.parquet`); `datasets` would take `dev` for another word for
    validation.
    """
    if name and name in _configurations(folder / "README.md"):
        content = content_digest(folder)
        return Source(task=task, path=str(folder), name=name, local=True, replaced=True, content=content)
    places = [folder / name, folder / name / "data"] if name else []
    for place in (*places, folder, folder / "data"):
        for suffix, reader in ((".parquet", "parquet"), (".jsonl", "json"), (".json", "json")):
            if found := sorted(place.glob(f"*{suffix}")):
                files: dict[str, list[str]] = {}
                for file in found:
                    files.setdefault(file.name.removesuffix(suffix).partition("-")[0], []).append(str(file))
                _require_splits(task, folder, files)
                content = content_digest(folder)
                return Source(
                    task=task, path=reader, name=None, local=True, replaced=True, files=files, content=content
                )
    inside = f", nor does {folder / name}" if name else ""
    raise UserError(
        f"the data of {task.name}: {folder} holds no parquet or JSON lines{inside}: "
        "give a folder of files named by split, like test.jsonl"
    )


def _require_splits(task: Definition, folder: Path, files: Mapping[str, Sequence[str]]) -> None:
    said = task.content
    examples = said.get("fewshot_split") or said.get("training_split")
    needed = (said.get("test_split") or said.get("validation_split"), examples)
    if missing := [split for split in needed if split and "[" not in split and split not in files]:
        raise UserError(
            f"the data of {task.name}: {folder} has no split {missing[0]}, only {', '.join(files)}: "
            f"add {missing[0]}.jsonl or {missing[0]}.parquet"
        )


def _configurations(readme: Path) -> list[str]:
    """Return the configurations that a data set's card tells of in its front matter."""
    if not readme.is_file():
        return []
    match = re.match(r"---\n(.*?)\n---", readme.read_text(encoding="utf-8"), re.DOTALL)
    try:
        card = yaml.safe_load(match[1]) if match else {}
    except yaml.YAMLError:
        return []
    configurations = card.get("configs") if isinstance(card, dict) else None
    return [str(one.get("config_name")) for one in configurations or () if isinstance(one, dict)]


def _files_digest(task: Definition, path: str) -> str | None:
    """Return a digest of the local files that a task names; None where it names none (a URL, say)."""
    options = task.content.get("dataset_kwargs") or {}
    named = [*_texts(options.get("data_files")), *_texts(options.get("data_dir"))]
    named += [path] if path not in _FILE_READERS else []
    digests = []
    for one in named:
        place = Path(one).expanduser()
        if place.is_dir():
            digests.append(content_digest(place))
        elif place.is_file():
            digests.append(file_digest(place))
        elif place.is_absolute() and not any(letter in one for letter in "*?["):
            raise UserError(f"the data of {task.name}, {one}, is missing: its YAML is {task.files[0]}")
    return " ".join(digests) or None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts(list(value.values()))
    elif isinstance(value, Iterable):
        for one in value:
            yield from _texts(one)
