"""lm-eval's tasks by name: where they are defined, what they consist of, and a digest of that.

The harness finds a name by parsing the 14,000 YAML files that it ships. Here only the folders that a name can be in are
read (`arc_challenge` is in `arc`), and all of them where it is in none of those, so that planning knows in milliseconds
what an evaluation consists of. Neither the harness nor the functions that a YAML names are imported.
"""

import difflib
import hashlib
import importlib.util
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml  # type: ignore[import-untyped]

from srecycle.digest import file_digest
from srecycle.errors import UserError

Kind = Literal["task", "group", "tag"]

GROUP_FIELDS = ("group", "group_alias", "task", "aggregate_metric_list", "metadata", "tag")
"""What of a group's YAML is about the group; all else is handed down to its tasks."""


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A task, a group of them, or a tag that several bear. `files` are its YAML and those that this one includes."""

    name: str
    kind: Kind
    content: Mapping[str, Any]
    files: tuple[Path, ...] = ()
    members: tuple[str, ...] = ()

    @property
    def metrics(self) -> list[str]:
        """The metrics that its YAML tells of, less those that its code may add."""
        listed = _listed(self.content.get("aggregate_metric_list" if self.kind == "group" else "metric_list"))
        return [str(one.get("metric")) for one in listed]

    @property
    def inseparable(self) -> bool:
        """Whether a group says more of its members than their names, so that they can't be run apart from it."""
        return self.kind == "group" and (
            not all(isinstance(one, str) for one in self.content.get("task") or ())
            or bool(self.content.keys() - set(GROUP_FIELDS))
        )


class Catalogue:
    """The definitions behind names: of the folder `include_path` first, then of the installed harness."""

    def __init__(self, include_path: Path | None = None) -> None:
        """Read the local folder; what can't be read of it is told with a name that isn't found."""
        self._unreadable: list[str] = []
        self._local = _index(_yaml_files(include_path), self._unreadable) if include_path else {}
        self._found: dict[str, Definition] = {}

    def find(self, name: str, near: Path | None = None) -> Definition:
        """Return the definition of a name; a tag is looked for in the folder `near` before it is everywhere.

        Raises UserError where there is none.
        """
        if name in self._found:
            return self._found[name]
        found = self._local.get(name)
        if found is None:
            likely = [near] if near else [_tasks_folder() / folder for folder in _likely(name)]
            found = next((index[name] for folder in likely if name in (index := _folder_index(folder))), None)
            if found is None or (found.kind == "tag" and near is None):
                found = _everywhere(name)
        if found is None:
            raise UserError(f"lm-eval knows no task {name}{self._similar(name)}: `lm-eval ls tasks` lists them")
        self._found[name] = found
        return found

    def tasks(self, name: str) -> list[Definition]:
        """Return the tasks that a name stands for, once each, in the harness's order. Raises UserError."""
        found: dict[str, Definition] = {}
        for one in self.closure(name):
            if one.kind == "task":
                found.setdefault(one.name, one)
        return list(found.values())

    def closure(self, name: str) -> Iterator[Definition]:
        """Yield the definition of a name, and of all that it consists of. Raises UserError."""
        yield (one := self.find(name))
        yield from self._below(one)

    def _below(self, one: Definition) -> Iterator[Definition]:
        near = _top_folder(one.files[0]) if one.files else None
        for member in one.members:
            try:
                found = self.find(member, near)
            except UserError:
                if one.inseparable:  # a task that is written out inside the group
                    continue
                raise
            yield found
            yield from self._below(found)

    def _similar(self, name: str) -> str:
        close = difflib.get_close_matches(name, [*self._local, *_all_names()], n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        return hint + (f"; unreadable here: {'; '.join(self._unreadable)}" if self._unreadable else "")


def digest(definitions: Iterable[Definition]) -> str:
    """Return the sha256 of what defines tasks: their YAML, what it includes, and the Python files beside those."""
    files = {file for one in definitions for file in one.files}
    files |= {code for file in files if names_code(file) for code in file.parent.glob("*.py")}
    lines = sorted(f"{file.parent.name}/{file.name} {file_digest(file)}" for file in files)
    return "sha256:" + hashlib.sha256("\n".join(lines).encode()).hexdigest()


def folders(definitions: Iterable[Definition]) -> list[str]:
    """Return the folders that the harness has to index for these definitions, none inside another."""
    wanted = sorted({one.files[0].parent for one in definitions if one.files})
    return [str(one) for one in wanted if not any(one != other and one.is_relative_to(other) for other in wanted)]


def names_code(file: Path) -> bool:
    """Whether a YAML file names functions or classes."""
    return b"!function" in (text := file.read_bytes()) or b"class:" in text


@cache
def _tasks_folder() -> Path:
    found = importlib.util.find_spec("lm_eval")
    if found is None or not found.submodule_search_locations:
        raise UserError("lm-eval isn't installed: pip install lm-eval")
    return Path(found.submodule_search_locations[0]) / "tasks"


def _top_folder(file: Path) -> Path | None:
    """Return the folder of the harness that a file belongs to; None for a local one."""
    tasks = _tasks_folder()
    return tasks / file.relative_to(tasks).parts[0] if file.is_relative_to(tasks) else None


def _likely(name: str) -> list[str]:
    plain = name.replace("-", "_")
    folders_ = sorted(one.name for one in os.scandir(_tasks_folder()) if one.is_dir())
    return [one for one in folders_ if f"{plain}_".startswith(f"{one.replace('-', '_')}_")]


def _yaml_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*.yaml") if "__pycache__" not in file.parts)


@cache
def _folder_index(folder: Path) -> dict[str, Definition]:
    return _index(_yaml_files(folder), [])


def _everywhere(name: str) -> Definition | None:
    """Look in every file that so much as holds the name; a tag can also come to a task by what it includes."""
    holding = [file for file, text in _texts().items() if name.encode() in text]
    found = _index([file for file in holding if file.suffix == ".yaml"], []).get(name)
    return found if not holding or (found and found.kind != "tag") else _folder_index(_tasks_folder()).get(name)


@cache
def _texts() -> dict[Path, bytes]:
    """Return the harness's YAML files, and those without a suffix, which they include."""
    files = sorted(file for file in _tasks_folder().rglob("*") if file.suffix in (".yaml", ""))
    return {file: file.read_bytes() for file in files if file.is_file()}


def _all_names() -> Iterator[str]:
    for text in _texts().values():
        for line in text.splitlines():
            key, _, value = line.partition(b":")
            if key.strip(b" \"'") in (b"task", b"group") and value.strip():
                yield value.strip(b" \"'").decode(errors="replace")


def _index(files: Iterable[Path], unreadable: list[str]) -> dict[str, Definition]:
    """Parse task files as the harness would: what is no task or can't be read is passed over."""
    index: dict[str, Definition] = {}
    tagged: dict[str, set[str]] = {}
    for file in files:
        try:
            content, read = _load(file)
        except (yaml.YAMLError, OSError, ValueError) as error:
            unreadable.append(f"{file} ({' '.join(str(error).split())[:120]})")
            continue
        kind: Kind = "group" if "group" in content and "class" not in content else "task"
        name = content.get(kind)
        if not isinstance(name, str) or name in index:
            continue
        members = tuple(_members(content)) if kind == "group" else ()
        index[name] = Definition(name=name, kind=kind, content=content, files=read, members=members)
        for tag in _listed(content.get("tag")) if kind == "task" else ():
            tagged.setdefault(tag, set()).add(name)
    for tag, names in tagged.items():
        index.setdefault(tag, Definition(name=tag, kind="tag", content={}, members=tuple(sorted(names))))
    return index


def _members(content: Mapping[str, Any]) -> Iterator[str]:
    for one in _listed(content.get("task")):
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            yield str(one.get("group") or one.get("task") if isinstance(one.get("task"), str) else one.get("group"))


def _listed(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads functions as their names."""


_Loader.add_constructor("!function", lambda _, node: str(node.value))


def _load(file: Path, above: tuple[Path, ...] = ()) -> tuple[dict[str, Any], tuple[Path, ...]]:
    """Return a YAML file merged over what it includes, and the files read, its own first."""
    file = file.resolve()
    if file in above:
        raise ValueError(f"{file} includes itself")
    content = yaml.load(file.read_bytes(), Loader=_Loader)
    if not isinstance(content, dict):
        raise ValueError("no mapping")
    merged: dict[str, Any] = {}
    files: tuple[Path, ...] = (file,)
    for name in _listed(content.pop("include", None)):
        below, read = _load(file.parent / str(name), (*above, file))
        merged |= below
        files += read
    return merged | content, files
