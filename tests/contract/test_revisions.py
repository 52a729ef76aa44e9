"""No component's behaviour changes without somebody saying what that means for stored results."""

import copy
import json
import re

import pytest

from srecycle.reflection import Reflect
from srecycle.student import Likelihoods
from tests.contract import source
from tests.contract.revisions import FILE, complaints, current


def test_revisions_every_change_is_bumped_or_acknowledged() -> None:
    said = complaints(json.loads(FILE.read_text()), current())
    assert not said, "\n" + "\n".join(said)


def test_revisions_cover_the_modules_beside_a_component() -> None:
    entries = current()
    assert "srecycle.reflection.parsing" in entries[source.qualified(Reflect)]["syntax"]
    parts = entries[source.qualified(Likelihoods)]["syntax"]
    assert {"srecycle.student.inference", "srecycle.student.encoding", "srecycle.reflection.versions"} <= set(parts)
    assert "srecycle.stage" not in parts


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda entry: entry["syntax"].update({"srecycle.scorer.scorer": "0"}),
            "changed .srecycle.scorer.scorer.: bump",
        ),
        (lambda entry: entry.update(revision=3), "went from revision 2 to 3: record it"),
    ],
)
def test_complaints_name_the_class_and_what_to_do(change: object, said: str) -> None:
    name = "srecycle.scorer.scorer.Scorer"
    locked = {name: copy.deepcopy(current()[name])}
    found = copy.deepcopy(locked)
    change(found[name])  # type: ignore[operator]
    (line,) = complaints(locked, found)
    assert line.startswith(name)
    assert re.search(said, line)
    assert complaints(locked, locked) == []
    assert "is new" in complaints({}, locked)[0] and "is gone" in complaints(locked, {})[0]


def test_syntax_ignores_docstrings_comments_and_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.contract import revisions

    def syntax(text: str) -> str:
        monkeypatch.setattr(revisions, "tree", lambda _: source.ast.parse(text))
        return revisions._syntax.__wrapped__("any")

    plain = syntax("def f(x):\n    return x + 1\n")
    assert syntax('"""Module."""\n\n\ndef f(x):  # why\n    """Says."""\n    return (x +\n            1)\n') == plain
    assert syntax("def f(x):\n    return x + 2\n") != plain
    assert syntax("def f(x):\n    'only words'\n") == syntax("def f(x):\n    pass\n")
