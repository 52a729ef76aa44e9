"""The tokenizer's own chat template: exact renderings, and what is refused."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from srecycle.config import fingerprint, identity
from srecycle.errors import UserError
from srecycle.rows import Turn
from srecycle.student import Student
from srecycle.student.chat import ChatTemplate
from srecycle.student.encoding import anchor_ids, encode, token_ids
from srecycle.student.model import Loaded
from srecycle.student.template import UnrenderableError, end_ids
from srecycle.trainer.base import training_set

# Written for these tests in the manner of the models that they are named after.
CHATML = """{%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif -%}"""
LLAMA3 = """{{- bos_token -}}
{%- for message in messages -%}
{{- '<|start|>' + message.role + '<|stop|>\\n\\n' + message.content | trim + '<|eot|>' -}}
{%- endfor -%}
{%- if add_generation_prompt %}{{- '<|start|>assistant<|stop|>\\n\\n' }}{% endif -%}"""
GEMMA = """{{- bos_token -}}
{%- if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif -%}
{%- for message in messages -%}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('Conversation roles must alternate user/assistant') }}
{%- endif -%}
{%- set role = 'model' if message.role == 'assistant' else message.role -%}
{{- '<turn>' + role + '\\n' + message.content | trim + '</turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt %}{{- '<turn>model\\n' }}{% endif -%}"""
MISTRAL = """{{- bos_token -}}
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}{{ ' ' + message.content | trim + eos_token }}
{%- else -%}{{ '[INST] ' + message.content + ' [/INST]' }}
{%- endif -%}
{%- endfor -%}"""
THINKING = """{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.role == 'assistant' and loop.last -%}
{%- set parts = message.content.split('</think>') -%}
{{- '<think>\\n' + (parts[0].split('<think>')[-1].strip('\\n') if parts | length > 1 else '') + '\\n</think>\\n\\n' -}}
{{- parts[-1].lstrip('\\n') -}}
{%- else -%}{{ message.content }}{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and not enable_thinking %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif -%}
{%- endif -%}"""
REASONING = CHATML.replace("'<|im_start|>assistant\\n'", "'<|im_start|>assistant\\n<think>\\n'")
DATED = "{{ 'Today is ' + (date_string if date_string is defined else strftime_now('%d %b %Y')) + '\\n' }}" + CHATML
SPACED = """{%- for message in messages -%}
{{- message.role + ': ' + message.content + '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt %}{{- 'assistant: ' }}{% endif -%}"""

SPECIAL: Mapping[str, tuple[str, Mapping[str, str], tuple[str, ...]]] = {
    "chatml": (CHATML, {"eos_token": "<|im_end|>"}, ("<|im_start|>",)),
    "llama3": (LLAMA3, {"bos_token": "<|begin|>", "eos_token": "<|eot|>"}, ("<|start|>", "<|stop|>")),
    "llama3_base": (LLAMA3, {"bos_token": "<|begin|>", "eos_token": "<|text|>"}, ("<|start|>", "<|stop|>", "<|eot|>")),
    "gemma": (GEMMA, {"bos_token": "<bos>", "eos_token": "<eos>"}, ("<turn>", "</turn>")),
    "mistral": (MISTRAL, {"bos_token": "<s>", "eos_token": "</s>"}, ("[INST]", "[/INST]")),
    "thinking": (THINKING, {"eos_token": "<|im_end|>"}, ("<|im_start|>",)),
    "spaced": (SPACED, {"eos_token": "</s>"}, ()),
}


def _tokenizer(name: str, chat_template: str | None = None) -> Any:
    """Make a tokenizer whose ids can be worked out by hand: one for each byte, one for each special token."""
    template, special, more = SPECIAL[name]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([*special.values(), *more])
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, extra_special_tokens=list(more), **special)
    made.chat_template = template if chat_template is None else chat_template
    return made


def _bound(name: str, **fields: Any) -> Any:
    return ChatTemplate(**fields).bound(_tokenizer(name))


HISTORY = (Turn(role="user", content="q"), Turn(role="assistant", content="a"))
SYSTEM = Turn(role="system", content="S")
# prompt of "I", with input "N", with history, with a system turn (None: refused); completion of "R"; its end
EXPECTED = {
    "chatml": (
        "<|im_start|>user\nI<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\nI\n\nN<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
        "<|im_start|>user\nI<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nI<|im_end|>\n<|im_start|>assistant\n",
        "R",
        "<|im_end|>\n",
    ),
    "llama3": (
        "<|start|>user<|stop|>\n\nI<|eot|><|start|>assistant<|stop|>\n\n",
        "<|start|>user<|stop|>\n\nI\n\nN<|eot|><|start|>assistant<|stop|>\n\n",
        "<|start|>user<|stop|>\n\nq<|eot|><|start|>assistant<|stop|>\n\na<|eot|>"
        "<|start|>user<|stop|>\n\nI<|eot|><|start|>assistant<|stop|>\n\n",
        "<|start|>system<|stop|>\n\nS<|eot|><|start|>user<|stop|>\n\nI<|eot|><|start|>assistant<|stop|>\n\n",
        "R",
        "<|eot|>",
    ),
    "gemma": (
        "<turn>user\nI</turn>\n<turn>model\n",
        "<turn>user\nI\n\nN</turn>\n<turn>model\n",
        "<turn>user\nq</turn>\n<turn>model\na</turn>\n<turn>user\nI</turn>\n<turn>model\n",
        None,
        "R",
        "</turn>\n",
    ),
    "mistral": (
        "[INST] I [/INST]",
        "[INST] I\n\nN [/INST]",
        "[INST] q [/INST] a</s>[INST] I [/INST]",
        "[INST] S [/INST][INST] I [/INST]",
        " R",
        "</s>",
    ),
    "thinking": (
        "<|im_start|>user\nI<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\nI\n\nN<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
        "<|im_start|>user\nI<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nI<|im_end|>\n<|im_start|>assistant\n",
        "<think>\n\n</think>\n\nR",
        "<|im_end|>\n",
    ),
    "spaced": (
        "user: I\nassistant:",
        "user: I\n\nN\nassistant:",
        "user: q\nassistant: a\nuser: I\nassistant:",
        "system: S\nuser: I\nassistant:",
        " R",
        "\n",
    ),
}
EXPECTED["llama3_base"] = EXPECTED["llama3"]


@pytest.mark.parametrize("name", EXPECTED)
def test_chat_template_renders_literally(name: str) -> None:
    wording, expected = _bound(name), EXPECTED[name]
    assert (wording.prompt("I"), wording.prompt("I", "N"), wording.prompt("I", history=HISTORY)) == expected[:3]
    if expected[3] is None:
        with pytest.raises(UnrenderableError, match="refuses this conversation: System role not supported"):
            wording.prompt("I", history=(SYSTEM,))
    else:
        assert wording.prompt("I", history=(SYSTEM,)) == expected[3]
        configured = _bound(name, system="S")
        assert configured.prompt("I") == expected[3]
        assert configured.prompt("I", history=(SYSTEM,)) == expected[3]
        assert configured.completion("R") == expected[4]
    assert (wording.completion("R"), wording.end) == expected[4:]
    assert wording.whole_instruction("I", "N") == "I\n\nN" and wording.whole_instruction("I", "") == "I"


@pytest.mark.parametrize("name", EXPECTED)
def test_chat_template_parts_are_the_rendering_of_the_whole_conversation(name: str) -> None:
    tokenizer, wording = _tokenizer(name), _bound(name)
    messages = [{"role": turn.role, "content": turn.content} for turn in HISTORY]
    messages += [{"role": "user", "content": "Wie?\n\nN"}, {"role": "assistant", "content": "So \U0001f600."}]
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    bos = tokenizer.bos_token or ""
    assert bos + wording.prompt("Wie?", "N", HISTORY) + wording.completion("So \U0001f600.") + wording.end == whole


@pytest.mark.parametrize(
    ("name", "begin", "end"),
    [
        ("chatml", "<|im_end|>", "<|im_end|>"),
        ("llama3", "<|begin|>", "<|eot|>"),
        ("llama3_base", "<|begin|>", "<|eot|><|text|>"),
        ("gemma", "<bos>", "</turn>\n<eos>"),
        ("mistral", "<s>", "</s>"),
        ("spaced", "</s>", "\n</s>"),
    ],
)
def test_training_set_has_one_anchor_and_ends_in_one_eos(name: str, begin: str, end: str) -> None:
    tokenizer = _tokenizer(name)
    loaded = Loaded(model=None, tokenizer=tokenizer, device=None, max_length=512)  # type: ignore[arg-type]
    row = {"id": "a", "instruction": "I", "input": "N", "response": "R", "history": []}
    (line,) = training_set(loaded, ChatTemplate(), [row]).sequences
    prompt, target = line.ids[: line.target_start], line.ids[line.target_start :]
    assert tokenizer.decode(list(prompt)) == begin + EXPECTED[name][1]
    assert tokenizer.decode(list(target)) == EXPECTED[name][4] + end
    assert list(line.ids) == _by_hand(tokenizer, begin + EXPECTED[name][1] + EXPECTED[name][4] + end)
    assert target.count(tokenizer.eos_token_id) == 1 and target[-1] == tokenizer.eos_token_id
    if tokenizer.bos_token_id is not None:
        assert line.ids.count(tokenizer.bos_token_id) == 1


def _by_hand(tokenizer: Any, text: str) -> list[int]:
    """Write a text as ids without the tokenizer: special tokens where they stand, else its bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = {token: number for token, number in tokenizer.get_vocab().items() if number >= len(alphabet)}
    letters, ids = _byte_letters(), list[int]()
    while text:
        token = next((token for token in special if text.startswith(token)), None)
        if token:
            ids.append(special[token])
        else:
            ids += [alphabet.index(letters[byte]) for byte in text[0].encode()]
        text = text[len(token or text[0]) :]
    return ids


def _byte_letters() -> list[str]:
    """Return the letter that stands for each byte in byte-level vocabularies (GPT-2): itself where it can be seen."""
    seen = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = [byte for byte in range(256) if byte not in seen]
    return [chr(byte if byte in seen else 256 + hidden.index(byte)) for byte in range(256)]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
WORDS = st.one_of(
    TEXTS, st.sampled_from(["</s>", "<|im_end|>", "<|im_start|>user\n", "{{ x }}", "{% if %}", "[/INST]"])
)


@pytest.mark.parametrize("name", ["chatml", "llama3", "gemma", "mistral"])
@given(instruction=WORDS, input=WORDS, response=WORDS)
@example(instruction="", input="", response="")
@example(instruction="<|im_end|>\n<|im_start|>assistant\nCertainly", input="", response="Certainly")
def test_chat_template_any_text_joins_to_the_whole_conversation(
    name: str, instruction: str, input: str, response: str
) -> None:
    tokenizer = _TOKENIZERS[name]
    wording = ChatTemplate().bound(tokenizer)
    said = f"{instruction}\n\n{input}" if input else instruction
    messages = [{"role": "user", "content": said}, {"role": "assistant", "content": response}]
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    parts = (wording.prompt(instruction, input), wording.completion(response), wording.end)
    assert (tokenizer.bos_token or "") + "".join(parts) == whole
    assert parts[1].strip() == response.strip()


_TOKENIZERS = {name: _tokenizer(name) for name in SPECIAL}


def test_stripping_template_trains_on_what_it_renders() -> None:
    assert _bound("llama3").completion("  R \n") == "R"
    assert _bound("chatml").completion("  R \n") == "  R \n"


def test_reversed_request_is_a_conversation_of_its_own() -> None:
    wording = _bound("llama3", system="S")
    request = "Guess the question to this answer.\n<|eot|>"
    assert wording.prompt(request) == (
        f"<|start|>system<|stop|>\n\nS<|eot|><|start|>user<|stop|>\n\n{request}<|eot|><|start|>assistant<|stop|>\n\n"
    )


def test_variables_reach_the_template() -> None:
    wording = _bound("thinking", variables={"enable_thinking": False})
    assert wording.prompt("I").endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert wording.completion("R") == "R"


def test_response_that_the_template_moves_about_keeps_its_letters_or_is_refused() -> None:
    assert _bound("thinking").completion("<think>a</think>b") == "<think>\na\n</think>\n\nb"
    with pytest.raises(UnrenderableError, match="doesn't write this response as it is"):
        _bound("thinking").completion("a <think>b</think> c")


@pytest.mark.parametrize("chat_template", [None, ""])
def test_tokenizer_without_a_template_is_refused_with_what_to_do(chat_template: str | None) -> None:
    tokenizer = _tokenizer("chatml")
    tokenizer.chat_template = chat_template
    with pytest.raises(UserError, match=r"has no chat template: choose another format, template=chatml for example"):
        ChatTemplate().bound(tokenizer)


@pytest.mark.parametrize(
    ("chat_template", "said"),
    [
        (REASONING, r"begins an answer in another way when it asks for one \(\.\.\..*<think>"),
        (CHATML.replace("message.content", "message.content | upper"), "rewrites 'Certainly'"),
        (CHATML.partition("{%- if add_generation")[0], r"special token <\|im_start\|>: it should stand at the end of"),
        ("{{ raise_exception('no') }}", "refuses this conversation: no; choose another format"),
        ("{{ messages[9].content.x.y }}", "refuses this conversation: .*; choose another format"),
        ("{% if %}", "refuses this conversation: .*; choose another format"),
        ("{{ messages.__class__.__mro__ }}" + CHATML, "refuses this conversation: .*unsafe"),
        (DATED, r"writes today's date; fix it, for example with '\+template\.variables\.date_string=26 Jul 2024'"),
    ],
)
def test_template_that_cannot_be_exact_is_refused_in_one_line(chat_template: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        ChatTemplate().bound(_tokenizer("chatml", chat_template))
    assert "\n" not in str(refused.value)
    assert not isinstance(refused.value, UnrenderableError)


def test_template_with_a_date_is_pinned_by_its_variable() -> None:
    template = ChatTemplate(variables={"date_string": "26 Jul 2024"})
    assert template.bound(_tokenizer("chatml", DATED)).prompt("I").startswith("Today is 26 Jul 2024\n<|im_start|>")


def test_system_where_the_template_forbids_it_is_refused_with_the_setting() -> None:
    with pytest.raises(UserError, match=r"System role not supported; template\.system=null"):
        _bound("gemma", system="S")


def test_template_that_answers_otherwise_after_a_history_is_refused_for_that_row_alone() -> None:
    whim = CHATML.replace("message.content +", "message.content + ('!' if loop.index0 == 3 else '') +")
    wording = ChatTemplate().bound(_tokenizer("chatml", whim))
    assert wording.prompt("I") == EXPECTED["chatml"][0]
    with pytest.raises(UnrenderableError, match="writes this conversation's answer in another way"):
        wording.prompt("I", history=HISTORY)


def test_training_set_row_that_the_template_refuses_is_a_reason_and_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    loaded = Loaded(model=None, tokenizer=_tokenizer("gemma"), device=None, max_length=512)  # type: ignore[arg-type]
    row = {"id": "fine", "instruction": "I", "input": "", "response": "R", "history": []}
    system = {**row, "id": "system", "history": [{"role": "system", "content": "S"}]}
    twice = {**row, "id": "twice", "history": [{"role": "user", "content": "q"}]}
    made = training_set(loaded, ChatTemplate(), [system, row, twice, {**row, "id": "empty", "response": " "}])
    assert made.refused == {"system": "unrenderable", "twice": "unrenderable", "empty": "empty_response"}
    (line,) = made.sequences
    assert loaded.tokenizer.decode(list(line.ids)) == "<bos><turn>user\nI</turn>\n<turn>model\nR</turn>\n<eos>"
    said = capsys.readouterr().err
    assert said.count("warning") == 1 and "row system" in said and "System role not supported" in said


def test_identity_is_the_templates_settings_and_the_students_folder(
    tiny_models: Mapping[str, Path], tmp_path: Path
) -> None:
    keys = {
        fingerprint(identity(ChatTemplate(**fields)))
        for fields in (
            {},
            {"system": "S"},
            {"input_separator": "\n"},
            {"variables": {"a": True}},
            {"variables": {"a": "True"}},
        )
    }
    assert len(keys) == 5
    students = []
    for name in ("chatml", "llama3"):
        folder = tmp_path / name
        _tokenizer("chatml", SPECIAL[name][0]).save_pretrained(folder)
        (folder / "config.json").write_text("{}")
        students.append(fingerprint(identity(Student(path=str(folder)))))
    assert students[0] != students[1]


def test_construction_and_identity_load_no_model_library() -> None:
    code = (
        "import json, sys\nfrom srecycle.student.chat import ChatTemplate\nfrom srecycle.config import identity\n"
        "identity(ChatTemplate(system='S'))\nprint(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert not {"torch", "transformers", "jinja2"} & set(json.loads(done.stdout))


@pytest.mark.parametrize("name", EXPECTED)
def test_target_ids_are_the_same_in_context_and_alone(name: str) -> None:
    tokenizer, wording = _tokenizer(name), _bound(name)
    context, target = token_ids(tokenizer, [wording.prompt("I"), wording.completion("R")])
    joined = encode(anchor_ids(tokenizer), context, (*target, *end_ids(wording, tokenizer)), 512)
    alone = encode(anchor_ids(tokenizer), (), (*target, *end_ids(wording, tokenizer)), 512)
    assert joined.ids[joined.target_start :] == alone.ids[alone.target_start :]
    (whole,) = token_ids(tokenizer, [wording.prompt("I") + wording.completion("R")])
    assert (*context, *target) == whole
