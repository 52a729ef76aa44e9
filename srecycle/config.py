"""What a configured component is, and what makes two of them the same.

A component is a frozen, keyword-only pydantic dataclass: the YAML node that names it *is* its constructor call, so
unknown keys, wrong types and values out of range are refused where they are declared. Its identity is its class, a
`revision` bumped by hand when its behaviour changes, and its fields, less those marked `runtime` (batch sizes, workers,
devices: they must not change a result). Fields that point at content (a path, a hub revision) are replaced in the
identity by what `resolved` returns for them. Code is not hashed.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, cast, dataclass_transform

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass as pydantic_dataclass

T = TypeVar("T")
InputPath = Annotated[Path, AfterValidator(Path.expanduser)]
"""A path that a user names; `~` is their home."""

Canonical = None | bool | int | float | str | list["Canonical"] | dict[str, "Canonical"]


def runtime(default: Any = MISSING) -> Any:
    """Declare a field that may differ between equal runs, and so stays out of the identity."""
    return field(default=default, metadata={"runtime": True})


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field, Field, runtime))
def component(cls: type[T]) -> type[T]:
    """Make a class a component: frozen, keyword-only, strict about unknown keys, validated on construction."""
    settings = ConfigDict(extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False, validate_default=True)
    return cast(type[T], pydantic_dataclass(frozen=True, kw_only=True, config=settings)(cls))


class Component:
    """Base of everything that Hydra builds. Subclasses are decorated with `component`."""

    revision: ClassVar[int] = 1

    def resolved(self) -> Mapping[str, Any]:
        """Return what stands for a field's content in the identity, by field name (a digest for a path, say).

        Names that are no fields are added: versions of libraries that compute the result, for example.
        """
        return {}

    def reference(self) -> "Canonical":
        """Return how this component is written inside the identity of another."""
        return identity(self)


def identity(value: Component) -> dict[str, Canonical]:
    """Return a component's identity as a tree of plain values: its class, revision, and identity fields.

    Raises TypeError (our bug) where a field holds something that can't be written stably.
    """
    assert is_dataclass(value), f"{type(value).__name__} must be decorated with @component"
    tree: dict[str, Canonical] = {
        "class": f"{type(value).__module__}.{type(value).__qualname__}",
        "revision": value.revision,
    }
    resolved = value.resolved()
    for declared in fields(value):
        if not declared.metadata.get("runtime"):
            tree[declared.name] = canonical(resolved.get(declared.name, getattr(value, declared.name)))
    for name in resolved.keys() - {declared.name for declared in fields(value)}:
        tree[name] = canonical(resolved[name])
    return tree


def canonical(value: Any) -> Canonical:
    """Write a value as plain JSON types, or refuse it: what can't be written stably must not name a result."""
    if isinstance(value, Component):
        return value.reference()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"a number in an identity must be finite, not {value}")
        return value
    if isinstance(value, Path):
        raise TypeError(f"the path {value} can't be part of an identity: resolve it to a digest of its content")
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if isinstance(value, Mapping):
        assert all(isinstance(key, str) for key in value), "identity mappings have string keys"
        return {key: canonical(value[key]) for key in sorted(value)}
    raise TypeError(f"{type(value).__name__} can't be part of an identity")


def fingerprint(tree: Canonical) -> str:
    """Return the 32 hex digits that name a canonical tree."""
    text = json.dumps(tree, sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def flattened(tree: Canonical, prefix: str = "") -> dict[str, Canonical]:
    """Flatten a tree to dotted names, for diffs, tables and trackers. Empty containers keep their name."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    flat: dict[str, Canonical] = {}
    for key, value in items:
        flat |= flattened(value, f"{prefix}{key}.")
    return flat if flat or not prefix else {prefix.removesuffix("."): tree}


def field_diff(before: Canonical, after: Canonical) -> list[str]:
    """List the fields in which two identities differ, as `name: old -> new`."""
    old, new = flattened(before), flattened(after)
    absent = "(absent)"
    return [
        f"{name}: {old.get(name, absent)} -> {new.get(name, absent)}"
        for name in sorted(old.keys() | new.keys())
        if name not in old or name not in new or old[name] != new[name]
    ]
