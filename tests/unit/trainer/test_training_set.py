"""What is trained on, token by token, and what is said where there is nothing."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from srecycle.assemble import Assemble, Assembly
from srecycle.config import identity
from srecycle.data import Source
from srecycle.data.alpaca import Alpaca
from srecycle.errors import UserError
from srecycle.keep import Keep
from srecycle.keep.none import KeepAll
from srecycle.keep.reflected import ResponseReflectedOnly
from srecycle.selector import Select
from srecycle.selector.never import Never
from srecycle.stage import materialize
from srecycle.store import Store
from srecycle.student import PromptTemplate, Student
from srecycle.student.chat import ChatTemplate
from srecycle.student.model import Loaded
from srecycle.trainer import NoTrainer, Train
from srecycle.trainer.base import adapter_folder, training_set
from srecycle.trainer.layout import labels
from srecycle.trainer.lora import LoRATrainer
from tests.unit.trainer.test_layout import CHAT

FOLDER = Path(__file__).parents[3] / "conf" / "template"
TEMPLATES = sorted({file.stem for file in FOLDER.glob("*.yaml")} - {"chat"})  # tests/unit/student/test_chat.py has it
ROW = {"id": "a", "instruction": "Translate.", "input": "hello", "response": "Bonjour. \U0001f600", "history": []}
HISTORY = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there"}]
ROWS: list[dict[str, Any]] = [
    ROW,
    {**ROW, "id": "b", "input": ""},
    {**ROW, "id": "c", "history": HISTORY},
    {**ROW, "id": "d", "response": "It ends in </s>, <|im_end|> or <|endoftext|>, they say."},
]


def _template(name: str) -> PromptTemplate:
    fields = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    return PromptTemplate(**{key: value for key, value in fields.items() if key != "_target_"})


def _loaded(path: Path, max_length: int = 256) -> Loaded:
    return Student(path=str(path), max_length=max_length, device="cpu").load()


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("model", ["llama", "gpt2", "qwen2", "plain"])
def test_training_set_labels_are_the_response_and_its_end(
    tiny_models: Mapping[str, Path], model: str, name: str
) -> None:
    loaded, template = _loaded(tiny_models[model]), _template(name)
    data = training_set(loaded, template, ROWS)
    assert data.ids == [row["id"] for row in ROWS]
    tokenizer = loaded.tokenizer
    first = {"llama": ["<s>"], "gpt2": ["<|endoftext|>"], "qwen2": ["<|im_end|>"], "plain": []}[model]
    last = {"llama": ["</s>"], "gpt2": ["<|endoftext|>"], "qwen2": ["<|im_end|>"], "plain": []}[model]
    vocabulary = tokenizer.get_vocab()
    for row, line in zip(ROWS, data.sequences, strict=True):
        turns = [*row["history"]]
        fields = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
        text = fields["preamble_with_input"] if row["input"] and fields["preamble_with_input"] else fields["preamble"]
        if turns:
            text += fields["user"].replace("{instruction}", "Hi")
            text += fields["response_prefix"] + "Hello there" + fields["turn_end"]
        user = fields["user_with_input"] if row["input"] else fields["user"]
        text += user.replace("{instruction}", "Translate.").replace("{input}", row["input"])
        prompt = [vocabulary[one] for one in first] + tokenizer.encode(text, add_special_tokens=False)
        text = fields["response_prefix"] + row["response"]
        answer = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        if fields["end"] not in last:
            answer += tokenizer.encode(fields["end"], add_special_tokens=False)
        answer += [vocabulary[one] for one in last]
        assert list(line.ids) == prompt + answer
        assert labels(line) == [-100] * len(prompt) + answer


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_training_set_chat_labels_are_the_last_answer_as_transformers_renders_it(
    tiny_models: Mapping[str, Path], name: str
) -> None:
    """The oracle is transformers' own rendering of the whole conversation, and of all but its last message."""
    loaded = _loaded(tiny_models[name])
    tokenizer = loaded.tokenizer
    tokenizer.chat_template = CHAT
    anchor = [tokenizer.bos_token_id or tokenizer.eos_token_id]
    data = training_set(loaded, ChatTemplate(input_separator="\n"), ROWS)
    for row, line in zip(ROWS, data.sequences, strict=True):
        asked = [*row["history"], {"role": "user", "content": "\n".join(filter(None, ("Translate.", row["input"])))}]
        whole = [*asked, {"role": "assistant", "content": row["response"]}]
        prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
        text = tokenizer.apply_chat_template(whole, return_dict=False)
        if row["id"] == "d":  # transformers takes what the answer says for its end
            assert len(line.ids) > 1 + len(text) and labels(line)[: 1 + len(prompt)] == [-100] * (1 + len(prompt))
            continue
        assert list(line.ids) == [*anchor, *text]
        assert labels(line) == [-100] * (1 + len(prompt)) + text[len(prompt) :] and text[: len(prompt)] == prompt


def test_training_set_empty_response_is_refused_with_that_reason(tiny_models: Mapping[str, Path]) -> None:
    rows = [{**ROW, "id": "x", "response": ""}, ROW, {**ROW, "id": "y", "response": " \n"}]
    made = training_set(_loaded(tiny_models["llama"]), _template("alpaca"), rows)
    assert made.refused == {"x": "empty_response", "y": "empty_response"}
    assert len(made.sequences) == 1


def test_training_set_long_prompt_never_pushes_the_response_out(tiny_models: Mapping[str, Path]) -> None:
    loaded = _loaded(tiny_models["llama"], 40)
    short, long = {**ROW, "instruction": "word " * 100}, {**ROW, "response": "word " * 100}
    made = training_set(loaded, _template("wizardlm"), [short, {**long, "id": "long"}])
    (fits,) = made.sequences
    answer = [*loaded.tokenizer.encode(ROW["response"], add_special_tokens=False), loaded.tokenizer.eos_token_id]
    assert list(fits.ids[fits.target_start :]) == answer and not fits.truncated and fits.context_lost > 0
    assert len(fits.ids) == 40
    assert made.refused == {"long": "too_long"}


def test_training_set_scores_stand_beside_their_rows_and_may_be_missing(tiny_models: Mapping[str, Path]) -> None:
    rows = [{**ROW, "ifd": 0.5}, {**ROW, "id": "x", "response": ""}, {**ROW, "id": "b", "ifd": None}]
    made = training_set(_loaded(tiny_models["llama"]), _template("alpaca"), rows)
    assert made.ids == ["a", "b"]
    assert made.scores == {"ifd": [0.5, None], "loss_y_given_x": [None, None]}


def test_training_set_response_cut_without_any_prompt_is_refused(tiny_models: Mapping[str, Path]) -> None:
    bare = PromptTemplate(user="{instruction}", user_with_input="{instruction}{input}")
    rows = [{**ROW, "instruction": "", "input": "", "response": "word " * 100}]
    assert training_set(_loaded(tiny_models["llama"], 40), bare, rows).refused == {"a": "too_long"}


def test_training_set_single_token_that_nothing_stands_before_is_refused(tiny_models: Mapping[str, Path]) -> None:
    bare = PromptTemplate(user="{instruction}", user_with_input="{instruction}{input}")
    rows = [{**ROW, "instruction": "", "input": "", "response": "a"}]
    assert training_set(_loaded(tiny_models["plain"]), bare, rows).refused == {"a": "nothing_to_predict"}


def _train(root: Path, model: Path, responses: list[str], keep: Keep, trainer: Any) -> tuple[Train, Store]:
    (root / "rows.json").write_text(json.dumps([{"instruction": "Say.", "output": one} for one in responses]))
    store = Store(root / "store")
    source = Source(data=Alpaca(path=root / "rows.json"))
    first = Select(phase="instruction", rows=source, selector=Never())
    second = Select(phase="response", rows=source, before=first, selector=Never())
    training = Assemble(rows=source, decisions=second, keep={"one": keep}, assembly=Assembly())
    student = Student(path=str(model), max_length=64, device="cpu", threads=1)
    for stage in (source, first, second, training):
        materialize(stage, store)
    return Train(training=training, trainer=trainer, student=student, template=_template("wizardlm")), store


TINY = {"rank": 2, "batch_size": 2, "device_batch": 2, "match": "steps", "max_steps": 2}


def test_train_nothing_kept_names_the_reasons(tmp_path: Path, tiny_models: Mapping[str, Path]) -> None:
    stage, store = _train(tmp_path, tiny_models["llama"], ["a", "b"], ResponseReflectedOnly(), LoRATrainer(**TINY))
    with pytest.raises(UserError, match=r"none of 2 rows was kept .2 response_not_reflected.; loosen the keep"):
        materialize(stage, store)


def test_train_all_kept_rows_refused_names_the_reasons(tmp_path: Path, tiny_models: Mapping[str, Path]) -> None:
    long = "a response of many words, " * 100
    stage, store = _train(tmp_path, tiny_models["llama"], ["", long, " ", long + "too"], KeepAll(), LoRATrainer(**TINY))
    with pytest.raises(UserError, match=r"all 4 kept rows were refused .2 empty_response, 2 too_long."):
        materialize(stage, store)
    assert store.find("train", stage.key) is None


def test_train_without_trainer_makes_no_adapter(tmp_path: Path, tiny_models: Mapping[str, Path]) -> None:
    stage, store = _train(tmp_path, tiny_models["llama"], ["a"], ResponseReflectedOnly(), NoTrainer())
    made = materialize(stage, store).artifact
    assert made.metrics == {"rows": 0}
    assert adapter_folder(made.folder) is None


def test_train_lora_learns_counts_and_repeats_itself(tmp_path: Path, tiny_models: Mapping[str, Path]) -> None:
    from safetensors.torch import load_file

    made = []
    for name in "ab":
        (tmp_path / name).mkdir()
        trainer = LoRATrainer(**(TINY | {"max_steps": 8, "learning_rate": 0.02, "warmup": 0.0}))
        stage, store = _train(tmp_path / name, tiny_models["llama"], ["hi there", "hi", ""], KeepAll(), trainer)
        made.append(materialize(stage, store).artifact)
    first, second = made
    assert (first.metrics["rows"], first.metrics["steps"], first.metrics["refused/empty_response"]) == (2, 8, 1)
    losses = first.table("curve")["loss"].to_pylist()
    assert len(losses) == 8 and losses[-1] < losses[0]
    assert first.metrics == second.metrics
    weights = [load_file(one.folder / "adapter" / "adapter_model.safetensors") for one in made]
    assert weights[0].keys() == weights[1].keys() and weights[0]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])


def test_train_that_failed_keeps_its_checkpoints_and_one_that_ended_leaves_nothing_but_the_artifact(
    tmp_path: Path, tiny_models: Mapping[str, Path]
) -> None:
    settings = TINY | {"max_steps": 4, "checkpoint_steps": 1, "warmup": 0.0}
    stage, store = _train(tmp_path, tiny_models["llama"], ["hi there", "hi"], KeepAll(), LoRATrainer(**settings))
    failing = replace(stage, trainer=LoRATrainer(**(settings | {"learning_rate": 1e30})))
    with pytest.raises(UserError, match="training stopped"):
        materialize(failing, store)
    left = store.scratch("train", failing.key)
    assert (left / "stopped.json").exists() and not store.find("train", failing.key)
    made = materialize(stage, store).artifact
    names = {file.relative_to(made.folder).as_posix() for file in made.folder.rglob("*") if file.is_file()}
    assert names == {*made.record["files"], "record.json", "provenance.json"} and not (made.folder / ".work").exists()
    for file in made.folder.rglob("*"):
        if file.is_file():  # what pickle and torch.save write begins so
            assert not file.read_bytes().startswith((b"\x80", b"PK\x03\x04")), f"{file.name} is a pickle"


def test_train_writes_a_card_that_names_what_it_rests_on_and_renders_no_foreign_text(
    tmp_path: Path, tiny_models: Mapping[str, Path]
) -> None:
    import shutil

    cards = []
    for name in "ab":
        model = tmp_path / name / "``` <img src=x> model"
        shutil.copytree(tiny_models["llama"], model)
        stage, store = _train(tmp_path / name, model, ["hi there", "hi"], KeepAll(), LoRATrainer(**TINY))
        made = materialize(stage, store).artifact
        cards.append((made.folder / "adapter" / "README.md").read_text())
    assert cards[0] == cards[1]
    _, front, body = cards[0].split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "peft",
        "tags": ["srecycle", "selective-reflection-tuning", "sft"],
    }
    assert "<img" not in body and body.count("```") == 8
    blocks = [json.loads(part.partition("```")[0]) for part in body.split("```json\n")[1:]]
    base, settings, lineage, figures = blocks
    assert base["base_model_name_or_path"] == model.name and base["content"] == stage.student.resolved()["path"]
    assert str(tmp_path) not in body
    assert settings["rank"] == 2 and "device_batch" not in settings
    assert [one["stage"] for one in lineage] == ["train", "assemble", "source", "select_response", "select_instruction"]
    train, training, source, response, _ = lineage
    assert train["key"] == stage.key and training["key"] == stage.training.key
    assert train["template"] == identity(stage.template) and training["keep"] == {"one": identity(KeepAll())}
    assert source["data"] == identity(stage.training.rows.data) and response["selector"] == identity(Never())
    assert figures == made.metrics
    assert f"{made.metrics['loss/last_tenth']:.6g} nats" in body
