"""Ornaments: authority, references and layout that the original didn't have, and nobody asked for."""

import json
from collections import Counter
from pathlib import Path

import pytest

from srecycle.keep.decorative import Decorative, appeals, layout_marks, references
from srecycle.reflection.parsing import parse
from srecycle.rows import KINDS
from tests.unit.keep.taken import permuted, taken

PLAIN = "Walking lowers blood pressure and lifts the mood of older adults."


def _told(response: str, before: str = PLAIN, instruction: str = "Why walk?", **settings: object) -> str:
    texts = {"instruction": [instruction], "input": [""], "response": [response]}
    originals = {"original_instruction": ["Why walk?"], "original_input": [""], "original_response": [before]}
    (reason,) = Decorative(**settings).reasons(taken(1, **texts, **originals)).tolist()  # type: ignore[arg-type]
    return str(reason)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Studies show it. Recent research has consistently shown it.", 2),
        ("According to leading experts, it is well known; it is clinically proven.", 3),
        ("Kuhn showed it, according to Popper. She studies birds. Experts in birds met.", 0),
    ],
)
def test_appeals_are_counted(text: str, count: int) -> None:
    assert appeals(text) == count


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It helps.[1] It lasts [2]. It works [3, 4], too.", {"[1]", "[2]", "[3, 4]"}),
        (
            "It helps (Smith, 2020) and (see Lee & Park, 2019a, p. 3).",
            {"(smith, 2020)", "(see lee & park, 2019a, p. 3)"},
        ),
        ("Smith et al. (2020) say so, as do Lee and Park (2019).", {"smith et al", "lee and park (2019)"}),
        ("See https://a.org/b. Or doi 10.1000/xyz12.", {"https://a.org/b", "10.1000/xyz12"}),
        ("x = [1]; a[1] + words[2]; the list [1] is short. Write [2] lines.", set()),
        ("Prices rose (January, 2021), Siri (2011) came, and the census (2020).", set()),
        ("```python\nprint(a)  # text.[1] (Smith, 2020)\n```", set()),
    ],
)
def test_references_are_found_in_prose(text: str, found: set[str]) -> None:
    assert references(text) == found


def test_layout_marks_are_headings_lists_bold_and_emoji() -> None:
    assert layout_marks("# A\n- b\n2) **c**\n\U0001f600 \u2705\nd - e # f * g") == 6
    assert layout_marks("```\n# comment\n- x\n```\n`**a**`") == 0


@pytest.mark.parametrize(
    ("response", "settings", "reason"),
    [
        ("Studies show that walking helps.", {}, "authority_added"),
        ("Studies show that walking helps.", {"authority": False}, ""),
        ("Walking helps (Smith, 2020).", {}, "references_added"),
        ("Walking helps (Smith, 2020).", {"references": False}, ""),
        ("# Walking\n- **lowers** blood pressure\n- **lifts** the mood of older adults", {}, "layout_only"),
        ("# Walking\n- **lowers** blood pressure\n- **lifts** the mood of older adults", {"layout": False}, ""),
        ("# Walking\n- **lowers** blood pressure\n- **lifts** the mood of older adults", {"marks_above": 90}, ""),
        ("# Walking\n- **burns** sugar\n- **strengthens** bones\n- delays dementia", {}, ""),
        ("# Walking\n- **burns** sugar\n- **strengthens** bones\n- delays dementia", {"new_below": 1}, "layout_only"),
        (PLAIN, {}, ""),
        ("", {}, ""),
    ],
)
def test_decorative_finds_each_ornament_and_can_leave_it(
    response: str, settings: dict[str, object], reason: str
) -> None:
    assert _told(response, **settings) == reason


def test_decorative_what_the_original_has_or_the_instruction_wants_is_none() -> None:
    assert _told("Studies show it.", before="Experts agree that it is so.") == ""
    assert _told("It helps (Smith, 2020).", before="It helps, I think (Smith, 2020).") == ""
    assert _told("It helps (Smith, 2020).", instruction="Why walk? Cite two sources.") == ""
    assert _told("Studies show it.", instruction="Is it true that studies show it?") == ""
    assert _told("- lowers pressure\n- lifts mood", before="- lowers pressure\n- lifts mood\n- is free") == ""


def test_decorative_counts_all_findings_and_refuses_for_the_first() -> None:
    response = "# Walking\n- Experts agree: **lowers** blood pressure (Smith, 2020)"
    before = {"original_instruction": ["Why?"] * 5, "original_input": [""] * 5, "original_response": [PLAIN] * 5}
    chosen = taken(
        5, version=[*KINDS, "both-3"], instruction=["Why?"] * 5, input=[""] * 5, response=[response] * 5, **before
    )
    assert Decorative(new_below=0.5).reasons(chosen).tolist() == ["", *["authority_added"] * 4]
    found = Decorative(action="flag", new_below=0.5)
    assert {name: rows.tolist() for name, rows in found.findings(chosen).items()} == {
        name: [False, True, True, True, True] for name in ("authority_added", "references_added", "layout_only")
    }
    assert found.reasons(chosen).tolist() == [""] * 5
    assert Decorative().reasons(permuted(chosen, [4, 0])).tolist() == ["authority_added", ""]


def test_decorative_real_rewrites_seldom_fire(shared: Path) -> None:
    """Of 360 responses, 270 with more layout than the original, five appeal to studies or specialists."""
    rows = json.loads((shared / "data/alpaca_subset_3111.json").read_text())
    replies = [json.loads(line) for line in (shared / "data/reflections/replies.jsonl").read_text().splitlines()]
    kinds = {"instruction": "instruction", "response_original": "response", "response_reflected": "both"}
    parsed = {
        (one["index"], kinds[one["kind"]]): parse(
            "instruction" if one["kind"] == "instruction" else "response", one["reply"], "stop"
        )
        for one in replies
    }
    originals = [rows[index] for index, _ in parsed]
    asked = [
        row["instruction"] if kind == "response" else parsed[index, "instruction"].instruction
        for (index, kind), row in zip(parsed, originals, strict=True)
    ]
    chosen = taken(
        len(parsed),
        version=[kind for _, kind in parsed],
        instruction=asked,
        input=[""] * len(parsed),
        response=[one.response for one in parsed.values()],
        original_instruction=[row["instruction"] for row in originals],
        original_input=[row["input"] for row in originals],
        original_response=[row["output"] for row in originals],
    )
    assert Counter(Decorative().reasons(chosen).tolist()) == {"": 355, "authority_added": 5}
