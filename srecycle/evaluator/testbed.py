"""The micro-world's examination: held-out accuracy by split, and what the training set is made of.

Accuracy is exact match of the final answer, run as lm-eval tasks that are written for the occasion. The composition
counts the verdict of every kept pair, computed from its texts alone: the world knows its truth.
"""

import importlib.metadata
import shutil
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Annotated, ClassVar, Final

from pydantic import Field

from srecycle.config import component, runtime
from srecycle.evaluator.base import Evaluator, Subject
from srecycle.evaluator.lm_eval_results import Reported, gap
from srecycle.evaluator.lm_eval_run import run_tasks, write_results
from srecycle.evaluator.lm_eval_tasks import Catalogue
from srecycle.evaluator.lm_eval_unit import Settings, Unit
from srecycle.rows import own_rows
from srecycle.stage import Metrics, Work
from srecycle.testbed.heldout import GROUP, SPLITS, task_name, write_task
from srecycle.testbed.judgement import judge

OUT_OF_DISTRIBUTION: Final = ("unseen_2", "longer")
"""The splits that no training text is like."""


@component
class TestbedEvaluator(Evaluator):
    """`items` held-out questions a split (known, partial, compositions, out of distribution), drawn with `seed`.

    Splits in domain and out of distribution are also reported apart, as the plain means over them, with the gap.
    """

    revision: ClassVar[int] = 3

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
        found = run_tasks(
            partial(subject.load, merged=True),
            work,
            catalogue=Catalogue(folder),
            tasks=(GROUP,),
            batch_size=self.batch_size,
            units=[Unit(name=GROUP)],  # at once: batches across splits are what published figures were measured with
        )
        write_results(work, found, Settings())
        metrics: Metrics = {}
        for name, task in [*((split, task_name(split)) for split in SPLITS), ("mean", GROUP)]:
            metrics[f"accuracy/{name}"] = found.metrics[f"{task}/exact_match,final_answer"]
            metrics[f"accuracy_stderr/{name}"] = found.metrics[f"{task}/exact_match_stderr,final_answer"]
        return metrics | _gap(found) | (_composition(subject) if subject.is_trained else {})


def _gap(found: Reported) -> Metrics:
    """Tell the splits that are like the training text and those that are not apart, and how far apart they are."""
    sides = {
        "in_domain": [task_name(split) for split in SPLITS if split not in OUT_OF_DISTRIBUTION],
        "out_of_distribution": [task_name(split) for split in OUT_OF_DISTRIBUTION],
    }
    figures = gap(found.metrics, sides, {task_name(split): "exact_match,final_answer" for split in SPLITS})
    metrics: Metrics = {}
    for name in (*sides, "difference"):
        told = "gap" if name == "difference" else name
        metrics[f"accuracy/{told}"] = figures[f"gap/{name}"]
        metrics[f"accuracy_stderr/{told}"] = figures[f"gap/{name}_stderr"]
    return metrics


def _composition(subject: Subject) -> Metrics:
    own = own_rows(subject.training)
    kept = own.filter(own["kept"])
    pairs = zip(kept["instruction"].to_pylist(), kept["response"].to_pylist(), strict=True)
    verdicts = Counter(judge(instruction, response) for instruction, response in pairs)
    total = verdicts.total()
    return {
        "clean_share": verdicts["ok"] / total,
        **{f"kept/{verdict}": count for verdict, count in sorted(verdicts.items())},
    }
