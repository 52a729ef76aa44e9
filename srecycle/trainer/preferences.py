"""The stage that turns the student's decisions into preference pairs: what it took against what that beat.

In: versions, both phases' decisions, and the training set. Out: `preferences.parquet`, one line a row of the source:
the instruction, the response that was chosen and the one that was rejected, the score that ordered them with both
values, and `status`: "ok", or why the row makes no pair. Only the response phase decides between responses to one
instruction; the instruction phase's decisions share none, and are counted as not comparable.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa

from srecycle.assemble import Assemble
from srecycle.config import component
from srecycle.data import Source
from srecycle.reflection import Reflect
from srecycle.reflection.versions import VERSION_SCHEMA, Versions
from srecycle.rows import OK
from srecycle.selector import Select
from srecycle.stage import Metrics, Stage, Work

PREFERENCE_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), False),
        pa.field("status", pa.string(), False),
        pa.field("instruction", pa.string(), False),
        pa.field("input", pa.string(), False),
        VERSION_SCHEMA.field("history"),
        *(pa.field(name, pa.string(), False) for name in ("chosen", "rejected", "chosen_version", "rejected_version")),
        pa.field("score", pa.string(), False),
        pa.field("chosen_value", pa.float64()),
        pa.field("rejected_value", pa.float64()),
        pa.field("kept", pa.bool_(), False),
    ]
)
"""`score` names what ordered the pair: a score, or the selector where it chooses by none. `kept` is whether the keep
filters let the row's taken version stand."""

_VERDICTS = ("challenger_won", "incumbent_won")
"""Within a margin the worse one was taken: that is no preference."""
_TEXTS = ("instruction", "input", "response", "history")


@component
class Preferences(Stage):
    """Makes a pair of every row whose responses the student could compare."""

    rows: Source
    reflections: tuple[Reflect, ...]
    instruction: Select
    decisions: Select
    training: Assemble

    revision: ClassVar[int] = 1

    @property
    def name(self) -> str:
        """The stage's name."""
        return "preferences"

    def run(self, work: Work) -> Metrics:
        """Join decisions with the texts that they are about."""
        versions = Versions(work, self.rows, self.reflections, _TEXTS).table().to_pylist()
        texts = {(line["id"], line["version"]): line for line in versions}
        training = work.read(self.training).table("training", ["id", "kept"]).to_pylist()
        kept = {line["id"]: line["kept"] for line in training}
        decisions = work.read(self.decisions).table("decisions").to_pylist()
        selector = self.decisions.selector
        score = selector.score or type(selector).__name__.lower()
        lines = [_pair(one, texts, score, kept[one["id"]]) for one in decisions]
        work.write("preferences", pa.Table.from_pylist(lines, schema=PREFERENCE_SCHEMA))
        statuses = Counter(line["status"] for line in lines)
        before = work.read(self.instruction).table("decisions", ["reason"])
        return {
            "rows": len(lines),
            "pairs": statuses.pop(OK, 0),
            "ordered_by": score,
            **{f"no_pair/{status}": count for status, count in sorted(statuses.items())},
            "not_comparable/instruction_phase": sum(one in _VERDICTS for one in before["reason"].to_pylist()),
        }


def _pair(
    decision: Mapping[str, Any], texts: Mapping[tuple[str, str], Mapping[str, Any]], score: str, kept: bool
) -> dict[str, Any]:
    """Return a row's line. A row without a pair has empty texts."""
    identifier, names = decision["id"], (decision["challenger"], decision["incumbent"])
    won = decision["chosen"] == decision["challenger"]
    chosen, rejected = (texts.get((identifier, name)) for name in (names if won else names[::-1]))
    values = (decision["challenger_value"], decision["incumbent_value"])
    line: dict[str, Any] = {
        "id": identifier,
        "status": _status(decision["reason"], chosen, rejected),
        **dict.fromkeys(("instruction", "input", "chosen", "rejected"), ""),
        "history": [],
        "chosen_version": decision["chosen"],
        "rejected_version": names[won],
        "score": score,
        **dict(zip(("chosen_value", "rejected_value"), values if won else values[::-1], strict=True)),
        "kept": kept,
    }
    if line["status"] == OK:
        assert chosen is not None and rejected is not None
        line |= {name: chosen[name] for name in ("instruction", "input", "history")}
        line |= {"chosen": chosen["response"], "rejected": rejected["response"]}
    return line


def _status(reason: str, chosen: Mapping[str, Any] | None, rejected: Mapping[str, Any] | None) -> str:
    """Say why a decision makes no pair, or "ok"."""
    if reason not in _VERDICTS:
        return reason  # a tie, or a side without verdict: nobody beat anybody
    assert chosen is not None and rejected is not None, "a verdict on a version that is not there"
    if any(chosen[name] != rejected[name] for name in ("instruction", "input", "history")):
        return "not_comparable"
    if chosen["response"].strip() == rejected["response"].strip():
        return "same_response"
    return OK if rejected["response"].strip() and chosen["response"].strip() else "empty_response"
