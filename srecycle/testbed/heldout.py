"""Held-out tests of the micro-world, and the lm-eval task folder that runs them.

Six splits: single known and single partial operations, compositions of two that may occur in training text, of two that
never do (out of distribution), of three, and lists of six (out of distribution: no training text answers about them).
Every item asks for a generation; its final answer, from terse or worked output, is matched exactly against the truth.
lm-eval extracts it by the same pattern as `wording.final_answer`, in YAML alone, so that no code is run from the
folder.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from srecycle.testbed.format import TEMPLATE_SYSTEM_FREE_PROMPT
from srecycle.testbed.wording import FINAL_ANSWER_PATTERN, render_instruction
from srecycle.testbed.world import (
    LONGER_LENGTH,
    TRAINED_WEIGHTS,
    Task,
    operations_of,
    sample_task,
    sample_unseen_pair,
    truth,
)

GROUP: Final = "micro_world"
ANCHOR: Final = "<s> "
MAX_NEW_TOKENS: Final = 96
_KNOWN: Final = dict.fromkeys(operations_of("known"), 1.0)
_PARTIAL: Final = dict.fromkeys(operations_of("partial"), 1.0)
_SAMPLERS: Final[Mapping[str, Callable[[random.Random], Task]]] = {
    "known": lambda rng: sample_task(rng, _KNOWN),
    "partial": lambda rng: sample_task(rng, _PARTIAL),
    "composed_2": lambda rng: sample_task(rng, TRAINED_WEIGHTS, 2),
    "unseen_2": sample_unseen_pair,
    "composed_3": lambda rng: sample_task(rng, TRAINED_WEIGHTS, 3),
    "longer": lambda rng: sample_task(rng, TRAINED_WEIGHTS, rng.choice((1, 2)), lengths=(LONGER_LENGTH,)),
}
SPLITS: Final = tuple(_SAMPLERS)


def task_name(split: str) -> str:
    """The lm-eval task of a split."""
    return f"{GROUP}_{split}"


def held_out(split: str, count: int, seed: int) -> list[dict[str, str]]:
    """Questions and right answers of a split. Deterministic. ValueError for an unknown split."""
    if split not in _SAMPLERS:
        raise ValueError(f"split: {split!r} is none of {SPLITS}")
    rng = random.Random(f"held out {split} {seed}")
    tasks = [_SAMPLERS[split](rng) for _ in range(count)]
    return [{"question": render_instruction(task, rng), "answer": truth(task)} for task in tasks]


def write_task(folder: Path | str, count: int, seed: int, anchor: str = ANCHOR) -> None:
    """Write the folder for `TaskManager(include_defaults=False, include_path=folder)`: one JSONL and one YAML a split,
    and the YAML of the group, whose score is the plain mean over splits.

    `anchor` stands before every prompt: the tokenizer adds no beginning-of-sequence token by itself, and training has
    one.
    """
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        lines = [json.dumps({**item, "prompt": _prompt(item, anchor)}) + "\n" for item in held_out(split, count, seed)]
        rows = folder / f"{split}.jsonl"
        rows.write_text("".join(lines), encoding="utf-8")
        _write_yaml(folder / f"{task_name(split)}.yaml", _task_settings(split, rows))
    group = {
        "group": GROUP,
        "task": [task_name(split) for split in SPLITS],
        "aggregate_metric_list": [
            {"metric": "exact_match", "aggregation": "mean", "weight_by_size": False, "filter_list": "final_answer"}
        ],
        "metadata": {"version": 1.0},
    }
    _write_yaml(folder / f"{GROUP}.yaml", group)


def _prompt(item: Mapping[str, str], anchor: str) -> str:
    return anchor + TEMPLATE_SYSTEM_FREE_PROMPT.format(instruction=item["question"])


def _task_settings(split: str, rows: Path) -> dict[str, Any]:
    return {
        "task": task_name(split),
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(rows)}},
        "test_split": "test",
        "output_type": "generate_until",
        # Columns by name: a template would be compiled anew for each item, four times.
        "doc_to_text": "prompt",
        "doc_to_target": "answer",
        "generation_kwargs": {"until": ["question :"], "do_sample": False, "max_gen_toks": MAX_NEW_TOKENS},
        "filter_list": [
            {
                "name": "final_answer",
                "filter": [
                    {
                        "function": "regex",
                        "regex_pattern": FINAL_ANSWER_PATTERN,
                        "group_select": -1,
                        "fallback": "none",
                    },
                    {"function": "take_first"},
                ],
            }
        ],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }


def _write_yaml(path: Path, content: dict[str, Any]) -> None:
    # JSON is YAML, and needs no further dependency.
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
