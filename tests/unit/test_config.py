"""What a configured component is, and what makes two of them the same."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import Field, ValidationError

from srecycle.config import Component, canonical, component, field_diff, fingerprint, flattened, identity, runtime


@component
class Inner(Component):
    size: Annotated[int, Field(ge=1)] = 2


@component
class Outer(Component):
    revision: ClassVar[int] = 3

    inner: Inner
    path: Path
    share: float = 0.5
    parts: dict[str, Inner] = Field(default_factory=dict)
    names: tuple[str, ...] = ()
    note: str | None = None
    workers: int = runtime(1)

    def resolved(self) -> Mapping[str, Any]:
        return {"path": "sha256:77", "library": "1.2"}


def _outer(**fields: Any) -> Outer:
    return Outer(**({"inner": Inner(), "path": Path("/a")} | fields))


def test_identity_of_nested_component_is_written_whole() -> None:
    tree = identity(_outer(parts={"b": Inner(size=5), "a": Inner()}, names=("x", "y")))
    module = __name__
    inner = {"class": f"{module}.Inner", "revision": 1}
    assert tree == {
        "class": f"{module}.Outer",
        "revision": 3,
        "inner": {**inner, "size": 2},
        "path": "sha256:77",
        "share": 0.5,
        "parts": {"a": {**inner, "size": 2}, "b": {**inner, "size": 5}},
        "names": ["x", "y"],
        "note": None,
        "library": "1.2",
    }
    assert list(tree["parts"]) == ["a", "b"]


def test_identity_runtime_field_changes_nothing() -> None:
    assert identity(_outer(workers=1)) == identity(_outer(workers=9))


def test_identity_resolved_field_hides_the_value_itself() -> None:
    assert identity(_outer(path=Path("/a"))) == identity(_outer(path=Path("/b")))


def test_identity_each_field_changes_the_fingerprint() -> None:
    variants = [
        _outer(),
        _outer(inner=Inner(size=3)),
        _outer(share=0.25),
        _outer(parts={"a": Inner()}),
        _outer(parts={"b": Inner()}),
        _outer(names=("x",)),
        _outer(names=("x", "")),
        _outer(note=""),
    ]
    assert len({fingerprint(identity(one)) for one in variants}) == len(variants)


@pytest.mark.parametrize(
    ("fields", "named", "said"),
    [
        ({"sizes": 1}, "sizes", "unexpected"),
        ({"size": "many"}, "size", "integer"),
        ({"size": 1.5}, "size", "integer"),
        ({"size": None}, "size", "integer"),
        ({"size": 0}, "size", "greater than or equal to 1"),
    ],
)
def test_component_wrong_field_is_refused_by_name(fields: dict[str, Any], named: str, said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Inner(**fields)
    (item,) = refused.value.errors()
    assert item["loc"] == (named,)
    assert said in item["msg"].lower()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_component_number_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        _outer(share=value)


def test_component_built_is_frozen() -> None:
    with pytest.raises((ValidationError, AttributeError)):
        Inner().size = 4  # type: ignore[misc]


def test_component_positional_argument_is_refused() -> None:
    with pytest.raises((ValidationError, TypeError)):
        Inner(4)  # type: ignore[misc]


@pytest.mark.parametrize("value", [math.nan, math.inf, Path("/a"), {1, 2}, b"x", object()])
def test_canonical_unstable_value_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        canonical({"deep": [value]})


def test_fingerprint_key_order_changes_nothing() -> None:
    assert fingerprint({"a": 1, "b": [2, None]}) == fingerprint({"b": [2, None], "a": 1})
    assert fingerprint({"a": "1"}) != fingerprint({"a": 1})


def test_fingerprint_other_hash_seed_gives_the_same(tmp_path: Path) -> None:
    script = (
        "from srecycle.config import fingerprint, identity\n"
        "from srecycle.data.testbed import Testbed\n"
        "mix = {k: .5 for k in {'ok', 'noisy', 'refusal', 'ambiguous'}}\n"
        "print(fingerprint(identity(Testbed(mix=mix))))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("0", "1", "4242")
    }
    assert len(found) == 1
    assert len(found.pop().strip()) == 32


def test_fingerprint_is_the_hash_of_compact_sorted_json() -> None:
    import hashlib

    tree = {"b": [1, 2.5, None, True], "a": "é"}
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    assert fingerprint(tree) == hashlib.sha256(text.encode()).hexdigest()[:32]


def test_field_diff_names_what_changed_only() -> None:
    before = {"a": {"b": 1, "c": [1, 2]}, "gone": 1, "same": {}}
    after = {"a": {"b": 2, "c": [1, 3]}, "new": None, "same": {}}
    assert field_diff(before, after) == ["a.b: 1 -> 2", "a.c.1: 2 -> 3", "gone: 1 -> (absent)", "new: (absent) -> None"]
    assert field_diff(before, before) == []


def test_flattened_empty_container_keeps_its_name() -> None:
    assert flattened({"a": {}, "b": [], "c": {"d": [5]}}) == {"a": {}, "b": [], "c.d.0": 5}
    assert flattened({}) == {}
