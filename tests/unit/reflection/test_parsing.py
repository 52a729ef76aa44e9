"""A teacher's reply, read strictly where it matters and forgivingly where it does not."""

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from srecycle.reflection.parsing import Parsed, parse
from srecycle.rows import PHASES, Phase

INSTRUCTION_REPLIES = {
    "plain": ("C.\n[New Instruction]\nI\n[End]\n[New Answer]\nA\n[End]", "I", "A"),
    "one line each": ("[New Instruction] I [End]\n[New Answer] A [End]", "I", "A"),
    "any case": ("[NEW INSTRUCTION]\nI\n[END]\n[new answer]\nA\n[end]", "I", "A"),
    "spaces inside": ("[ New  Instruction ]\nI\n[ End ]\n[New\tAnswer]\nA\n[End ]", "I", "A"),
    "bold": ("**[New Instruction]**\nI\n**[End]**\n**[New Answer]**\nA\n**[End]**", "I", "A"),
    "bold colon inside": ("**[New Instruction]:** I\n[End]\n**[New Answer]:** A\n[End]", "I", "A"),
    "bold colon outside": ("**[New Instruction]**: I\n[End]\n__[New Answer]__ : A\n[End]", "I", "A"),
    "heading": ("## [New Instruction]\nI\n## [End]\n### [New Answer]\nA\n### [End]", "I", "A"),
    "bold heading": ("### **[New Instruction]**\nI\n[End]\n### **[New Answer]**\nA\n[End]", "I", "A"),
    "quoted and indented": ("> [New Instruction]\n> I\n> [End]\n  [New Answer]\n  A\n  [End]", "> I", "A"),
    "windows lines": ("[New Instruction]\r\nI [End]\r\n[New Answer]\r\nA [End]\r\n", "I", "A"),
    "no last end": ("[New Instruction]\nI\n[End]\n[New Answer]\nA", "I", "A"),
    "echoed format first": (
        "I write:\n[New Instruction]\nyour instruction\n[End]\n[New Answer]\nyour answer\n[End]\n"
        "So:\n[New Instruction]\nI\n[End]\n[New Answer]\nA\n[End]",
        "I",
        "A",
    ),
    "answer written twice": (
        "[New Instruction]\nI\n[End]\n[New Answer]\ndraft\n[End]\n[New Answer]\nA\n[End]",
        "I",
        "A",
    ),
    "n/a inside": ("[New Instruction]\nI\n[End]\n[New Answer]\nN/A for rows; n/a\n[End]", "I", "N/A for rows; n/a"),
    "end inside a word": (
        "[New Instruction]\nProtect Endangered species. The End\n[End]\n[New Answer]\nEnd: [End] of A, End\n[End]",
        "Protect Endangered species. The End",
        "End: [End] of A, End",
    ),
    "the other phase's marker": ("[New Instruction]\nI\n[End]\n[New Answer]\n[Better Answer]\n[End]", "I", None),
    "text's own marks": ("[New Instruction] **I** am\n[End]\n[New Answer]\n*A*\n[End]", "**I** am", "*A*"),
    "words after the last end": ("[New Instruction]\nI\n[End]\n[New Answer]\nA\n[End]\nHope it helps!", "I", "A"),
    "many lines": ("[New Instruction]\n\nI\n\n1.\n[End]\n\n[New Answer]\nA\n\n\nB\n[End]", "I\n\n1.", "A\n\n\nB"),
}
RESPONSE_REPLIES = {
    "plain": ("C.\n[Better Answer]\nA\n[End]", "A"),
    "one line": ("[Better Answer] A [End]", "A"),
    "decorated": ("### **[Better Answer]:**\nA\n**[End]**", "A"),
    "end at line end": ("[Better Answer]\nA and B. [End]\nBye.", "A and B."),
    "echoed format first": ("[Better Answer]\nyour answer\n[End]\n[Better Answer]\nA\n[End]", "A"),
    "echoed, then no end": ("[Better Answer]\nyour answer\n[End]\n[Better Answer]\nA", "A"),
    "bold first word": ("[Better Answer] **A** b\n[End]", "**A** b"),
    "leading colon of its own line": ("[Better Answer]\n: A\n[End]", ": A"),
    "dunder": ("[Better Answer] __init__ is A\n[End]", "__init__ is A"),
    "marker in a sentence": ("See the [Better Answer] below.\n[Better Answer]\nA\n[End]", "A"),
    "apology inside": ("[Better Answer]\nI'm sorry to hear that.\n[End]", "I'm sorry to hear that."),
}


@pytest.mark.parametrize("case", INSTRUCTION_REPLIES)
def test_parse_instruction_reply_gives_the_pair(case: str) -> None:
    reply, instruction, answer = INSTRUCTION_REPLIES[case]
    parsed = parse("instruction", reply, "stop")
    assert (parsed.status, parsed.instruction) == ("ok", instruction)
    assert parsed.response == (answer if answer is not None else "[Better Answer]")


@pytest.mark.parametrize("case", RESPONSE_REPLIES)
def test_parse_response_reply_gives_the_answer(case: str) -> None:
    reply, answer = RESPONSE_REPLIES[case]
    parsed = parse("response", reply, "stop")
    assert (parsed.status, parsed.instruction, parsed.response) == ("ok", "", answer)


def test_parse_text_before_the_segments_is_the_critique() -> None:
    assert parse("response", " Weak.\n\n[Better Answer]\nA\n[End]", "stop").critique == "Weak."
    assert parse("instruction", INSTRUCTION_REPLIES["plain"][0], "stop").critique == "C."


FAILURES: dict[str, tuple[Phase, str, str, str]] = {
    "nothing": ("response", "", "stop", "empty"),
    "whitespace": ("instruction", " \n\t", "stop", "empty"),
    "prose": ("response", "A fine answer already.", "stop", "unparsed"),
    "refusal": ("response", "I'm sorry, but I can't help with that.", "stop", "refused"),
    "refusal, curly": ("instruction", "I\u2019m very sorry, no.", "stop", "refused"),
    "refusal, unable": ("instruction", "I am unable to do that.", "stop", "refused"),
    "as an ai": ("response", "As an AI language model, I have no opinion.", "stop", "refused"),
    "cut": ("response", "[Better Answer]\nA", "length", "truncated"),
    "cut behind the end": ("response", "[Better Answer]\nA\n[End]", "length", "truncated"),
    "filtered": ("response", "", "content_filter", "content_filter"),
    "answer only": ("instruction", "[New Answer]\nA\n[End]", "stop", "unparsed"),
    "instruction only": ("instruction", "[New Instruction]\nI\n[End]", "stop", "unparsed"),
    "instruction without end": ("instruction", "[New Instruction]\nI\n[New Answer]\nA\n[End]", "stop", "unparsed"),
    "swapped": ("instruction", "[New Answer]\nA\n[End]\n[New Instruction]\nI\n[End]", "stop", "unparsed"),
    "swapped without end": ("instruction", "[New Answer]\nA\n[New Instruction]\nI\n[End]", "stop", "unparsed"),
    "echo, then instruction without end": (
        "instruction",
        "[New Instruction]\nyour\n[End]\n[New Answer]\nyour\n[End]\n[New Instruction]\nI\n[New Answer]\nA\n[End]",
        "stop",
        "unparsed",
    ),
    "echo, then instruction only": (
        "instruction",
        "[New Instruction]\nyour\n[End]\n[New Answer]\nyour\n[End]\n[New Instruction]\nI\n[End]\nA",
        "stop",
        "unparsed",
    ),
    "wrong phase": ("response", "[New Answer]\nA\n[End]", "stop", "unparsed"),
    "marker in a sentence only": ("response", "My [Better Answer] is A. [End]", "stop", "unparsed"),
    "empty answer": ("response", "[Better Answer]\n\n[End]", "stop", "empty_segment"),
    "empty instruction": ("instruction", "[New Instruction]\n[End]\n[New Answer]\nA\n[End]", "stop", "empty_segment"),
    "marker at the very end": ("response", "Well.\n[Better Answer]", "stop", "empty_segment"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_parse_unusable_reply_is_a_reason_without_texts(case: str) -> None:
    phase, reply, finish_reason, status = FAILURES[case]
    assert parse(phase, reply, finish_reason) == Parsed(status=status)


_PIECES = st.sampled_from(
    ["[New Instruction]", "[New Answer]", "[Better Answer]", "[End]", "\n", "**", "# ", ":", " ", "[", "]", "End", "x"]
)


@given(st.sampled_from(PHASES), st.lists(_PIECES | st.text(max_size=5), max_size=20), st.sampled_from(["stop", ""]))
def test_parse_anything_gives_ok_with_texts_or_a_reason_without(phase: Phase, pieces: list[str], finish: str) -> None:
    parsed = parse(phase, "".join(pieces), finish)
    texts = (parsed.instruction, parsed.response)
    if parsed.status == "ok":
        assert parsed.response and bool(parsed.instruction) == (phase == "instruction")
        assert all(text in "".join(pieces) for text in texts)
    else:
        assert parsed.status in ("empty", "refused", "unparsed", "empty_segment")
        assert texts == ("", "")


def _without_markers(text: str) -> bool:
    return bool(text.strip()) and not any(
        word in text.lower() for word in ("[end", "[ ", "[\t", "[new", "[better", "end]")
    )


@given(st.text(max_size=80).filter(_without_markers), st.text(max_size=80).filter(_without_markers))
@example("Protect Endangered ...", "{braces} N/A\n\nThe End")
@example("**bold**", ": colon")
@example("#", "[")
def test_parse_texts_without_markers_come_back_as_they_went_in(instruction: str, answer: str) -> None:
    pair = f"Critique.\n[New Instruction]\n{instruction}\n[End]\n[New Answer]\n{answer}\n[End]"
    parsed = parse("instruction", pair, "stop")
    assert (parsed.instruction, parsed.response) == (instruction.strip(), answer.strip())
    assert parse("response", f"[Better Answer]\n{answer}\n[End]", "stop").response == answer.strip()


@pytest.mark.parametrize("line", ["#" * 20_000, "**" * 20_000, " " * 40_000, "[New Answer]\n" * 5_000, "* _" * 10_000])
def test_parse_long_hostile_reply_takes_no_longer_than_its_length(line: str) -> None:
    assert parse("instruction", f"{line}x\n[New Instruction] I", "stop").status == "unparsed"


def test_parse_authored_replies_are_all_usable(shared: Path) -> None:
    for line in (shared / "data" / "reflections" / "replies.jsonl").read_text().splitlines():
        record = json.loads(line)
        phase: Phase = "instruction" if record["kind"] == "instruction" else "response"
        parsed = parse(phase, record["reply"], record["finish_reason"])
        assert parsed.status == "ok", record["index"]
        assert parsed.critique and "[End]" not in parsed.response + parsed.instruction
