"""Answers to prompts: whatever the batches are, generated once, and never cut in silence."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from srecycle.config import field_diff, identity
from srecycle.engine.base import finish_shard, shard_file
from srecycle.errors import UserError
from srecycle.evaluator.answering import AnswersEvaluator
from srecycle.evaluator.answers import Answer, Answers, Speaker, read
from srecycle.evaluator.base import Subject
from srecycle.evaluator.prompts import Prompt, read_answers, read_prompts
from srecycle.stage import Work, materialize
from srecycle.store import Store
from srecycle.student import Student
from srecycle.student.encoding import anchor_ids, token_ids
from srecycle.student.model import Loaded
from srecycle.student.template import PromptTemplate
from tests.conftest import ROOT

BASE = ROOT / "srecycle/testbed/bases/weak"
TEMPLATE = PromptTemplate(
    user="question : {instruction} reply :",
    user_with_input="question : {instruction} {input} reply :",
    response_prefix=" ",
    turn_end=" ",
    input_separator=" ",
)


def _questions(count: int) -> list[str]:
    chance = random.Random(1)
    return [
        f"what is {' plus '.join(str(chance.randint(1, 30)) for _ in range(chance.randint(2, 6)))}"
        for _ in range(count)
    ]


def _file(folder: Path, *records: Any, name: str = "prompts.jsonl") -> Path:
    (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder / name


def _stage(prompts: Path, **fields: Any) -> Answers:
    student = Student(path=str(BASE), device="cpu", threads=1, max_length=fields.pop("max_length", 256))
    settings: dict[str, Any] = {
        "prompts": prompts,
        "student": student,
        "template": TEMPLATE,
        "adapter": None,
        "model": None,
        "max_new_tokens": 16,
        "temperature": 0.0,
        "top_p": None,
        "seed": 0,
        "stop": (),
        "batch_tokens": 4096,
    }
    return Answers(**settings | fields)


@cache
def _loaded(max_length: int = 256) -> Loaded:
    return Student(path=str(BASE), device="cpu", threads=1, max_length=max_length).load()


def _said(prompts: Path, **fields: Any) -> list[Answer]:
    stage = _stage(prompts, **fields)
    return Speaker(_loaded(stage.student.max_length), stage).answers(read_prompts(prompts))


@pytest.mark.parametrize("fields", [{}, {"temperature": 1.0}, {"temperature": 0.8, "top_p": 0.7}])
def test_answers_do_not_depend_on_batches_and_order(tmp_path: Path, fields: dict[str, Any]) -> None:
    records = [{"instruction": question} for question in _questions(20)]
    alone = _said(_file(tmp_path, *records), batch_tokens=1, **fields)
    together = _said(_file(tmp_path, *records[::-1], name="turned.jsonl"), batch_tokens=100_000, **fields)
    assert {one.id: (one.text, one.finish_reason) for one in alone} == {
        one.id: (one.text, one.finish_reason) for one in together
    }
    assert len({one.text for one in alone}) > 8 and [one.position for one in together] == list(range(20))


def test_answers_greedy_are_what_the_model_says_after_the_trained_prompt(tmp_path: Path) -> None:
    import torch

    loaded = _loaded()
    questions = _questions(4)
    for question, one in zip(questions, _said(_file(tmp_path, *({"text": q} for q in questions))), strict=True):
        (ids,) = token_ids(loaded.tokenizer, [f"question : {question} reply :"])
        context, written = [*anchor_ids(loaded.tokenizer), *ids], list[int]()
        with torch.inference_mode():
            while len(written) < 16 and loaded.tokenizer.eos_token_id not in written:
                logits = loaded.model(torch.tensor([context + written])).logits
                written.append(int(logits[0, -1].argmax()))
        ended = written[-1] == loaded.tokenizer.eos_token_id
        assert one.text == loaded.tokenizer.decode(written, skip_special_tokens=True).strip() != ""
        assert one.finish_reason == ("stop" if ended else "length")
        assert (one.input_tokens, one.output_tokens) == (len(context), len(written) - ended)


def test_answers_differ_by_seed_and_duplicates_are_drawn_apart(tmp_path: Path) -> None:
    prompts = _file(tmp_path, *[{"instruction": "what is 3 plus 4"}] * 6)
    first = _said(prompts, temperature=1.5)
    assert len({one.id for one in first}) == 6 and len({one.text for one in first}) > 3
    assert [one.text for one in _said(prompts, temperature=1.5)] == [one.text for one in first]
    assert [one.text for one in _said(prompts, temperature=1.5, seed=1)] != [one.text for one in first]


def test_answers_without_room_have_a_reason_and_short_rooms_say_so(tmp_path: Path) -> None:
    long = " ".join(["what is 3 plus 4"] * 20)
    prompts = _file(tmp_path, {"instruction": "what is 3 plus 4"}, {"instruction": long}, {"turns": [long, "and 5 ?"]})
    short, *without = _said(prompts, max_length=64, max_new_tokens=3)
    assert (short.status, short.finish_reason, short.output_tokens) == ("ok", "length", 3)
    assert [(one.status, one.text, one.output_tokens) for one in without] == [
        ("too_long", "", 0),
        ("too_long", "", 0),
        ("no_earlier_answer", "", 0),
    ]
    (beside,) = _said(_file(tmp_path, {"instruction": "what is 3 plus 4"}), max_length=14, max_new_tokens=50)
    assert beside.input_tokens + beside.output_tokens == 14 and beside.finish_reason == "length"


def test_answers_end_before_a_stop_text_and_before_the_templates_end(tmp_path: Path) -> None:
    prompts = _file(tmp_path, {"instruction": "reverse the list 1 2 3"})
    (whole,) = _said(prompts)
    stop = whole.text.split()[2]
    expected = whole.text[: whole.text.index(stop)].strip()
    for fields in ({"stop": (stop,)}, {"template": replace(TEMPLATE, end=f" {stop}")}):
        (one,) = _said(prompts, **fields)
        assert (one.text, one.finish_reason) == (expected, "stop")


def test_answers_end_at_a_special_token_that_ends_the_template(tmp_path: Path) -> None:
    prompts = _file(tmp_path, {"instruction": "reverse the list 1 2 3"})
    (whole,) = _said(prompts)
    assert "." in whole.text.split()[:-1]
    loaded = Student(path=str(BASE), device="cpu", threads=1, max_length=256).load()
    loaded.tokenizer.add_special_tokens({"additional_special_tokens": ["."]})
    stage = _stage(prompts, template=replace(TEMPLATE, end=" ."))
    (one,) = Speaker(loaded, stage).answers(read_prompts(prompts))
    assert (one.text, one.finish_reason) == (whole.text.partition(" .")[0], "stop")


def test_answers_to_a_second_turn_follow_the_first_ones(tmp_path: Path) -> None:
    first, second = _said(_file(tmp_path, {"turns": ["what is 3 plus 4", "what is 5 plus 6"]}))
    text = f"question : what is 3 plus 4 reply : {first.text} question : what is 5 plus 6 reply :"
    (ids,) = token_ids(_loaded().tokenizer, [text])
    assert (first.turn, second.turn, second.instruction) == (0, 1, "what is 5 plus 6")
    assert second.input_tokens == len(ids) + len(anchor_ids(_loaded().tokenizer))


def test_stage_finished_shards_are_not_made_again(tmp_path: Path, store: Store) -> None:
    prompts = _file(tmp_path, *({"instruction": question} for question in _questions(150)))
    stage = _stage(prompts, max_new_tokens=4)
    whole = materialize(stage, store).artifact
    assert [one.position for one in read(whole.table("answers"))] == list(range(150))

    # What a killed process leaves behind: a plan and one finished shard, here with a text that no model wrote.
    other = Store(tmp_path / "other")
    _, scratch, _ = other.begin(stage.name, stage.key)
    (scratch / "plan.json").write_text(json.dumps({"items": 150, "shard_rows": 64}))
    longest = sorted(read_prompts(prompts), key=lambda one: (-len(one.question), one.position))[:64]
    known = {one.id: one for one in read(whole.table("answers"))}
    kept = [replace(known[prompt.id], text=f"kept {prompt.id}") for prompt in longest]
    table = pa.Table.from_pylist([vars(one) for one in kept], schema=whole.table("answers").schema)
    finish_shard(scratch, 0, table)
    assert shard_file(scratch, 0).exists()
    resumed = {one.id: one.text for one in read(materialize(stage, other).artifact.table("answers"))}
    ours = {prompt.id for prompt in longest}
    assert all(resumed[one] == (f"kept {one}" if one in ours else known[one].text) for one in known)


_GENERATE = """
import sys
from pathlib import Path
from srecycle.stage import materialize
from srecycle.store import Store
from tests.unit.evaluator.test_answers import _stage

materialize(_stage(Path(sys.argv[1]), max_new_tokens=32, batch_tokens=512), Store(Path(sys.argv[2])))
"""


def _moments(scratch: Path) -> dict[str, int]:
    """Return when each finished shard was written; the folder goes when the stage is done."""
    found = {}
    for path in scratch.glob("shard-*.parquet"):
        with suppress(FileNotFoundError):
            found[path.name] = path.stat().st_mtime_ns
    return found


@pytest.mark.slow
def test_stage_killed_goes_on_with_what_is_finished_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    prompts = _file(tmp_path, *({"instruction": question} for question in _questions(320)))
    stage = _stage(prompts, max_new_tokens=32, batch_tokens=512)
    killed, unbroken = tmp_path / "killed", tmp_path / "unbroken"
    command = [sys.executable, "-c", _GENERATE, str(prompts)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, str(killed)], env=environment, cwd=ROOT)
    first = shard_file(killed / "artifacts/answers" / stage.key / ".work", 1)
    while not first.exists() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was over before it was killed"
    made = _moments(first.parent)
    process = subprocess.Popen([*command, str(killed)], env=environment, cwd=ROOT)
    while process.poll() is None:
        after = _moments(first.parent)
        assert all(after.get(name, moment) == moment for name, moment in made.items()), "generated twice"
        time.sleep(0.01)
    subprocess.run([*command, str(unbroken)], env=environment, cwd=ROOT, check=True)
    one, other = (store / "artifacts/answers" / stage.key for store in (killed, unbroken))
    for name in ("answers.parquet", "record.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_stage_identity_is_content_and_sampling_and_not_the_batch(tmp_path: Path) -> None:
    prompts = _file(tmp_path, {"instruction": "a"})
    moved = tmp_path / "moved.jsonl"
    shutil.copy(prompts, moved)
    stage = _stage(prompts)
    assert stage.key == _stage(moved, batch_tokens=1).key
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_config.json").write_text("{}")
    (tmp_path / "adapter/adapter_model.safetensors").write_text("weights")
    others = [
        _stage(_file(tmp_path, {"instruction": "b"}, name="b.jsonl")),
        _stage(prompts, max_new_tokens=17),
        _stage(prompts, temperature=0.5),
        _stage(prompts, stop=("x",)),
        _stage(prompts, adapter=tmp_path / "adapter"),
        _stage(prompts, model=BASE),
        _stage(prompts, max_length=128),
    ]
    assert len({one.key for one in (stage, *others)}) == 8
    (difference,) = field_diff(identity(stage), identity(others[1]))
    assert difference == "max_new_tokens: 16 -> 17"


def test_evaluator_generates_once_for_everybody_and_counts(tmp_path: Path, store: Store) -> None:
    prompts = _file(
        tmp_path,
        {"text": "what is 3 plus 4", "category": "sums"},
        {"text": " ".join(["what is 3"] * 99), "category": "x"},
    )
    subject = Subject(
        student=Student(path=str(BASE), device="cpu", threads=1, max_length=256),
        template=TEMPLATE,
        adapter=None,
        training=pa.table({}),
    )
    evaluator = AnswersEvaluator(prompts={"v": prompts}, category="category", max_new_tokens=8)
    found = evaluator.evaluate(subject, work := _work(store, "1"))
    assert (found["v/answers"], found["v/unanswered/too_long"]) == (1, 1)
    assert found["v/category=sums/answers"] == found["v/category=x/unanswered/too_long"] == 1
    assert "v/category=x/mean_tokens" not in found
    table = pq.read_table(work.folder / "answers.parquet")
    assert table["set"].to_pylist() == ["v", "v"] and read(table)[0].text
    (made,) = (store.root / "artifacts/answers").glob("*/answers.parquet")
    before = made.stat().st_mtime_ns
    assert replace(evaluator, batch_tokens=1).evaluate(subject, _work(store, "2")) == found
    assert made.stat().st_mtime_ns == before


def test_evaluator_column_that_tells_nearly_all_prompts_apart_is_refused(tmp_path: Path) -> None:
    prompts = _file(tmp_path, *({"text": f"what is {number}", "number": number} for number in range(501)))
    with pytest.raises(UserError, match=r"the column number \(category\) has 501 values, too many to tell apart"):
        AnswersEvaluator(prompts={"v": prompts}, category="number").check()
    AnswersEvaluator(prompts={"v": prompts}).check()


def _work(store: Store, key: str) -> Work:
    folder, scratch, _ = store.begin("evaluate", key)
    return Work(store=store, folder=folder, scratch=scratch)


@pytest.mark.parametrize(
    ("record", "turns", "input"),
    [
        ({"instruction": "i", "input": "x", "output": "o"}, ("i",), "x"),
        ({"instruction": "i", "output": "o", "dataset": "d"}, ("i",), ""),
        ({"instruction": "i", "instances": [{"input": "x", "output": "o"}]}, ("i",), "x"),
        ({"idx": 1, "Skill": "Math", "Difficulty": 1, "Instruction": "i"}, ("i",), ""),
        ({"id": "koala_0", "prompt": "i"}, ("i",), ""),
        ({"question_id": 1, "text": "i", "category": "generic"}, ("i",), ""),
        ({"conversations": "i"}, ("i",), ""),
        ({"conversations": ["i", "an answer"]}, ("i",), ""),
        ({"question_id": 81, "category": "writing", "turns": ["i", "j"]}, ("i", "j"), ""),
    ],
)
def test_prompts_of_every_known_form_are_read(
    tmp_path: Path, record: dict[str, Any], turns: tuple[str, ...], input: str
) -> None:
    (one,) = read_prompts(_file(tmp_path, record))
    assert (one.turns, one.input, one.position) == (turns, input, 0)
    assert one.question == ("i\n\nx" if input else "i")


@pytest.mark.parametrize(
    ("records", "category", "said"),
    [
        ([{"words": "i"}], None, "record 0 has no column that asks something"),
        ([{"instruction": " "}], None, "record 0 asks nothing"),
        ([{"turns": []}], None, "'turns' should be a text or a list of texts"),
        ([{"turns": [1]}], None, "'turns' should be"),
        ([{"instruction": "i", "instances": [3]}], None, "'instances' should be a list of objects"),
        ([{"instruction": "i", "history": [3]}], None, "'history' should be a list of messages"),
        ([{"instruction": "i", "history": [{"role": "user", "content": "\ud83d"}]}], None, "half of a character"),
        ([{"instruction": "i", "history": [{"role": "user", "content": 7}]}], None, "'content' should be text"),
        ([{"turns": ["i", "\ud83d"]}], None, "'turns' holds half of a character"),
        ([{"instruction": "i", "kind": "\ud83d"}], "kind", "'kind' holds half of a character"),
        ([{"instruction": "i", "kind": ["a"]}], "kind", "'kind' should be text, but is list"),
        ([{"instruction": "i"}], "kind", "has no column 'kind'"),
        ([], None, "holds no prompts"),
    ],
)
def test_prompts_that_cannot_be_read_are_an_error(
    tmp_path: Path, records: list[Any], category: str | None, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        read_prompts(_file(tmp_path, *records), category)


def test_prompts_duplicates_and_instances_are_prompts_of_their_own(tmp_path: Path) -> None:
    file = _file(
        tmp_path, {"prompt": "i"}, {"prompt": "i"}, {"instruction": "i", "instances": [{"input": "x"}, {"input": "y"}]}
    )
    found = read_prompts(file)
    assert [one.input for one in found] == ["", "", "x", "y"]
    assert found[1].id == f"{found[0].id}-2" and len({one.id for one in found}) == 4


def test_answers_in_files_are_found_by_the_prompts_content(tmp_path: Path) -> None:
    prompts = read_prompts(_file(tmp_path, {"instruction": "i", "input": "x"}, {"text": "j"}, {"text": "j"}))
    given = [{"instruction": "j", "output": "first"}, {"instruction": "i", "input": "x", "answer": "A"}]
    found = read_answers(_file(tmp_path, *given, {"prompt": "j", "response": "second"}, name="answers.jsonl"))
    assert [found[one.id] for one in prompts] == ["A", "first", "second"]
    with pytest.raises(UserError, match="record 0 has no answer"):
        read_answers(_file(tmp_path, {"instruction": "i"}))


@pytest.mark.parametrize(
    ("name", "count", "with_input"),
    [("vicuna", 80, 0), ("koala", 180, 0), ("wizardlm", 218, 0), ("sinstruct", 252, 208), ("lima", 300, 0)],
)
def test_prompts_of_the_papers_test_sets_are_all_read(shared: Path, name: str, count: int, with_input: int) -> None:
    found = read_prompts(shared / f"data/test_sets/{name}_test.jsonl")
    assert len(found) == len({one.id for one in found}) == count
    assert sum(bool(one.input) for one in found) == with_input and all(one.turns[0].strip() for one in found)


def test_prompts_of_alpaca_eval_have_answers_by_content(shared: Path) -> None:
    folder = shared / "data/alpaca_eval"
    prompts = read_prompts(folder / "alpaca-7b_outputs.json", "dataset")
    answers = read_answers(folder / "text_davinci_003_outputs.json")
    assert len(prompts) == 805 and all(one.id in answers for one in prompts)
    assert {one.category for one in prompts} == {"selfinstruct", "oasst", "koala", "helpful_base", "vicuna"}


def test_prompt_question_shows_what_was_said_before(tmp_path: Path) -> None:
    record = {"instruction": "i", "history": [{"role": "user", "content": "h"}, {"role": "assistant", "content": "a"}]}
    (one,) = read_prompts(_file(tmp_path, record))
    assert isinstance(one, Prompt) and one.question == "user: h\n\nassistant: a\n\ni"
