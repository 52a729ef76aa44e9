"""The lock file of revisions: what each component's code was when somebody last said what its change means.

    python -m tests.contract.revisions      acknowledge all changes as neutral (after bumping what is not)

An entry holds the class's `revision`, and a hash of the syntax tree of each module that its behaviour stands in: its
own, and those of srecycle that it imports and that belong to no other component. Comments, formatting and docstrings
don't count.
"""

import ast
import copy
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from srecycle.config import Component
from tests.contract.source import component_classes, imports, modules, qualified, tree

FILE = Path(__file__).with_suffix(".json")
COMMAND = "python -m tests.contract.revisions"

Entry = dict[str, Any]

_INFRASTRUCTURE = (
    *("config", "digest", "errors", "experiment", "progress", "runner", "stage", "store"),
    *("compose", "__main__"),
)
"""Modules under every component: they make keys, move files and talk to the screen, and decide no result."""


@cache
def current() -> dict[str, Entry]:
    """Return the entry of every component and stage class, by its full name."""
    classes = component_classes()
    owned = {cls.__module__ for cls in classes}
    return {qualified(cls): _entry(cls, owned) for cls in classes}


def _entry(cls: type[Component], owned: set[str]) -> Entry:
    return {"revision": cls.revision, "syntax": {name: _syntax(name) for name in sorted(_stands_in(cls, owned))}}


def _stands_in(cls: type[Component], owned: set[str]) -> set[str]:
    found, waiting = set[str](), [cls.__module__, *(base.__module__ for base in cls.__mro__)]
    while waiting:
        module = waiting.pop()
        if module in found or module not in modules() or _is_infrastructure(module):
            continue
        found.add(module)
        waiting += [name for name in imports(module) if name not in owned]
    return {name for name in found if not _only_imports(name)}


def _is_infrastructure(module: str) -> bool:
    return module == "srecycle" or module.split(".")[1] in _INFRASTRUCTURE


def _only_imports(module: str) -> bool:
    return all(isinstance(node, ast.Import | ast.ImportFrom | ast.Expr) for node in tree(module).body)


@cache
def _syntax(module: str) -> str:
    bare = copy.deepcopy(tree(module))
    for node in ast.walk(bare):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [one for one in body if not _is_docstring(one)] or [ast.Pass()]  # type: ignore[attr-defined]
    return hashlib.sha256(ast.dump(bare).encode()).hexdigest()[:16]


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def complaints(locked: Mapping[str, Entry], found: Mapping[str, Entry]) -> list[str]:
    """Say for each class what has to be done about its change; nothing where the lock file is up to date."""
    lines = []
    for name in sorted(locked.keys() | found.keys()):
        before, after = locked.get(name), found.get(name)
        if before is None:
            lines.append(f"{name} is new: add it with `{COMMAND}`")
        elif after is None:
            lines.append(f"{name} is gone: drop it with `{COMMAND}`")
        elif after["revision"] != before["revision"]:
            lines.append(
                f"{name} went from revision {before['revision']} to {after['revision']}: record it with `{COMMAND}`"
            )
        elif after["syntax"] != before["syntax"]:
            old, new = before["syntax"], after["syntax"]
            where = ", ".join(sorted(part for part in old.keys() | new.keys() if old.get(part) != new.get(part)))
            lines.append(f"{name} changed ({where}): bump its `revision`, or acknowledge as neutral with `{COMMAND}`")
    return lines


def main() -> None:
    """Rewrite the lock file."""
    FILE.write_text(json.dumps(current(), indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
