"""Every shipped prompt format, letter by letter."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from srecycle.rows import Turn
from srecycle.student import PromptTemplate

FOLDER = Path(__file__).parents[3] / "conf" / "template"
HISTORY = (
    Turn(role="system", content="S"),
    Turn(role="user", content="q"),
    Turn(role="assistant", content="a"),
)
BELOW = "Below is an instruction that describes a task"
ASK = "Write a response that appropriately completes the request.\n\n"
CHAT = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
# prompt without input, with input, with history; completion of "R"; instruction and input as the target of r-IFD
EXPECTED = {
    "alpaca": (
        f"{BELOW}. {ASK}### Instruction:\nI\n\n### Response:",
        f"{BELOW}, paired with an input that provides further context. {ASK}"
        "### Instruction:\nI\n\n### Input:\nN\n\n### Response:",
        f"{BELOW}. {ASK}S\n\n### Instruction:\nq\n\n### Response:a\n\n### Instruction:\nI\n\n### Response:",
        "R",
        "I\nN",
    ),
    "vicuna": (
        f"{CHAT} USER: I ASSISTANT:",
        f"{CHAT} USER: I\nInput:\nN ASSISTANT:",
        f"{CHAT}S</s> USER: q ASSISTANT: a</s> USER: I ASSISTANT:",
        " R",
        "I\nN",
    ),
    "plain": (
        "### Instruction:\nI\n\n### Response:",
        "### Instruction:\nI\n\n### Input:\nN\n\n### Response:",
        "S\n\n### Instruction:\nq\n\n### Response:\na\n\n### Instruction:\nI\n\n### Response:",
        "\nR",
        "I\nN",
    ),
    "wizardlm": (
        "I\n\n### Response:",
        "I\nN\n\n### Response:",
        "S\n\nq\n\n### Response:a\n\nI\n\n### Response:",
        "R",
        "I\nN",
    ),
    "testbed": (
        "question : I reply :",
        "question : I N reply :",
        "S question : q reply : a question : I reply :",
        " R",
        "I N",
    ),
}


def _template(name: str) -> PromptTemplate:
    fields = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    assert fields.pop("_target_") == "srecycle.student.template.PromptTemplate"
    return PromptTemplate(**fields)


def test_expected_strings_cover_every_shipped_template() -> None:
    assert set(EXPECTED) == {file.stem for file in FOLDER.glob("*.yaml")}


@pytest.mark.parametrize("name", EXPECTED)
def test_template_renders_literally(name: str) -> None:
    template = _template(name)
    found = (
        template.prompt("I"),
        template.prompt("I", "N"),
        template.prompt("I", history=HISTORY),
        template.completion("R"),
        template.whole_instruction("I", "N"),
    )
    assert found == EXPECTED[name]
    assert template.whole_instruction("I", "") == "I"


@pytest.mark.parametrize("name", EXPECTED)
def test_template_prompt_never_ends_in_the_space_before_the_response(name: str) -> None:
    assert not _template(name).prompt("I")[-1].isspace()


@pytest.mark.parametrize("name", EXPECTED)
@given(instruction=st.text(), input=st.text(min_size=1))
def test_template_texts_stand_as_they_are(name: str, instruction: str, input: str) -> None:
    template = _template(name)
    frame = template.prompt("\x00", "\x01")
    assert template.prompt(instruction, input) == frame.replace("\x00", "\x02").replace("\x01", input).replace(
        "\x02", instruction
    ) or any(mark in instruction + input for mark in "\x00\x01\x02")


def test_template_braces_in_texts_survive() -> None:
    assert _template("wizardlm").prompt("{input}", "{instruction}") == "{input}\n{instruction}\n\n### Response:"
