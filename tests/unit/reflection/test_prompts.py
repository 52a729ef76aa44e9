"""The two requests: every text stands in them once, as it is."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from srecycle.config import fingerprint, identity
from srecycle.reflection import Reflection
from srecycle.reflection.parsing import form, parse
from srecycle.rows import PHASES, Phase, Turn
from srecycle.verifier.exact import ExactVerifier

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
_SETTINGS = {name: value for name, value in _FIELDS.items() if name not in ("_target_", "defaults")}
SHIPPED = Reflection(**_SETTINGS)
INFORMED = Reflection(**_SETTINGS | {"context": "reference", "score_criteria": True})


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
    for wording in (SHIPPED, INFORMED):
        for input in ("", "n"):
            said = wording.messages(phase, instruction="i", input=input, response="r", history=history, context="c")
            assert "{" not in "".join(message["content"] for message in said)
        for status in wording.reask_requests:
            again = wording.again(phase, said, "bad", status)
            assert again is not None and "{" not in "".join(message["content"] for message in again)


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


def test_messages_blocks_that_say_nothing_leave_no_trace() -> None:
    bare = Reflection(**_SETTINGS | {"reference_block": "", "verdict_block": "", "score_block": ""})
    pair = {"instruction": "i", "input": "n", "response": "r"}
    for phase in PHASES:
        assert bare.messages(phase, **pair) == SHIPPED.messages(phase, **pair)
        assert "\n\n\n" not in SHIPPED.messages(phase, **pair)[1]["content"]


def test_messages_reference_and_scores_stand_in_their_blocks() -> None:
    said = {
        phase: INFORMED.messages(phase, instruction="i", input="", response="r", context="{known}")[1]["content"]
        for phase in PHASES
    }
    for phase in PHASES:
        assert said[phase].count("{known}") == 1
        for name in INFORMED.scored(phase):
            assert said[phase].count(f"\n[Score] {name}: number\n") == 1
    assert INFORMED.scored("instruction") == (*INFORMED.instruction_criteria, *INFORMED.response_criteria)
    assert INFORMED.scored("response") == INFORMED.response_criteria
    assert SHIPPED.scored("instruction") == ()


def test_messages_without_a_reference_fall_back_to_none() -> None:
    pair = {"instruction": "i", "input": "", "response": "r"}
    informed = replace(INFORMED, score_criteria=False)
    assert informed.known(**pair, reference="") == ""
    assert informed.messages("response", **pair) == SHIPPED.messages("response", **pair)


def test_known_is_the_reference_or_the_verifiers_words() -> None:
    pair = {"instruction": "1 + 1?", "input": "", "response": "It is 3.", "reference": "2"}
    assert SHIPPED.known(**pair) == ""
    assert INFORMED.known(**pair) == "2"
    verified = replace(SHIPPED, context="verifier", verifier=ExactVerifier())
    assert "wrong" in verified.known(**pair) and "2" not in verified.known(**pair)
    assert verified.known(**pair | {"reference": ""}) == ""


MESSAGES = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]


@pytest.mark.parametrize("phase", PHASES)
def test_again_goes_on_with_the_reply_and_what_was_missing(phase: Phase) -> None:
    again = SHIPPED.again(phase, MESSAGES, "prose", "unparsed")
    assert again is not None
    assert again[:3] == [*MESSAGES, {"role": "assistant", "content": "prose"}]
    assert again[3]["role"] == "user" and form(phase) in again[3]["content"]
    assert parse(phase, again[3]["content"], "stop", placeholders=SHIPPED.placeholders).status == "echoed"


def test_again_long_cut_reply_is_repeated_in_part_and_a_short_one_whole() -> None:
    long = SHIPPED.again("response", MESSAGES, "x" * 50_000, "truncated")
    short = SHIPPED.again("response", MESSAGES, "x" * 1_000, "truncated")
    whole = SHIPPED.again("response", MESSAGES, "x" * 50_000, "unparsed")
    assert long and len(long[2]["content"]) < 1_100 and long[2]["content"].endswith("[...]")
    assert short and short[2]["content"] == "x" * 1_000
    assert whole and len(whole[2]["content"]) == 50_000


def test_again_empty_reply_is_not_shown_and_roles_alternate() -> None:
    again = SHIPPED.again("response", MESSAGES, " \n", "empty")
    assert again and [message["role"] for message in again] == ["system", "user"]
    assert again[1]["content"].startswith("u\n") and len(again[1]["content"]) > 20


def test_again_without_words_or_wish_is_nothing() -> None:
    assert SHIPPED.again("response", MESSAGES, "no", "refused") is None
    assert replace(SHIPPED, reasks=0).again("response", MESSAGES, "prose", "unparsed") is None
    willing = replace(SHIPPED, reask_requests={"refused": "Do."})
    assert willing.again("response", MESSAGES, "no", "refused") is not None
    assert willing.again("response", MESSAGES, "prose", "unparsed") is None


def test_placeholders_are_those_of_the_templates() -> None:
    assert SHIPPED.placeholders == {"your instruction", "your answer"}
    own = replace(SHIPPED, response_request="{instruction}{response}\n[Better Answer]\nHERE, {input}\n[End]")
    assert own.placeholders == {"your instruction", "your answer", "here, {input}"}


def test_wording_from_a_file_is_its_content(tmp_path: Path) -> None:
    file = tmp_path / "own.txt"
    file.write_text("{instruction} \u00e9 {response}\n", encoding="utf-8")
    own = replace(SMALL, response_request=f"file:{file}")
    assert own.response_request == "{instruction} \u00e9 {response}\n"
    written = replace(SMALL, response_request=own.response_request)
    assert fingerprint(identity(own)) == fingerprint(identity(written))
    moved = file.rename(tmp_path / "moved.txt")
    assert replace(SMALL, response_request=f"file:{moved}") == own


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"response_request": "file:/nowhere/own.txt"}, "response_request\n.*/nowhere/own.txt can't be read .No such"),
        ({"response_request": "file:{tmp}/bytes"}, "bytes can't be read .it is not UTF-8"),
        ({"response_request": "file:{tmp}/bare"}, r"should contain \{instruction\}"),
        ({"context": "reference"}, r"context=reference needs \{context_block\} in instruction_request"),
        ({"score_criteria": True}, r"score_criteria=true needs \{score_block\}"),
        ({"context": "verifier"}, r"context=verifier needs \{context_block\}"),
        ({"reask_requests": {"truncatd": "x"}}, "Input should be 'unparsed', 'truncated'"),
        ({"reasks": -1}, "greater than or equal to 0"),
    ],
)
def test_setting_without_meaning_is_refused(tmp_path: Path, settings: dict[str, object], said: str) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff")
    (tmp_path / "bare").write_text("{response}")
    given = {
        name: value.replace("{tmp}", str(tmp_path)) if isinstance(value, str) else value
        for name, value in settings.items()
    }
    with pytest.raises(ValidationError, match=said):
        replace(SMALL, **given)  # type: ignore[arg-type]


def test_setting_that_names_no_block_or_verifier_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"context=reference needs \{reference\} in its block"):
        replace(SHIPPED, context="reference", reference_block="x")
    with pytest.raises(ValidationError, match=r"needs \{criteria\} in score_block"):
        replace(SHIPPED, score_criteria=True, score_block="x")
    with pytest.raises(ValidationError, match=r"verifier@reflection\.verifier=exact"):
        replace(SHIPPED, context="verifier")


def test_identity_holds_a_verifier_only_where_it_is_asked() -> None:
    def key(**settings: object) -> str:
        return fingerprint(identity(replace(SHIPPED, **settings)))  # type: ignore[arg-type]

    assert key(verifier=ExactVerifier()) == key()
    keys = {key(), key(reasks=0), key(reask_requests={}), key(context="reference"), key(score_criteria=True)}
    assert len(keys) == 5
    assert key(context="verifier", verifier=ExactVerifier()) not in keys
    assert key(scope="chosen") == key()
