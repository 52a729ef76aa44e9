"""The stage that asks the student how likely each version of each row is (sections 3.1 and 3.2 of the paper).

In: versions. Out: `likelihoods.parquet`, one line a usable version, in version order. Identity: the student, its
template, how the scorer reads, and the versions' keys. The batches' token budget is not: the first worker that loads
the student finds it, it is kept with the plan until the stage is done, and told in the provenance.
"""

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from srecycle.config import component, runtime
from srecycle.data import Source
from srecycle.engine import Engine, Mapper
from srecycle.progress import say
from srecycle.reflection import Reflect
from srecycle.reflection.versions import Versions, VersionsByRow
from srecycle.rows import LIKELIHOOD_SCHEMA, OK, Likelihood, counted, to_table
from srecycle.scorer import Scorer
from srecycle.stage import Metrics, Stage, Work
from srecycle.student.encoding import Encoded, anchor_name
from srecycle.student.model import Loaded, Student
from srecycle.student.reading import Line, Reading, read
from srecycle.student.template import Template

if TYPE_CHECKING:
    from srecycle.student.inference import Inference, TokenLosses


_READ = ("instruction", "input", "response", "history")
_TOLD = ("status", "context_truncated", "target_truncated", "loss_y_given_x", "loss_y")


@component
class Likelihoods(Stage):
    """Computes L(y|x), L(y), L(x|y') and L(x) of every usable version of `rows` (where given) and `reflections`.

    `trained_in` is the template of training where that is another one than `template`: scores then tell how hard a
    sample is in a format that the student will not see, which is said and stands in the record.
    """

    revision: ClassVar[int] = 3

    rows: Source | None = None
    reflections: tuple[Reflect, ...] = ()
    student: Student
    template: Template
    trained_in: Template | None = None
    scorer: Scorer
    engine: Engine = runtime()

    @property
    def name(self) -> str:
        """The stage's name."""
        return "likelihoods"

    def check(self) -> None:
        """Refuse to start without what the engine needs, or on a device that isn't there."""
        self.engine.check()
        if not self.engine.elsewhere:
            self.student.check()

    def run(self, work: Work) -> Metrics:
        """Score all versions, a row's versions together."""
        rows = VersionsByRow(Versions(work, self.rows, self.reflections, _READ))
        if self.trained_in is not None:
            say("  warning: the student is scored in another template than it is trained in")
        scoring = Scoring(replace(self, rows=None, reflections=(), trained_in=None))
        work.write("likelihoods", self.engine.map_shards(self.name, rows, scoring, work.scratch, scoring.rate))
        work.notes |= scoring.notes
        table = work.written("likelihoods", _TOLD)
        _warn(table)
        return {
            "versions": len(table),
            "ifd_above_one_share": _share_above_one(table),
            "context_truncated": pc.sum(table["context_truncated"]).as_py() or 0,
            "target_truncated": pc.sum(table["target_truncated"]).as_py() or 0,
            "anchor": anchor_name(self.student.tokenizer()),
            "scored_in_another_template": self.trained_in is not None,
            **{f"status/{status}": count for status, count in counted(table["status"]).items()},
        }

    def inference(self, loaded: Loaded) -> "Inference":
        """Return what computes token losses, in batches of the scorer's budget or of what suits the device."""
        from srecycle.student.inference import Inference, found_budget  # imports torch, which planning must not

        budget = self.scorer.batch_tokens or found_budget(loaded)
        return Inference(loaded, budget, share=self.scorer.share_prefixes, compiled=self.scorer.compile)

    def likelihoods(self, inference: "Inference", lines: Sequence[Line]) -> Iterator[Likelihood]:
        """Return the likelihoods of usable versions (with instruction, input, response and history), in order.

        Threads may call this at the same time: one computes while others tokenise and write.
        """
        wording = self.template.bound(inference.loaded.tokenizer)
        readings = read(inference.loaded, wording, self.scorer, lines)
        reasons = [one if isinstance(one, str) else one.reason for one in readings]
        sequences = [
            sequence
            for one, reason in zip(readings, reasons, strict=True)
            if isinstance(one, Reading) and reason is None
            for sequence in one.sequences
        ]
        with _computing:
            losses = iter(inference.token_losses(sequences, [number % 4 == 0 for number in range(len(sequences))]))
        for line, one, reason in zip(lines, readings, reasons, strict=True):
            four = None if reason else tuple(next(losses) for _ in range(4))
            yield self._likelihood(inference, line, one, reason, four)

    def _likelihood(
        self,
        inference: "Inference",
        line: Line,
        reading: Reading | str,
        reason: str | None,
        four: "tuple[TokenLosses | None, ...] | None",
    ) -> Likelihood:
        facts = _facts(reading)
        values: dict[str, Any] = dict.fromkeys(("loss_y_given_x", "loss_y", "loss_x_given_y", "loss_x"))
        found = [one for one in four or () if one is not None]
        if reason is None and len(found) < 4:
            reason = "out_of_memory"
        elif reason is None:
            values = dict(zip(values, (one.mean for one in found), strict=True))
            assert isinstance(reading, Reading)
            values["shift_y"] = _shift(reading, found, self.scorer.s_ifd_share)
            ranks = found[0].ranks
            assert ranks is not None
            values["loss_answer"] = _answer_loss(reading, found[0])
            values["rank_y_given_x"] = float(np.minimum(ranks, self.scorer.rank_clip).astype(np.float64).mean())
            if not all(value is None or math.isfinite(value) for value in values.values()):
                values, reason = dict.fromkeys(values), "non_finite"
        if reason is None and self.scorer.token_losses and isinstance(reading, Reading):
            values |= _token_columns(inference.loaded, reading, found)
        return Likelihood(id=line["id"], version=line["version"], status=reason or OK, **(facts | values))


class Scoring(Mapper[Likelihoods, Sequence[Line], pa.Table]):
    """What a worker does: it loads the student, and scores the versions of one row after the other.

    Its settings are the stage without what that reads.
    """

    settles: ClassVar[tuple[str, ...]] = ("batch_tokens",)

    def load(self) -> Mapping[str, Any]:
        """Load the student. Raises UserError where it can't be loaded."""
        self._inference = self.settings.inference(self.settings.student.load())
        self._scored = list[int]()
        return {"batch_tokens": self._inference.batch_tokens}

    def adopt(self) -> None:
        """Batch as all workers do."""
        self._inference.batch_tokens = self.settled["batch_tokens"]

    def __call__(self, items: Sequence[Sequence[Line]]) -> pa.Table:
        """Return the likelihoods of the usable versions of rows."""
        usable = [line for lines in items for line in lines if line["status"] == OK]
        table = to_table(self.settings.likelihoods(self._inference, usable), LIKELIHOOD_SCHEMA)
        self._scored.append(len(items))
        return table

    def name(self, item: Sequence[Line]) -> str:
        """Return the row's id."""
        return str(item[0]["id"])

    def counts(self) -> dict[str, Any]:
        """Return how much was scored, and what batches came to."""
        one = self._inference
        return {
            "rows": sum(self._scored),
            "tokens": one.read_tokens,
            "batch_tokens": one.batch_tokens,
            "splits": one.splits,
            "shares": one.shares,
        }

    def close(self) -> None:
        """End after the batch that is being computed."""
        self._inference.stopped = True

    def rate(self) -> str:
        """Say how fast it goes."""
        return f"{self._a_second('tokens'):,.0f} tokens/s"

    @property
    def notes(self) -> dict[str, Any]:
        """What the provenance tells, of all workers together."""
        return {
            "batch_tokens": min((one["batch_tokens"] for one in self.told), default=self.settled["batch_tokens"]),
            "out_of_memory_splits": sum(one["splits"] for one in self.told),
            "shared_prefixes": all(one["shares"] for one in self.told),
            "rows_per_second": round(self._a_second("rows"), 2),
            "tokens_per_second": round(self._a_second("tokens"), 1),
        }

    def _a_second(self, name: str) -> float:
        return sum(one[name] for one in self.told) / self.seconds if self.seconds else 0.0


_computing = threading.Lock()
"""One batch at a time: two at once would share the device, and its memory, for nothing."""


def _facts(reading: Reading | str) -> dict[str, Any]:
    if isinstance(reading, str):
        return {"tokens_y": 0, "tokens_x": 0, "context_truncated": False, "target_truncated": False}
    return {
        "tokens_y": reading.y_given_x.target_tokens,
        "tokens_x": reading.x_given_y.target_tokens,
        "context_truncated": any(one.context_lost > 0 for one in reading.sequences),
        "target_truncated": any(one.truncated for one in reading.sequences),
    }


def _shift(reading: Reading, found: "Sequence[TokenLosses]", share: float) -> float | None:
    """Return the mean of L(y_t|x) - L(y_t) over the share of tokens that x moves most, either way (arXiv:2506.01317).

    None where the two readings hold different tokens (`compat: reference` may cut them apart).
    """
    if reading.y_given_x.target != reading.y.target:
        return None
    y_given_x, y = (one.losses.astype(np.float64) for one in found[:2])
    shift = y_given_x - y
    count = math.ceil(share * len(shift))
    return float(shift[np.argsort(-np.abs(shift), kind="stable")[:count]].mean())


def _answer_loss(reading: Reading, y_given_x: "TokenLosses") -> float | None:
    """Return the mean loss of the tokens that cover the answer, None where there is none."""
    if reading.answer is None:
        return None
    begin, end = reading.answer
    return float(y_given_x.losses[begin:end].astype(np.float64).mean())


def _token_columns(loaded: Loaded, reading: Reading, found: "Sequence[TokenLosses]") -> dict[str, Any]:
    y_given_x, y, x_given_y, x = (tuple(one.losses.tolist()) for one in found)
    return {
        "y_tokens": _token_texts(loaded, reading.y_given_x),
        "y_given_x_token_losses": y_given_x,
        "y_token_losses": y,
        "x_tokens": _token_texts(loaded, reading.x_given_y),
        "x_given_y_token_losses": x_given_y,
        "x_token_losses": x,
    }


def _token_texts(loaded: Loaded, sequence: Encoded) -> tuple[str, ...]:
    return tuple(loaded.tokenizer.batch_decode([[token] for token in sequence.target]))


def _warn(table: pa.Table) -> None:
    """Say what in a finished scoring should make somebody look again."""
    above_one = _share_above_one(table)
    if above_one is not None and above_one > 0.5:
        say(
            f"  warning: IFD is above 1 for {above_one:.0%} of the versions: their instructions make responses "
            "less likely to this student; is template=NAME the format that it was trained on?"
        )
    if too_large := counted(table["status"]).get("out_of_memory"):
        say(f"  warning: {too_large} versions alone are too long for this device's memory, and have no scores")


def _share_above_one(table: pa.Table) -> float | None:
    """Return the share of scored versions with IFD > 1, or None where nothing was scored."""
    higher = pc.greater(table["loss_y_given_x"], table["loss_y"]).drop_null()
    return float(pc.mean(higher).as_py()) if len(higher) else None
