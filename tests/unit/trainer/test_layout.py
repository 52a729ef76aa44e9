"""How steps are laid out: labels token by token after TRL's collating, bins, fillers, and counts."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import settings as drawn
from hypothesis import strategies as st

from srecycle.student import PromptTemplate, Student
from srecycle.student.chat import ChatTemplate
from srecycle.student.encoding import Encoded
from srecycle.student.template import Template
from srecycle.trainer.base import training_set
from srecycle.trainer.layout import count_tokens, labels, laid_out, line
from srecycle.trainer.order import arranged
from tests.unit.trainer.conftest import ROWS

FOLDER = Path(__file__).parents[3] / "conf" / "template"
TEMPLATES = sorted(file.stem for file in FOLDER.glob("*.yaml"))
CHAT = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def _sequences(*lengths: int, target: int = 1) -> list[Encoded]:
    starts = Counter[int]()
    made = []
    for place, length in enumerate(lengths):
        starts[place] += 1
        made.append(Encoded(ids=tuple(100 * place + token for token in range(length)), target_start=length - target))
    return made


def _laid(sequences: list[Encoded], steps: int, **how: Any) -> Any:
    settings = {"batch_size": 4, "device_batch": 2, "processes": 1, "packing": None} | how
    ids = [str(row) for row in range(len(sequences))]
    passes = arranged("source", ids, {}, batch_size=settings["batch_size"], seed=0).first(steps)
    return passes, laid_out(passes, sequences, **settings)


def _lines(layout: Any, sequences: list[Encoded]) -> list[dict[str, Any]]:
    assert layout.dataset()["place"][:] == list(range(len(layout.entries)))
    return list(layout.lines(sequences, range(len(layout.entries))))


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("packed", [False, True])
def test_collated_labels_are_each_row_s_answer_and_nothing_else(
    tiny_models: Mapping[str, Path], name: str, packed: bool
) -> None:
    """The oracle knows no encoding: it asks the text of what is labelled, and of what stands before."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    loaded = Student(path=str(tiny_models["llama"]), max_length=256, device="cpu", threads=1).load()
    tokenizer = loaded.tokenizer
    fields = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    kind = fields.pop("_target_").rpartition(".")[2]
    template: Template = ChatTemplate(**fields) if kind == "ChatTemplate" else PromptTemplate(**fields)
    if kind == "ChatTemplate":
        tokenizer.chat_template = CHAT
    rows = [{**row, "instruction": f"{row['instruction']}?"} for row in ROWS[:5]]
    sequences = list(training_set(loaded, template, rows).sequences)
    _, layout = _laid(sequences, 2, packing=256 if packed else None, device_batch=4)
    collate = DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id, padding_free=layout.packed)
    batch = collate(_lines(layout, sequences)[: layout.device_batch])
    found = []
    for ids, marks in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
        part: list[int] = []
        for place, (token, mark) in enumerate([*zip(ids, marks, strict=True), (0, -100)]):
            if mark == -100 and part:
                answer = tokenizer.decode(part, skip_special_tokens=True)
                before = tokenizer.decode(ids[: place - len(part)], skip_special_tokens=True)
                found.append((before, answer, part[-1]))
                part = []
            elif mark != -100:
                assert mark == token
                part.append(token)
    expected = {row["response"].strip(): f"{row['instruction']}" for row in rows[:4]}
    assert len(found) == 4
    for before, answer, last in found:
        (response,) = [text for text in expected if answer.strip().startswith(text) and len(answer) < len(text) + 20]
        assert last == tokenizer.eos_token_id
        assert expected.pop(response) in before and before.rstrip().endswith((":", ">", "\n", "assistant", "Response"))


def test_labels_leave_out_a_first_token_that_nothing_stands_before() -> None:
    assert labels(Encoded(ids=(7, 8, 9), target_start=0)) == [-100, 8, 9]
    assert labels(Encoded(ids=(7, 8, 9), target_start=2)) == [-100, -100, 9]


def test_line_of_no_rows_has_no_label() -> None:
    assert line([], packed=True) == {"input_ids": [0, 0], "labels": [-100, -100], "seq_lengths": [2]}
    assert line(_sequences(3), packed=False) == {"input_ids": [0, 1, 2], "labels": [-100, -100, 2]}


def test_laid_out_packing_is_trl_s_best_fit_decreasing_within_each_step() -> None:
    """The oracle packs one step's real token columns by TRL itself."""
    from datasets import Dataset
    from trl import pack_dataset

    sequences = _sequences(3, 9, 4, 6, 2, 2, 8, 5, 1, 10)
    passes, layout = _laid(sequences, 4, packing=10, device_batch=1)
    assert passes.steps_per_pass == 3
    for number, step in enumerate(passes.trained()):
        tokens = Dataset.from_dict({"input_ids": [list(sequences[row].ids) for row in step]})
        theirs = pack_dataset(tokens, 10, "bfd")
        ours = _lines(layout, sequences)[number * layout.per_step : (number + 1) * layout.per_step]
        full = [one for one in ours if one["input_ids"] != [0, 0]]
        assert [one["input_ids"] for one in full] == theirs["input_ids"][:]
        assert [one["seq_lengths"] for one in full] == theirs["seq_lengths"][:]


@drawn(max_examples=40)
@given(
    lengths=st.lists(st.integers(2, 12), min_size=1, max_size=30),
    batch=st.sampled_from([1, 2, 4, 6]),
    device=st.integers(1, 5),
    processes=st.sampled_from([1, 2]),
    packing=st.sampled_from([None, 12]),
    steps=st.integers(1, 12),
)
def test_laid_out_every_step_holds_its_rows_once_and_every_process_as_many_entries(
    lengths: list[int], batch: int, device: int, processes: int, packing: int | None, steps: int
) -> None:
    batch *= processes
    sequences = _sequences(*lengths)
    passes, layout = _laid(
        sequences, steps, batch_size=batch, device_batch=device, processes=processes, packing=packing
    )
    assert len(layout.entries) == layout.per_pass * passes.begun
    assert processes == 1 or layout.per_pass % (processes * layout.device_batch) == 0
    # Trainer takes `accumulation` batches of `device_batch` a process to a step, and no step spans two passes.
    taken = layout.device_batch * layout.accumulation * processes
    for number in range(passes.begun):
        entries = layout.entries[number * layout.per_pass : (number + 1) * layout.per_pass]
        steps_found = [entries[start : start + taken] for start in range(0, len(entries), taken)]
        assert len(steps_found) == passes.steps_per_pass
        for found, rows in zip(steps_found, passes.of(number), strict=True):
            assert Counter(row for entry in found for row in entry) == Counter(rows)
            assert all(sum(len(sequences[row].ids) for row in entry) <= (packing or 99) for entry in found)
    counted = count_tokens(passes, layout, sequences)
    assert [one.seen for one in counted] == [sum(lengths[row] for row in step) for step in passes.trained()]
    assert all(one.padded >= one.seen >= one.target for one in counted)


def test_count_tokens_padding_is_what_the_collated_tensors_hold() -> None:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    sequences = _sequences(3, 9, 4, 6, 2, 7)
    for packing in (None, 10):
        passes, layout = _laid(sequences, 3, packing=packing)
        collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=layout.packed)
        lines = _lines(layout, sequences)
        elements = []
        for number in range(passes.begun):
            entries = lines[number * layout.per_pass : (number + 1) * layout.per_pass]
            for start in range(0, len(entries), layout.per_step):
                step = entries[start : start + layout.per_step]
                batches = [step[at : at + layout.device_batch] for at in range(0, len(step), layout.device_batch)]
                elements.append(sum(torch.numel(collate(batch)["input_ids"]) for batch in batches))
        assert [one.padded for one in count_tokens(passes, layout, sequences)] == elements[: passes.steps]
