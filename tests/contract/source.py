"""The package's source as syntax: its modules, what they import, and its component classes."""

import ast
import importlib
import inspect
from abc import ABC
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from srecycle.config import Component

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "srecycle"
FOLDERS = (
    "data",
    "engine",
    "teacher",
    "verifier",
    "reflection",
    "student",
    "scorer",
    "embedder",
    "selector",
    "keep",
    "assemble",
    "judge",
    "trainer",
    "evaluator",
    "tracker",
)
"""The folders of components, which are groups of conf/ too."""


@cache
def modules() -> dict[str, Path]:
    """Return the package's modules by dotted name."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


@cache
def tree(module: str) -> ast.Module:
    """Return a module's syntax tree."""
    return ast.parse(modules()[module].read_text())


def imports(module: str, *, at_import_only: bool = False) -> Iterator[str]:
    """Yield the modules that a module imports, without those for type checkers.

    `at_import_only` leaves out what functions import when they are called.
    """
    yield from _imports(tree(module).body, at_import_only)


def _imports(body: list[ast.stmt], at_import_only: bool) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _imports(node.orelse, at_import_only)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and at_import_only:
            continue
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module is not None, "imports are absolute"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in modules() else node.module
        else:
            for field in ("body", "orelse", "finalbody"):
                yield from _imports(getattr(node, field, None) or [], at_import_only)
            for handler in getattr(node, "handlers", []):
                yield from _imports(handler.body, at_import_only)


def component_classes() -> list[type[Component]]:
    """Return every component and stage class of the package, abstract bases left out."""
    for module in modules():
        if not module.startswith(("srecycle.testbed.", "srecycle.report")) and not module.endswith("__main__"):
            importlib.import_module(module)
    found = {
        cls
        for cls in _subclasses(Component)
        if cls.__module__.startswith("srecycle.") and ABC not in cls.__bases__ and not inspect.isabstract(cls)
    }
    return sorted(found, key=lambda cls: (cls.__module__, cls.__qualname__))


def _subclasses(cls: type[Component]) -> Iterator[type[Component]]:
    for child in cls.__subclasses__():
        yield child
        yield from _subclasses(child)


def qualified(cls: type[Component]) -> str:
    """Return a class's full name."""
    return f"{cls.__module__}.{cls.__qualname__}"
