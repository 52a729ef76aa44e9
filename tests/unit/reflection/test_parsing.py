"""A teacher's reply, read strictly where it matters and forgivingly where it does not."""

import json
import re
import time
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from srecycle.reflection.parsing import Parsed, form, parse, segment_texts
from srecycle.rows import PHASES, Phase

CORPUS: dict[str, dict[str, Any]] = {
    one["name"]: one for one in yaml.safe_load((Path(__file__).parent / "replies.yaml").read_text(encoding="utf-8"))
}
STATUSES = ("ok", "empty", "refused", "unparsed", "empty_segment", "echoed")


@pytest.mark.parametrize("name", CORPUS)
def test_parse_hand_made_reply_is_read_as_written_down(name: str) -> None:
    case = CORPUS[name]
    parsed = parse(case["phase"], case["reply"], case.get("finish_reason", "stop"))
    wanted = (case["status"], case.get("instruction", ""), case.get("response", ""))
    assert (parsed.status, parsed.instruction, parsed.response) == wanted
    if parsed.status != "ok":
        assert parsed == Parsed(status=case["status"])


@pytest.mark.parametrize("name", [name for name, case in CORPUS.items() if case["status"] == "ok"])
def test_parse_hand_made_reply_that_was_cut_is_never_whole(name: str) -> None:
    case = CORPUS[name]
    for finish in ("length", "max_tokens", "MAX_TOKENS", "model_length"):
        assert parse(case["phase"], case["reply"], finish) == Parsed(status="truncated")


def test_corpus_covers_every_status_in_both_phases() -> None:
    assert {case["status"] for case in CORPUS.values()} >= {*STATUSES, "truncated"}
    assert len(CORPUS) >= 60
    for phase in PHASES:
        assert sum(case["phase"] == phase for case in CORPUS.values()) >= 30


def test_parse_text_before_the_segments_is_the_critique() -> None:
    assert parse("response", " Weak.\n\n[Better Answer]\nA\n[End]", "stop").critique == "Weak."
    both = "C.\n[New Instruction]\nI\n[End]\n[New Answer]\nA\n[End]"
    assert parse("instruction", both, "stop").critique == "C."
    assert parse("instruction", f"Echo.\n{both}\n{both}", "stop").critique == f"Echo.\n{both}\nC."
    assert parse("response", "Weak.\n```text\n[Better Answer]\nA\n[End]\n```", "stop").critique == "Weak."


def test_parse_own_placeholders_of_a_template_are_an_echo() -> None:
    template = "Write {instruction} {response} as\n[Better Answer]\nDer Text\n[End]"
    assert segment_texts("response", template) == ["Der Text"]
    reply = "[Better Answer]\nder text\n[End]"
    assert parse("response", reply, "stop", placeholders={"der text"}).status == "echoed"
    assert parse("response", reply, "stop").response == "der text"


@pytest.mark.parametrize("phase", PHASES)
def test_parse_form_itself_is_an_echo(phase: Phase) -> None:
    assert parse(phase, form(phase), "stop").status == "echoed"
    filled = form(phase).replace("your instruction", "I").replace("your answer", "A")
    assert parse(phase, filled, "").status == "ok"


_PIECES = st.sampled_from(
    [
        *("[New Instruction]", "[New Answer]", "[Better Answer]", "[End]", "[/New Answer]", "[End of Answer]", "**"),
        *(
            "New Answer:",
            "## Better Answer",
            "```",
            "~~~",
            "\n",
            "\n",
            "# ",
            ":",
            " ",
            "[",
            "]",
            "\\",
            "End",
            "x",
            "1. ",
        ),
    ]
)
_REPLIES = st.lists(_PIECES | st.text(max_size=5), max_size=24).map("".join)


@given(st.sampled_from(PHASES), _REPLIES, st.sampled_from(["stop", "", "length", "content_filter"]))
def test_parse_anything_gives_ok_with_texts_or_a_reason_without(phase: Phase, reply: str, finish: str) -> None:
    parsed = parse(phase, reply, finish, criteria=("a",))
    if parsed.status == "ok":
        assert finish in ("stop", "")
        assert parsed.response and bool(parsed.instruction) == (phase == "instruction")
        assert parsed.instruction in reply and parsed.response in reply
    else:
        assert parsed == Parsed(status=parsed.status)
        expected = {"stop": STATUSES, "": STATUSES, "length": ("truncated",), "content_filter": ("content_filter",)}
        assert parsed.status in expected.get(finish, ("stopped",))


def _is_plain(text: str) -> bool:
    """Whether a text is one to write: without markers, placeholders, refusals, and code blocks that never close."""
    marked = re.search(r"\[[\s/\\]*(?:end|new|better|instruction|answer)", text, re.IGNORECASE)
    return (
        bool(text.strip())
        and not marked
        and "```" not in text
        and "~~~" not in text
        and text.strip(" .\u2026[](){}<>") != ""
    )


_TEXTS = st.text(max_size=80).filter(_is_plain)
_CODE = st.lists(
    st.sampled_from(["[End]", "[New Answer]", "[Better Answer]", "x = 1", "", "~~", "# [End]"]), max_size=4
)
_WITH_CODE = st.tuples(_TEXTS, st.sampled_from(["```", "~~~", "````"]), _CODE, _TEXTS).map(
    lambda parts: "\n".join([parts[0], f"{parts[1]}python", *parts[2], parts[1], parts[3]])
)


@given(_TEXTS | _WITH_CODE, _TEXTS | _WITH_CODE, st.sampled_from(["stop", ""]))
@example("Protect Endangered ...", "{braces} N/A\n\nThe End", "")
@example("**bold**", ": colon", "stop")
@example("#", "[", "stop")
@example("New Answer: what?", "**Better Answer**", "stop")
def test_parse_texts_without_markers_come_back_as_they_went_in(instruction: str, answer: str, finish: str) -> None:
    pair = f"Critique.\n[New Instruction]\n{instruction}\n[End]\n[New Answer]\n{answer}\n[End]"
    parsed = parse("instruction", pair, finish)
    assert (parsed.instruction, parsed.response) == (instruction.strip(), answer.strip())
    assert parse("response", f"[Better Answer]\n{answer}\n[End]", finish).response == answer.strip()


@given(st.lists(st.sampled_from(["a", "b.", "", "[End]", "x [End] y", "z [End]", "```", "[End] w"]), max_size=8))
@example(["a", "[End]", "b."])
@example(["z [End]", "a"])
def test_parse_answer_with_end_markers_inside_is_whole_or_rejected(lines: list[str]) -> None:
    answer = "\n".join(lines).strip()
    parsed = parse("response", f"[Better Answer]\n{answer}\n[End]", "stop")
    if parsed.status == "ok":
        without_ends = re.sub(r"(?:\s*\[End\])+\s*$", "", answer).strip()
        assert parsed.response in (answer, without_ends)


@given(st.integers(min_value=0), st.sampled_from(["stop", ""]), st.sampled_from(PHASES))
def test_parse_reply_cut_anywhere_is_whole_only_where_its_end_was_told(place: int, finish: str, phase: Phase) -> None:
    segments = {"instruction": ["New Instruction", "New Answer"], "response": ["Better Answer"]}[phase]
    whole = "C.\n" + "\n".join(f"[{name}]\nfirst {name.lower()}, second\n[End]" for name in segments)
    reply = whole[: place % (len(whole) + 1)]
    parsed = parse(phase, reply, finish)
    if parsed.status != "ok":
        return
    if phase == "instruction":
        assert parsed.instruction == "first new instruction, second"
    if finish == "":
        assert parsed.response == f"first {segments[-1].lower()}, second" and reply.rstrip().endswith("]")


def _rendered(sets: Sequence[int], dropped: Sequence[int], order: Sequence[str]) -> str:
    """Write several sets, each text with its set's number, without the markers of the dropped lines."""
    lines = []
    for number in sets:
        texts = {"New Instruction": f"instruction {number}", "New Answer": f"answer {number}"}
        lines += [line for name in order for line in (f"[{name}]", texts[name], "[End]")]
    markers = [place for place, line in enumerate(lines) if line.startswith("[")]
    gone = {markers[place] for place in dropped}
    return "\n".join(line for place, line in enumerate(lines) if place not in gone)


@pytest.mark.parametrize("order", [["New Instruction", "New Answer"], ["New Answer", "New Instruction"]])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_parse_sets_that_lost_up_to_two_markers_never_give_a_mixed_pair(count: int, order: list[str]) -> None:
    sets = range(count)
    for number in (0, 1, 2):
        for dropped in combinations(range(4 * count), number):
            parsed = parse("instruction", _rendered(sets, dropped, order), "stop")
            pairs = [(f"instruction {one}", f"answer {one}") for one in sets]
            assert parsed.status != "ok" or (parsed.instruction, parsed.response) in pairs, dropped


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True))
def test_parse_whole_sets_give_the_last_pair(sets: list[int]) -> None:
    parsed = parse("instruction", _rendered(sets, [], ["New Instruction", "New Answer"]), "")
    assert (parsed.instruction, parsed.response) == (f"instruction {sets[-1]}", f"answer {sets[-1]}")


_REPEATED = (
    *("[", "]", "[]", "[ ", "[\n", "\\[", "[[", "[/", "#", "* ", "` ", "- ", "1. ", " ", "\n"),
    *("[End", "[End]", "x [End]  ", "[End]\n", "[End of the new ", "```\n", "```a\n", "~~~~\n"),
)
HOSTILE = {
    **{part: part for part in _REPEATED},
    "openings": "[New Answer]\n",
    "sets": "[New Instruction]\nx\n[End]\n[New Answer]\nx\n[End]\n",
    "bare": "**New Answer:**\n",
    "scores": "[Score] a: 7\n[Score] ",
    "dashes": "[end--------",
}


@pytest.mark.parametrize("part", HOSTILE)
def test_parse_hostile_reply_takes_time_in_line_with_its_length(part: str) -> None:
    def seconds(length: int) -> float:
        reply = (HOSTILE[part] * length)[:length]
        started = time.process_time()
        for text in (reply, f"```\n[New Answer]{reply}\n[End]", f"[New Instruction] {reply}x\n[End]"):
            parse("instruction", text, "stop", criteria=("a", "b"))
        return time.process_time() - started

    small = max(seconds(50_000), 1e-3)
    assert seconds(1_000_000) < 20 * 8 * small + 0.5  # a quadratic parser needs 400 times as long


def test_parse_authored_replies_are_all_usable(shared: Path) -> None:
    for line in (shared / "data" / "reflections" / "replies.jsonl").read_text().splitlines():
        record = json.loads(line)
        phase: Phase = "instruction" if record["kind"] == "instruction" else "response"
        parsed = parse(phase, record["reply"], record["finish_reason"])
        assert parsed.status == "ok", record["index"]
        assert parsed.critique and "[End]" not in parsed.response + parsed.instruction


@pytest.mark.parametrize("finish", ["ok", "OK", "<script>", "error", "stopped " * 100])
def test_parse_a_servers_own_word_is_never_a_status(finish: str) -> None:
    parsed = parse("response", "[Better Answer]\nx\n[End]", finish)
    assert parsed == Parsed(status="stopped")
