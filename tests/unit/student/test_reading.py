"""How a pair becomes four sequences, by id and as the authors' released code does."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from srecycle.engine.local import LocalEngine
from srecycle.rows import Likelihood
from srecycle.scorer import LIKELIHOODS, Scorer
from srecycle.student import Likelihoods, PromptTemplate, Student
from srecycle.student.chat import ChatTemplate
from srecycle.student.model import Loaded
from srecycle.student.reading import Reading, read
from tests.conftest import ROOT, SENTENCES
from tests.oracle import Naive, Released

VICUNA = "A chat between a curious user and an artificial intelligence assistant."
REQUEST = "Guess the instruction.\n{response}\nGenerate it."
NAMES = ("loss_y_given_x", "loss_y", "loss_x_given_y", "loss_x")
MERGING = "::) yes"
"""Behind a prompt's colon, its first two colons are one token."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Make two tiny students: one whose tokenizer puts BOS before each text, and one whose tokenizer adds nothing."""
    made = {}
    for name, special in (("bos", {"bos_token": "<s>", "eos_token": "</s>"}), ("bare", {"eos_token": "</s>"})):
        made[name] = tmp_path_factory.mktemp("released") / name
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=sorted(special.values()),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator([*SENTENCES, "::) a :: b ::) c :: d"] * 4, trainer)
        if name == "bos":
            begin = ("<s>", tokenizer.token_to_id("<s>"))
            tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[begin])
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=256, **special)
        torch.manual_seed(3)
        size = {"vocab_size": len(fast), "initializer_range": 0.3, "num_hidden_layers": 2, "num_attention_heads": 4}
        config = hf.LlamaConfig(**size, hidden_size=48, intermediate_size=64, max_position_embeddings=256)
        hf.LlamaForCausalLM(config).save_pretrained(made[name])
        fast.save_pretrained(made[name])
    return made


def _line(instruction: str, response: str, input: str = "", **fields: Any) -> dict[str, Any]:
    texts = {"instruction": instruction, "input": input, "response": response, "history": []}
    return {"id": "r", "version": "original", **texts, **fields}


def _stage(folder: Path, max_length: int = 256, compat: Any = "reference", **scorer: Any) -> Likelihoods:
    return Likelihoods(
        student=Student(path=str(folder), max_length=max_length, device="cpu", threads=1),
        template=PromptTemplate(
            preamble=VICUNA,
            user=" USER: {instruction} ASSISTANT:",
            user_with_input=" USER: {instruction}\nInput:\n{input} ASSISTANT:",
            input_separator="",
        ),
        scorer=Scorer(**{"reversed_request": REQUEST, "compat": compat} | scorer),
        engine=LocalEngine(),
    )


def _found(stage: Likelihoods, lines: list[dict[str, Any]]) -> list[Likelihood]:
    return list(stage.likelihoods(stage.inference(stage.student.load()), lines))


def _released(released: Released, line: Mapping[str, Any]) -> list[float]:
    x, more, y = line["instruction"], line["input"], line["response"]
    asked = f"{x}\nInput:\n{more}" if more else x
    backward = f"{VICUNA} USER: {REQUEST.replace('{response}', y)} ASSISTANT:"
    return released.four(f"{VICUNA} USER: {asked} ASSISTANT:", backward, x, more, y)


LINES = {
    "plain": _line("Name a fruit", "An apple"),
    "input": _line("Name it in French", "Une pomme", input="an apple"),
    "repeated": _line("Name", "No", input=" it.\nName, please:\nName it"),
    "echo": _line("Say apple", "Say apple"),
    "merging": _line("Smile", MERGING),
    "merging x": _line(":: what", "A face"),
    "spaces": _line("  Name a fruit ", " \n An apple\n"),
    "markers": _line("USER: hello ASSISTANT:", "hi USER: bye ASSISTANT: bye"),
    "special": _line("What is </s>?", "<s> opens, </s> ends"),
    "emoji": _line("\U0001f600\U0001f468\u200d\U0001f469", "\u05e9\u05dc\u05d5\u05dd \U0001f600"),
    "{}": _line("{instruction}", "{response} {input}"),
}


@pytest.mark.parametrize("student", ["bos", "bare"])
def test_reference_equals_the_released_computation(folders: Mapping[str, Path], student: str) -> None:
    released = Released(Naive(folders[student]), 256)
    for (name, line), one in zip(LINES.items(), _found(_stage(folders[student]), list(LINES.values())), strict=True):
        assert one.status == "ok", name
        found = [getattr(one, column) for column in NAMES]
        assert found == pytest.approx(_released(released, line), rel=1e-5), name


@pytest.mark.parametrize("student", ["bos", "bare"])
def test_reference_cut_texts_equal_the_released_computation_or_are_too_short(
    folders: Mapping[str, Path], student: str
) -> None:
    """Where the released code has nothing left to predict (and stores 0), there is a reason."""
    naive = Naive(folders[student])
    lines = [
        _line("Name a fruit", "An apple " * 10),
        _line("Name a fruit, " * 10, "An apple"),
        _line("Name one", "An apple", input="of these: " * 10),
        LINES["plain"],
    ]
    seen = []
    for max_length in (24, 60, 80, 110, 256):
        released = Released(naive, max_length)
        for line, one in zip(lines, _found(_stage(folders[student], max_length), lines), strict=True):
            wanted = _released(released, line)
            if any(math.isnan(value) for value in wanted):
                assert one.status == "too_short"
                assert [getattr(one, column) for column in LIKELIHOODS] == [None] * 7
            else:
                assert [getattr(one, column) for column in NAMES] == pytest.approx(wanted, rel=1e-5)
            seen.append((one.status, one.target_truncated))
    assert {("too_short", True), ("ok", True), ("ok", False)} <= set(seen)


def _readings(loaded: Loaded, folder: Path, line: Mapping[str, Any], compat: str) -> Reading:
    stage = _stage(folder, compat=compat)
    (reading,) = read(loaded, stage.template.bound(loaded.tokenizer), stage.scorer, [line])
    assert isinstance(reading, Reading)
    return reading


@pytest.mark.parametrize("student", ["bos", "bare"])
def test_reference_differs_from_reading_by_id_where_tokens_merge_over_the_border(
    folders: Mapping[str, Path], student: str
) -> None:
    loaded = _stage(folders[student]).student.load()
    by_id, as_released = (_readings(loaded, folders[student], LINES["merging"], kind) for kind in ("none", "reference"))
    vocabulary = loaded.tokenizer.get_vocab()
    for reading in (by_id.y_given_x, by_id.y):
        assert loaded.tokenizer.decode(reading.target) in (MERGING, MERGING[2:])
    prompt = len(loaded.tokenizer(f"{VICUNA} USER: Smile ASSISTANT:")["input_ids"])
    joined = as_released.y_given_x
    assert joined.ids[prompt - 1] == vocabulary["::"] and joined.target_start == prompt
    assert by_id.y_given_x.ids != joined.ids
    assert vocabulary[":"] in by_id.y_given_x.ids[-by_id.y.target_tokens - 2 :]
    assert len(as_released.y.ids) - len(joined.ids[joined.target_start :]) == (1 if student == "bos" else 0)


def test_reference_border_is_the_last_occurrence_of_the_instruction(folders: Mapping[str, Path]) -> None:
    """The input holds the instruction twice: only what begins with the last is scored, as in the released code."""
    loaded = _stage(folders["bos"]).student.load()
    found, whole = (_readings(loaded, folders["bos"], LINES["repeated"], kind) for kind in ("reference", "none"))
    assert loaded.tokenizer.decode(found.x_given_y.target) == "Name it"
    assert loaded.tokenizer.decode(whole.x_given_y.target) == "Name it.\nName, please:\nName it"


def test_reference_lone_texts_lose_what_the_other_sides_prompt_would_take(folders: Mapping[str, Path]) -> None:
    loaded = _stage(folders["bos"], max_length=100).student.load()
    line = _line("Name a fruit", "An apple, and a pear " * 10)
    reading = _readings(loaded, folders["bos"], line, "reference")
    prompt = len(loaded.tokenizer(f"{VICUNA} USER: Name a fruit ASSISTANT:")["input_ids"])
    assert len(reading.y.ids) == 100 - prompt + 1
    assert len(reading.y_given_x.ids) == 100 and reading.y_given_x.target_start == prompt
    assert reading.y.target_tokens == reading.y_given_x.target_tokens


def test_reference_shift_is_none_where_the_readings_hold_other_tokens(folders: Mapping[str, Path]) -> None:
    """S-IFD compares a token with itself; merged over the border, the two readings have not the same ones."""
    merging, plain = _found(_stage(folders["bos"]), [LINES["merging"], LINES["plain"]])
    assert (merging.status, merging.shift_y) == ("ok", None)
    assert plain.shift_y is not None


@pytest.mark.parametrize("text", ["  Name a fruit!", "Name a fruit! \n", "Name a fruit!"])
def test_reference_instruction_that_its_template_trims_is_no_number(folders: Mapping[str, Path], text: str) -> None:
    """The border is where the instruction stands in the text: nowhere, if the template has trimmed it."""
    stage = _stage(folders["bos"])
    loaded = stage.student.load()
    loaded.tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}[/]{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    chat = Likelihoods(student=stage.student, template=ChatTemplate(), scorer=stage.scorer, engine=stage.engine)
    (one,) = chat.likelihoods(stage.inference(loaded), [_line(text, "An apple")])
    assert one.status == ("ok" if text == text.strip() else "unrenderable")
    assert (one.loss_x_given_y is None) == (one.status != "ok")


def test_reference_with_the_papers_request_and_template_equals_the_released_computation(
    shared: Path, folders: Mapping[str, Path]
) -> None:
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    request = (shared / "reference" / "reversed_request.txt").read_text()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("config", ["scorer=reference", "student.path=x"])
    cfg.scorer.reversed_request = request
    template, scorer = (instantiate(one, _convert_="all") for one in (cfg.scoring_template, cfg.scorer))
    student = Student(path=str(folders["bos"]), max_length=256, device="cpu", threads=1)
    stage = Likelihoods(student=student, template=template, scorer=scorer, engine=LocalEngine())
    system = (
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions."
    )
    released = Released(Naive(folders["bos"]), 256)
    for line in (LINES["plain"], LINES["input"]):
        (one,) = _found(stage, [line])
        x, more, y = line["instruction"], line["input"], line["response"]
        asked = f"{x}\nInput:\n{more}" if more else x
        wanted = released.four(
            f"{system} USER: {asked} ASSISTANT:",
            f"{system} USER: {request.replace('{response}', y)} ASSISTANT:",
            *(x, more, y),
        )
        assert [getattr(one, column) for column in NAMES] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("compat", ["none", "reference"])
def test_read_unusable_texts_are_reasons_at_their_places(folders: Mapping[str, Path], compat: str) -> None:
    stage = _stage(folders["bos"], compat=compat)
    loaded = stage.student.load()
    lines = [_line("x", " "), LINES["plain"], _line("", "y"), LINES["input"]]
    found = read(loaded, stage.template.bound(loaded.tokenizer), stage.scorer, lines)
    assert [one if isinstance(one, str) else "read" for one in found] == [
        "empty_response",
        "read",
        "empty_instruction",
        "read",
    ]
    alone = [_readings(loaded, folders["bos"], line, compat) for line in (LINES["plain"], LINES["input"])]
    assert [found[1], found[3]] == alone
    assert read(loaded, stage.template.bound(loaded.tokenizer), stage.scorer, []) == []
