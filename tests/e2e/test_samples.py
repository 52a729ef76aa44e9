"""Three samples of each reflection through the whole chain: the student takes the best, and the report shows it."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pyarrow.parquet as pq
import pytest

from srecycle.report.html import write_report
from srecycle.report.runs import Run
from tests.e2e.conftest import SMALL, ran

pytestmark = pytest.mark.e2e

SAMPLED = (*SMALL, "teacher.samples=3", "reflection.scope=chosen")


def _table(run: Run, label: str, name: str) -> list[dict[str, Any]]:
    folder = run.artifact(label)
    assert folder is not None
    lines: list[dict[str, Any]] = pq.read_table(folder / f"{name}.parquet").to_pylist()
    return lines


def test_chain_three_samples_takes_the_best_of_each_row_and_is_found_again(go: Callable[..., Run]) -> None:
    run, again = go(*SAMPLED), go(*SAMPLED)

    rows = run.metrics["source/rows"]
    assert run.status == "finished" and ran(again) == set() and again.metrics == run.metrics
    assert run.metrics["reflect_instruction/requests"] == run.metrics["reflect_response/requests"] == 3 * rows
    made: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for line in _table(run, "scores", "scores"):
        made[line["id"]][line["version"]] = line
    final = {}
    for phase, score, better in (("instruction", "ifd", max), ("response", "r_ifd", min)):
        for line in _table(run, f"select_{phase}", "decisions"):
            kind = phase if line["incumbent"] == "original" else "both"
            values = {
                name: made[line["id"]][name][score]
                for name in (line["incumbent"], kind, f"{kind}-2", f"{kind}-3")
                if made[line["id"]][name]["status"] == "ok"
            }
            assert line["chosen"] == better(values, key=lambda name: values[name])
            assert line["challengers"] == len(values) - 1
            final[line["id"]] = line["chosen"]
    training = _table(run, "assemble", "training")
    assert {line["id"]: line["version"] for line in training} == final and len(training) == rows
    taken = {line["version"].partition("-")[0] for line in training if line["kept"]}
    assert taken == {"response", "both"} and any(line["version"].endswith("-3") for line in training)
    assert sum(run.metrics[f"assemble/kept/{kind}"] for kind in taken) == run.metrics["train/rows"]


@pytest.mark.slow
def test_report_of_a_run_with_samples_shows_them_by_name(go: Callable[..., Run]) -> None:
    run = go(*SAMPLED)

    page = write_report([run], run.folder / "samples.html").read_text()
    assert "version-response" in page and "version-response-2" not in page  # the style of its kind
    for name in ("instruction", "response", "both"):
        assert f"{name}-2</h5>" in page and f"{name}-3</h5>" in page  # those that were not taken too
    assert "the best of 3: <b>" in page
