"""Which pairs are trained on, how they are encoded, and what is told of all the others."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from srecycle.assemble import Assemble, Assembly
from srecycle.errors import UserError
from srecycle.keep import Keep
from srecycle.keep.limit import IFDMax
from srecycle.keep.none import KeepAll
from srecycle.selector import Selector
from srecycle.selector.ifd import IFD
from srecycle.selector.reversed_ifd import ReversedIFD
from srecycle.stage import Made, materialize
from srecycle.student import PromptTemplate, Student
from srecycle.student.model import Loaded
from srecycle.trainer import Train, Trainer
from srecycle.trainer.chosen import ChosenTrainer
from srecycle.trainer.lora import LoRATrainer
from srecycle.trainer.pairs import found_pairs, pair_set
from srecycle.trainer.preferences import PREFERENCE_SCHEMA, Preferences
from srecycle.trainer.sft_dpo import SFTThenDPOTrainer
from tests.unit.selector.bench import LOSSES, Bench
from tests.unit.trainer.conftest import SMALL
from tests.unit.trainer.paired_bench import dpo

PLAIN = PromptTemplate(user="Q: {instruction}\nA:", user_with_input="Q: {instruction} {input}\nA:")
BARE = PromptTemplate(user="{instruction}", user_with_input="{instruction}{input}")
PAIR: dict[str, Any] = {
    "id": "a",
    "instruction": "Name the capital.",
    "input": "",
    "history": [],
    "chosen": " Paris",
    "rejected": " It is a big city",
}


def _loaded(models: Mapping[str, Path], model: str = "llama", max_length: int = 64) -> Loaded:
    return Student(path=str(models[model]), max_length=max_length, device="cpu").load()


def _table(*lines: dict[str, Any]) -> pa.Table:
    filled = dict.fromkeys(PREFERENCE_SCHEMA.names, "") | {"history": [], "chosen_value": None}
    filled |= {"rejected_value": None, "status": "ok", "score": "r_ifd", "kept": True}
    return pa.Table.from_pylist([{**filled, **line} for line in lines], schema=PREFERENCE_SCHEMA)


TABLE = _table(
    {"id": "a"},
    {"id": "b", "kept": False},
    {"id": "c", "status": "tie"},
    {"id": "d", "status": "tie", "kept": False},
    {"id": "e", "score": "ifd"},
)


def test_found_pairs_decided_are_all_that_a_verdict_made() -> None:
    lines, counts = found_pairs(TABLE, "decided")
    assert [line["id"] for line in lines] == ["a", "b", "e"]
    assert counts == {"pairs_by/ifd": 1, "pairs_by/r_ifd": 2, "no_pair/tie": 2}


def test_found_pairs_kept_are_only_those_that_the_filters_let_stand() -> None:
    lines, counts = found_pairs(TABLE, "kept")
    assert [line["id"] for line in lines] == ["a", "e"]
    assert counts == {"pairs_by/ifd": 1, "pairs_by/r_ifd": 1, "no_pair/not_kept": 1, "no_pair/tie": 2}


def test_found_pairs_none_says_why_and_what_to_do() -> None:
    with pytest.raises(
        UserError, match=r"none of 2 rows has a pair of responses \(2 tie\); choose a response selector"
    ):
        found_pairs(TABLE.slice(2, 2), "decided")
    with pytest.raises(UserError, match=r"\(1 not_kept, 1 tie\).*or trainer.pairs=decided"):
        found_pairs(TABLE.slice(1, 2), "kept")


def test_pair_set_refuses_with_reasons_and_keeps_the_rest(tiny_models: Mapping[str, Path]) -> None:
    lines = [
        {**PAIR, "id": "empty", "rejected": " \n"},
        {**PAIR, "id": "long", "chosen": "word " * 100},
        PAIR,
        {**PAIR, "id": "same", "rejected": " Paris"},
    ]
    made = pair_set(_loaded(tiny_models), PLAIN, lines, {"pairs_by/ifd": 4})
    assert made.refused == {"empty": "empty_response", "long": "too_long", "same": "same_response"}
    assert made.ids == ["a"] and made.metrics == {
        "pairs": 1,
        "pairs_by/ifd": 4,
        "refused_pairs/empty_response": 1,
        "refused_pairs/same_response": 1,
        "refused_pairs/too_long": 1,
        "pairs_context_truncated": 0,
    }


def test_pair_set_of_nothing_but_refused_pairs_says_why(tiny_models: Mapping[str, Path]) -> None:
    lines = [{**PAIR, "chosen": ""}, {**PAIR, "id": "b", "rejected": "word " * 100}]
    with pytest.raises(UserError, match=r"all 2 pairs were refused \(1 empty_response, 1 too_long\)"):
        pair_set(_loaded(tiny_models), PLAIN, lines, {})


def test_pair_set_completion_that_nothing_stands_before_is_refused(tiny_models: Mapping[str, Path]) -> None:
    lines = [{**PAIR, "instruction": ""}, {**PAIR, "id": "b"}]
    assert pair_set(_loaded(tiny_models, "plain"), BARE, lines, {}).refused == {"a": "no_prompt"}
    assert pair_set(_loaded(tiny_models, "llama"), BARE, lines, {}).refused == {}  # its BOS stands there


def test_pair_set_context_is_cut_alike_before_both_responses(tiny_models: Mapping[str, Path]) -> None:
    loaded = _loaded(tiny_models, max_length=40)
    made = pair_set(loaded, PLAIN, [{**PAIR, "instruction": "word " * 100}], {})
    (one,), (two,) = made.chosen, made.rejected
    assert one.ids[: one.target_start] == two.ids[: two.target_start] and one.target_start == two.target_start
    assert max(len(one.ids), len(two.ids)) == len(two.ids) == 40 > len(one.ids)
    assert one.ids[0] == loaded.tokenizer.bos_token_id
    answers = [loaded.tokenizer.encode(PAIR[side], add_special_tokens=False) for side in ("chosen", "rejected")]
    assert [list(one.target), list(two.target)] == [[*ids, loaded.tokenizer.eos_token_id] for ids in answers]
    assert made.metrics["pairs_context_truncated"] == 1


def _trained(bench: Bench, trainer: Trainer, response: Selector, keep: Mapping[str, Keep]) -> tuple[Made, Made]:
    """Materialize preferences and training of the hand-made store."""
    first = bench.select("instruction", IFD())
    second = bench.select("response", response, first)
    bench.assemble(second, dict(keep))
    training = Assemble(
        rows=bench.source,
        reflections=bench.reflections,
        likelihoods=(bench.likelihoods,),
        decisions=second,
        keep=dict(keep),
        assembly=Assembly(),
    )
    preferences = Preferences(
        rows=bench.source, reflections=bench.reflections, instruction=first, decisions=second, training=training
    )
    student = Student(path=bench.likelihoods.student.path, max_length=64, device="cpu", threads=1)
    train = Train(training=training, trainer=trainer, student=student, template=PLAIN, preferences=preferences)
    return materialize(preferences, bench.store), materialize(train, bench.store)


@pytest.fixture
def bench(tmp_path: Path, tiny_models: Mapping[str, Path]) -> Bench:
    return Bench(tmp_path, tiny_models["llama"])


def test_train_on_pairs_counts_every_row_of_the_source_and_writes_one_card(bench: Bench) -> None:
    preferences, made = _trained(bench, dpo(max_steps=2), ReversedIFD(), {"none": KeepAll()})
    metrics = made.artifact.metrics
    assert metrics["pairs"] == 2 == preferences.artifact.metrics["pairs"] == metrics["pairs_by/r_ifd"]
    assert metrics["pairs"] + sum(value for name, value in metrics.items() if name.startswith("no_pair/")) == 5
    assert metrics["not_comparable/instruction_phase"] == 3 and "rows" not in metrics
    card = (made.artifact.folder / "adapter" / "README.md").read_text()
    assert '"dpo"' in card and '"sft"' not in card
    assert "of the preference loss, per pair" in card and f'"key": "{preferences.artifact.key}"' in card
    figures = card.partition("## Training figures")[2]
    assert json.loads(figures.partition("```json\n")[2].partition("\n```")[0]) == metrics


@pytest.mark.slow
def test_train_on_rows_and_then_pairs_counts_both(bench: Bench) -> None:
    first = LoRATrainer(**({"rank": 2} | SMALL | {"max_steps": 2}))
    trainer = SFTThenDPOTrainer(sft=first, dpo=dpo(max_steps=2))
    _, made = _trained(bench, trainer, ReversedIFD(), {"none": KeepAll()})
    assert (
        made.artifact.metrics["rows"]
        + sum(value for name, value in made.artifact.metrics.items() if name.startswith("refused/"))
        == 5
    )
    assert made.artifact.metrics["pairs"] == 2 and made.artifact.metrics["sft/steps"] == 2
    assert '"sft", "dpo"' in (made.artifact.folder / "adapter" / "README.md").read_text()


def test_chosen_responses_have_no_score_to_be_ordered_by() -> None:
    with pytest.raises(ValidationError, match=r"order=rare_first sorts by a row's score, and pairs have two"):
        ChosenTrainer(**SMALL, order="rare_first")


def test_train_on_chosen_responses_reads_the_pairs_that_dpo_reads_and_no_row(bench: Bench) -> None:
    nothing = {"ifd": IFDMax(below=0.01)}
    settings = {"rank": 2} | SMALL | {"order": "source", "max_steps": 2, "schedule": "constant_with_warmup"}
    _, made = _trained(bench, ChosenTrainer(**settings), ReversedIFD(), nothing)
    _, preferred = _trained(bench, dpo(**settings), ReversedIFD(), nothing)
    metrics, theirs = made.artifact.metrics, preferred.artifact.metrics
    for name in ("pairs", "pairs_by/r_ifd", "rows_seen", "steps"):
        assert metrics[name] == theirs[name]
    assert "rows" not in metrics
    # The student has not moved before the first step: it reads there what DPO's policy reads of the chosen responses.
    loss = made.artifact.table("curve")["loss"][0].as_py()
    tokens = made.artifact.table("curve")["target_tokens"][0].as_py()
    assert loss * tokens / 2 == pytest.approx(-preferred.artifact.table("curve")["logps/chosen"][0].as_py(), rel=1e-5)


def test_train_on_pairs_needs_no_kept_row_unless_kept_pairs_are_asked_for(bench: Bench) -> None:
    nothing = {"ifd": IFDMax(below=0.01)}
    _, made = _trained(bench, dpo(max_steps=1), ReversedIFD(), nothing)
    assert made.artifact.metrics["pairs"] == 2
    with pytest.raises(UserError, match=r"none of 5 rows has a pair of responses \(.*not_kept"):
        _trained(bench, dpo(max_steps=1, pairs="kept"), ReversedIFD(), nothing)


def test_train_on_pairs_where_all_responses_tie_says_why(tmp_path: Path, tiny_models: Mapping[str, Path]) -> None:
    bench = Bench(tmp_path, tiny_models["llama"], losses=dict.fromkeys(LOSSES, (0.5, 0.5)))
    with pytest.raises(UserError, match=r"nothing to train on: none of 5 rows has a pair of responses \(\d tie, "):
        _trained(bench, dpo(), ReversedIFD(), {"none": KeepAll()})
