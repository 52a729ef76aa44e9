"""The micro-world's examination: held-out accuracy by split, and what the training set is made of.

Accuracy is exact match of the final answer, run as lm-eval tasks that are written for the occasion. The composition
counts the verdict of every kept pair, computed from its texts alone: the world knows its truth.
"""

import importlib.metadata
import shutil
from collections import Counter
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from srecycle.config import component, runtime
from srecycle.evaluator.base import Evaluator, Subject
from srecycle.evaluator.lm_eval import run_tasks
from srecycle.stage import Metrics, Work
from srecycle.testbed.heldout import GROUP, SPLITS, task_name, write_task
from srecycle.testbed.judgement import judge


@component
class TestbedEvaluator(Evaluator):
    """`items` held-out questions a split (known, partial, compositions, out of distribution), drawn with `seed`."""

    items: Annotated[int, Field(ge=2)] = 150
    seed: int = 1
    batch_size: Annotated[int, Field(ge=1)] = runtime(150)

    def resolved(self) -> Mapping[str, str]:
        """The harness that runs the tasks counts."""
        return {"lm_eval": importlib.metadata.version("lm_eval")}

    def evaluate(self, subject: Subject, work: Work) -> Metrics:
        """Examine the student, and judge what it was trained on."""
        folder = work.scratch / "tasks"
        shutil.rmtree(folder, ignore_errors=True)
        write_task(folder, self.items, self.seed)
        figures = run_tasks(subject.load(), work, tasks=(GROUP,), include_path=folder, batch_size=self.batch_size)
        metrics: Metrics = {}
        for name, task in [*((split, task_name(split)) for split in SPLITS), ("mean", GROUP)]:
            metrics[f"accuracy/{name}"] = figures[f"{task}/exact_match,final_answer"]
            metrics[f"accuracy_stderr/{name}"] = figures[f"{task}/exact_match_stderr,final_answer"]
        return metrics | (_composition(subject) if subject.adapter else {})


def _composition(subject: Subject) -> Metrics:
    kept = subject.training.filter(subject.training["kept"])
    pairs = zip(kept["instruction"].to_pylist(), kept["response"].to_pylist(), strict=True)
    verdicts = Counter(judge(instruction, response) for instruction, response in pairs)
    total = verdicts.total()
    return {
        "clean_share": verdicts["ok"] / total,
        **{f"kept/{verdict}": count for verdict, count in sorted(verdicts.items())},
    }
