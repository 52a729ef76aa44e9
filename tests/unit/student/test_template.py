"""Every shipped text format, letter by letter and token by token."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError
from transformers import AutoTokenizer

from srecycle.errors import UserError
from srecycle.rows import Turn
from srecycle.student import PromptTemplate
from srecycle.student.encoding import token_ids
from srecycle.student.template import end_ids

FOLDER = Path(__file__).parents[3] / "conf" / "template"
HISTORY = (Turn(role="user", content="q"), Turn(role="assistant", content="a"))
SYSTEM = Turn(role="system", content="§")
BELOW = "Below is an instruction that describes a task"
ASK = "Write a response that appropriately completes the request.\n\n"
CHAT = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
ALPACA_INPUT = f"{BELOW}, paired with an input that provides further context. {ASK}"
ALPACA_TURNS = "### Instruction:\nq\n\n### Response:a\n\n### Instruction:\nI\n\n### Response:"
PLAIN_TURNS = "### Instruction:\nq\n\n### Response:\na\n\n### Instruction:\nI\n\n### Response:"
CHATML_TURNS = (
    "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n<|im_start|>user\nI<|im_end|>\n"
    "<|im_start|>assistant\n"
)
# prompt: without input, with input, with history, with a system turn and history;
# completion of "R", its end; instruction and input as the target of r-IFD
EXPECTED = {
    "alpaca": (
        f"{BELOW}. {ASK}### Instruction:\nI\n\n### Response:",
        f"{ALPACA_INPUT}### Instruction:\nI\n\n### Input:\nN\n\n### Response:",
        f"{BELOW}. {ASK}{ALPACA_TURNS}",
        f"§\n\n{ALPACA_TURNS}",
        "R",
        "",
        "I\nN",
    ),
    "vicuna": (
        f"{CHAT} USER: I ASSISTANT:",
        f"{CHAT} USER: I\nInput:\nN ASSISTANT:",
        f"{CHAT} USER: q ASSISTANT: a</s> USER: I ASSISTANT:",
        "§ USER: q ASSISTANT: a</s> USER: I ASSISTANT:",
        " R",
        "",
        "I\nN",
    ),
    "vicuna_released": (
        f"{CHAT} USER: I ASSISTANT:",
        f"{CHAT} USER: I\nInput:\nN ASSISTANT:",
        f"{CHAT} USER: q ASSISTANT:a</s> USER: I ASSISTANT:",
        "§ USER: q ASSISTANT:a</s> USER: I ASSISTANT:",
        "R",
        "",
        "IN",
    ),
    "plain": (
        "### Instruction:\nI\n\n### Response:",
        "### Instruction:\nI\n\n### Input:\nN\n\n### Response:",
        PLAIN_TURNS,
        f"§\n\n{PLAIN_TURNS}",
        "\nR",
        "",
        "I\nN",
    ),
    "wizardlm": (
        "I\n\n### Response:",
        "I\nN\n\n### Response:",
        "q\n\n### Response:a\n\nI\n\n### Response:",
        "§\n\nq\n\n### Response:a\n\nI\n\n### Response:",
        "R",
        "",
        "I\nN",
    ),
    "testbed": (
        "question : I reply :",
        "question : I N reply :",
        "question : q reply : a question : I reply :",
        "§ question : q reply : a question : I reply :",
        " R",
        "",
        "I N",
    ),
    "chatml": (
        "<|im_start|>user\nI<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\nI\n\nN<|im_end|>\n<|im_start|>assistant\n",
        CHATML_TURNS,
        f"<|im_start|>system\n§<|im_end|>\n{CHATML_TURNS}",
        "R",
        "<|im_end|>",
        "I\n\nN",
    ),
}
AROUND = {
    "alpaca": (f"{ALPACA_INPUT}### Instruction:\n", "\n\n### Input:\n", "\n\n### Response:"),
    "vicuna": (f"{CHAT} USER: ", "\nInput:\n", " ASSISTANT:"),
    "vicuna_released": (f"{CHAT} USER: ", "\nInput:\n", " ASSISTANT:"),
    "plain": ("### Instruction:\n", "\n\n### Input:\n", "\n\n### Response:"),
    "wizardlm": ("", "\n", "\n\n### Response:"),
    "testbed": ("question : ", " ", " reply :"),
    "chatml": ("<|im_start|>user\n", "\n\n", "<|im_end|>\n<|im_start|>assistant\n"),
}
ODD = (
    "",
    " ",
    "\n",
    "</s>",
    "<|im_end|>",
    "### Response:",
    "{instruction}",
    "{input}",
    "{system}",
    "\u202eab",
    "\U0001f600",
)
TEXTS = st.one_of(st.text(), st.sampled_from(ODD), st.lists(st.sampled_from(ODD)).map("".join))


def _template(name: str, **changed: object) -> PromptTemplate:
    fields = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    assert fields.pop("_target_") == "srecycle.student.template.PromptTemplate"
    return PromptTemplate(**(fields | changed))


def test_expected_strings_cover_every_shipped_text_template() -> None:
    assert {*EXPECTED, "chat"} == {file.stem for file in FOLDER.glob("*.yaml")}


@pytest.mark.parametrize("name", EXPECTED)
def test_template_renders_literally(name: str) -> None:
    template = _template(name)
    found = (
        template.prompt("I"),
        template.prompt("I", "N"),
        template.prompt("I", history=HISTORY),
        template.prompt("I", history=(SYSTEM, *HISTORY)),
        template.completion("R"),
        template.end,
        template.whole_instruction("I", "N"),
    )
    assert found == EXPECTED[name]
    assert template.whole_instruction("I", "") == "I"


@pytest.mark.parametrize("name", EXPECTED)
def test_template_system_is_what_a_conversation_without_its_own_opens_with(name: str) -> None:
    template = _template(name, system="§")
    assert template.prompt("I", history=HISTORY) == EXPECTED[name][3]
    assert template.prompt("I", history=(Turn(role="system", content="T"), *HISTORY)) == EXPECTED[name][3].replace(
        "§", "T"
    )
    assert template.prompt("I", "N").startswith(EXPECTED[name][3].partition("§")[0] + "§")


def test_template_later_system_turn_stands_where_it_was_said() -> None:
    said = _template("chatml").prompt("I", history=(*HISTORY, SYSTEM))
    assert said.index("\na<|im_end|>\n") < said.index("<|im_start|>system\n§<|im_end|>\n") < said.index("\nI<|im_end|>")


@pytest.mark.parametrize("name", EXPECTED)
def test_template_prompt_never_ends_in_the_space_before_the_response(name: str) -> None:
    assert not _template(name).prompt("I").endswith(" ")


@pytest.mark.parametrize("name", EXPECTED)
@given(instruction=TEXTS, input=TEXTS.filter(bool), response=TEXTS)
@example(instruction="{input}", input="{instruction}", response="{response}")
def test_template_texts_stand_as_they_are(name: str, instruction: str, input: str, response: str) -> None:
    template, parts = _template(name), EXPECTED[name]
    before, between, after = AROUND[name]
    assert template.prompt(instruction, input) == before + instruction + between + input + after
    assert template.completion(response) == parts[4].removesuffix("R") + response
    assert template.whole_instruction(instruction, input) == instruction + parts[6][1:-1] + input


@pytest.mark.parametrize("field", ["user", "user_with_input", "system_turn"])
def test_template_wording_that_leaves_its_text_out_is_refused(field: str) -> None:
    with pytest.raises(ValidationError, match="the wording should contain"):
        _template("alpaca", **{field: "nothing"})


@pytest.mark.parametrize("model", ["llama", "gpt2", "qwen2", "plain"])
@pytest.mark.parametrize("name", EXPECTED)
def test_bound_text_template_is_itself_and_ends_in_one_eos(
    tiny_models: Mapping[str, Path], name: str, model: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_models[model])
    wording = _template(name).bound(tokenizer)
    assert wording.prompt("I") == EXPECTED[name][0]
    eos = {"llama": ["</s>"], "gpt2": ["<|endoftext|>"], "qwen2": ["<|im_end|>"], "plain": []}[model]
    spelled = list("<|im_end|>") if name == "chatml" and model != "qwen2" else []
    assert _joined(tokenizer, end_ids(wording, tokenizer)) == "".join([*spelled, *eos])
    vocabulary = tokenizer.get_vocab()
    assert [one for one in end_ids(wording, tokenizer) if one in {vocabulary[token] for token in eos}] == [
        vocabulary[token] for token in eos
    ]


def _joined(tokenizer: object, ids: tuple[int, ...]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False))  # type: ignore[attr-defined]


def test_special_tokens_of_a_template_become_their_ids(tiny_models: Mapping[str, Path]) -> None:
    llama = AutoTokenizer.from_pretrained(tiny_models["llama"])
    prompt = _template("vicuna").prompt("I", history=HISTORY)
    (ids,) = token_ids(llama, [prompt])
    assert ids.count(llama.get_vocab()["</s>"]) == 1
    qwen = AutoTokenizer.from_pretrained(tiny_models["qwen2"])
    (ids,) = token_ids(qwen, [_template("chatml").prompt("I", history=HISTORY)])
    assert ids.count(qwen.get_vocab()["<|im_end|>"]) == 3


def test_bound_special_token_at_the_head_of_every_response_is_refused(tiny_models: Mapping[str, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_models["llama"])
    with pytest.raises(UserError, match="holds the special token <s>: it should stand at the end of the prompt"):
        _template("plain", response_prefix="\n<s>").bound(tokenizer)
