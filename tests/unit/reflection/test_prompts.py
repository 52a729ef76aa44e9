"""The two requests: every text stands in them once, as it is."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from srecycle.reflection import Reflection
from srecycle.rows import PHASES, Phase, Turn

CONF = Path(__file__).parents[3] / "conf"
SMALL = Reflection(
    system="S {instruction}",
    instruction_request="{history_block}I={instruction}{input_block}|R={response}|{instruction_criteria}/{response_criteria}",
    response_request="I={instruction}{input_block}|R={response}|{response_criteria}",
    input_block="|N={input}",
    history_block="H={history}|",
    instruction_criteria=("a", "b"),
    response_criteria=("c",),
)


def _user(phase: Phase, **texts: object) -> str:
    system, user = SMALL.messages(phase, **({"instruction": "i", "input": "", "response": "r"} | texts))  # type: ignore[arg-type]
    assert system == {"role": "system", "content": "S {instruction}"}
    assert user["role"] == "user"
    return user["content"]


def test_messages_pair_alone_leaves_blocks_out() -> None:
    assert _user("instruction") == "I=i|R=r|a, b/c"
    assert _user("response") == "I=i|R=r|c"


def test_messages_input_and_history_stand_in_their_blocks() -> None:
    history = (Turn(role="user", content="q"), Turn(role="assistant", content="w"))
    assert _user("instruction", input="n", history=history) == "H=user: q\nassistant: w|I=i|N=n|R=r|a, b/c"


def test_messages_braces_in_texts_survive() -> None:
    texts = {"instruction": "{response}", "input": "{instruction}", "response": '{"json": {input_block}}'}
    assert _user("response", **texts) == 'I={response}|N={instruction}|R={"json": {input_block}}|c'


_FIELDS = yaml.safe_load((CONF / "reflection" / "default.yaml").read_text())
SHIPPED = Reflection(**{name: value for name, value in _FIELDS.items() if name != "_target_"})


@pytest.mark.parametrize("phase", PHASES)
@given(instruction=st.text(), input=st.text(min_size=1), response=st.text(), content=st.text())
def test_messages_of_the_shipped_wording_hold_every_text(
    phase: Phase, instruction: str, input: str, response: str, content: str
) -> None:
    history = (Turn(role="user", content=f"h{content}"),)
    marked = {"instruction": f"<i{instruction}>", "input": f"<n{input}>", "response": f"<r{response}>"}
    said = SHIPPED.messages(phase, **marked, history=history)[1]["content"]
    for text in (*marked.values(), f"user: h{content}"):
        assert text in said


@pytest.mark.parametrize("phase", PHASES)
def test_messages_of_the_shipped_wording_leave_no_placeholder(phase: Phase) -> None:
    history = (Turn(role="user", content="h"),)
    for input in ("", "n"):
        said = SHIPPED.messages(phase, instruction="i", input=input, response="r", history=history)
        assert "{" not in "".join(message["content"] for message in said)


@pytest.mark.parametrize("phase", PHASES)
def test_messages_of_the_shipped_wording_ask_for_the_markers_that_are_read(phase: Phase) -> None:
    said = SHIPPED.messages(phase, instruction="i", input="", response="r")[1]["content"]
    markers = ("[New Instruction]", "[New Answer]") if phase == "instruction" else ("[Better Answer]",)
    assert said.count("[End]") == len(markers)
    assert all(f"\n{marker}\n" in said for marker in markers)


def test_shipped_criteria_are_the_papers() -> None:
    for wanted, said in zip(
        ("complexity", "detail", "knowledge", "ambiguity", "reasoning"), SHIPPED.instruction_criteria, strict=True
    ):
        assert wanted in said
    for wanted, said in zip(
        ("helpfulness", "relevance", "accuracy", "details"), SHIPPED.response_criteria, strict=True
    ):
        assert wanted in said
