"""The command that makes a line of the paper's tables: a study of experiments/paper, with what differs from it."""

import shlex
from collections.abc import Sequence

from srecycle.report.paper_published import Line, Table, published

_SHARES = {"Top": "top", "RandomShare": "top_random"}


def command(table: Table, line: Line) -> str:
    """Return the command line; "" for a line that no study makes: somebody else's model, which can't be had."""
    study = f"paper/table{table['number']}"
    if "student" in line:
        return _call([study, "paper/with/no_training"], f"student.path={line['student']}", *line.get("overrides", ()))
    if "arm" not in line:
        return ""
    if "against" in line:
        other = published()["arms"][line["against"]]
        answering = _call(["paper/answers", f"paper/{other['study']}"])
        compared = _call([study], f"evaluator.pairwise.against={other['name']}")
        return f"{answering} && {compared}"
    arm = published()["arms"][line["arm"]]["study"]
    beside = {
        f"paper/{arm}": arm,
        "paper/with/alpaca": line["data"] == "alpaca",
        "paper/with/llama2_13b": line["size"] == "13b",
        "paper/with/vicuna": line.get("mixed"),
    }
    if line.get("fraction") == 1.0:  # all rows: table 1's student, which needn't be trained again
        return _call(["paper/table1"], "evaluator=[open_llm_v1,alpaca_eval]")
    share = [f"keep.{_SHARES[line['subset']]}.fraction={line['fraction']:g}"] if "subset" in line else []
    return _call([study, *(name for name, wanted in beside.items() if wanted)], *share)


def _call(studies: Sequence[str], *overrides: str) -> str:
    chosen = studies[0] if len(studies) == 1 else f"[{','.join(studies)}]"
    return shlex.join(["srecycle", f"experiment={chosen}", *overrides])
