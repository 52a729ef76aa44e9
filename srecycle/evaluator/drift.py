"""How far training moved the student: divergence of its predictions on held-out samples, perplexity on plain text.

In: the student before and after. Out: for held-out prompts with their answers, KL(after || before) and KL(before ||
after) of the next-token distributions, per token of the answers (nats): mean and quantiles; and the answers' own mean
loss under both. `drift.parquet` has a line a sample. Where a plain text is given, its perplexity under both. Standard
errors take samples (windows of the text) as what was drawn, not tokens: those of one sample move together.

The means are those over all tokens. KL(after || before), the reverse divergence of what was learnt, is what policy
optimisation penalises (arXiv:2203.02155); the other direction weighs what the student knew before.
"""

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from srecycle.config import InputPath, component, identity, runtime
from srecycle.data import Data
from srecycle.digest import file_digest
from srecycle.errors import UserError
from srecycle.evaluator.base import Evaluator, Subject
from srecycle.progress import say
from srecycle.rows import ROW_SCHEMA, own_rows, to_table, trained_ids
from srecycle.stage import Metrics, Work
from srecycle.student import Student
from srecycle.student.encoding import Encoded, anchor_ids, token_ids
from srecycle.student.model import Loaded
from srecycle.trainer.base import training_set

if TYPE_CHECKING:
    from srecycle.student.divergence import Divergence, Divergences

Floats = npt.NDArray[np.float64]
QUANTILES = (50, 90, 99)
DIRECTIONS = ("kl_after_before", "kl_before_after")


@component
class Drift(Evaluator):
    """Compares the evaluated student with the one `before`: another student, or (null) the one that was trained.

    Held out are `rows` samples drawn with `seed` from `held_out`, a source like the experiment's own; where none is
    given, from its rows that were not kept for training. Those differ from arm to arm and round to round, as they are
    what its filters refuse: what is to be compared wants a source of its own. `text_path` is a file of plain text
    (UTF-8), read up to `text_tokens` tokens: as one text, or with `text_by_line` each line as a text of its own.
    """

    revision: ClassVar[int] = 3

    before: Student | None = None
    held_out: Data | None = None
    rows: Annotated[int, Field(ge=2)] = 200
    seed: int = 0
    text_path: InputPath | None = None
    text_by_line: bool = False
    text_tokens: Annotated[int, Field(ge=1)] = 20000
    batch_tokens: Annotated[int, Field(ge=1)] | None = runtime(None)

    def resolved(self) -> Mapping[str, Any]:
        """The text stands as its content."""
        return {"text_path": self.text_path and file_digest(self.text_path)}

    def check(self) -> None:
        """Raise UserError where a device, the samples or the text can't be had."""
        if self.before is not None:
            self.before.check()
        if self.held_out is not None:
            self.held_out.rows()
        self._text()

    def evaluate(self, subject: Subject, work: Work) -> Metrics:
        """Measure the divergences and, where there is a text, perplexities."""
        from srecycle.student.divergence import Divergences  # imports torch, which planning must not

        loaded = subject.load()
        divergences = Divergences(loaded, self._before(subject), self.batch_tokens)
        metrics = self._on_samples(subject, loaded, divergences, work)
        if self.text_path is not None:
            texts = self._text().splitlines() if self.text_by_line else [self._text()]
            metrics |= _on_text(divergences.of(windows(loaded, texts, self.text_tokens)))
        return metrics

    def _before(self, subject: Subject) -> Loaded | None:
        """Return the second model to compare with; None where the evaluated one is it, with its adapter disabled."""
        before = self.before or subject.student
        disabling = subject.model is None and identity(before) == identity(subject.student)
        return None if disabling else before.load()

    def _on_samples(self, subject: Subject, loaded: Loaded, divergences: "Divergences", work: Work) -> Metrics:
        lines = held_out(subject, self.held_out, self.rows, self.seed)
        if not lines:
            say("  drift: every row was trained on, so none is held out; give the evaluator samples (held_out)")
            return {"reason": "no_held_out_rows"}
        data = training_set(loaded, subject.template, lines)
        used = [line for line in lines if line["id"] not in data.refused]
        counts = {
            "rows": len(used),
            "refused": len(data.refused),
            "target_tokens": sum(one.target_tokens for one in data.sequences),
        }
        if not counts["target_tokens"]:
            return {"reason": "no_usable_held_out_rows", **counts}
        found = divergences.of(data.sequences)
        work.write("drift", _table(used, found))
        metrics: Metrics = counts
        for name in DIRECTIONS:
            metrics |= {f"{name}/{key}": value for key, value in summary([getattr(one, name) for one in found]).items()}
        for when, losses in _losses(found).items():
            metrics |= _with_error(f"loss/{when}", float(np.concatenate(losses).mean()), ratio_error(losses))
        return metrics

    def _text(self) -> str:
        if self.text_path is None:
            return ""
        try:
            text = self.text_path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"evaluator text_path={self.text_path} is no readable UTF-8 text: {error}") from error
        if not text.strip():
            raise UserError(f"evaluator text_path={self.text_path} is empty: give a file of plain text")
        return text


def held_out(subject: Subject, data: Data | None, rows: int, seed: int) -> list[dict[str, Any]]:
    """Return up to so many samples of a source, or of the subject's rows that were not trained on, in their order.

    A subject without training was trained on none.
    """
    table = subject.training if data is None else to_table(data.rows(), ROW_SCHEMA)
    if data is None and subject.is_trained:
        seen = pa.array(sorted(trained_ids(table)), type=pa.string())
        table = own_rows(table)
        table = table.filter(pc.invert(pc.is_in(table["id"], value_set=seen)))
    lines: list[dict[str, Any]] = table.to_pylist()
    if len(lines) > rows:
        lines = [lines[place] for place in sorted(random.Random(seed).sample(range(len(lines)), rows))]
    return lines


def windows(loaded: Loaded, texts: Sequence[str], most: int) -> list[Encoded]:
    """Cut the first `most` tokens of texts into sequences, each after its anchor alone and as long as can be."""
    anchor = anchor_ids(loaded.tokenizer)
    width = loaded.max_length - len(anchor)
    found, left = list[Encoded](), most
    for ids in token_ids(loaded.tokenizer, texts, plain=True):
        read, left = ids[:left], left - len(ids[:left])
        for place in range(0, len(read), width):
            found.append(Encoded(ids=(*anchor, *read[place : place + width]), target_start=len(anchor)))
    return [one for one in found if one.target_tokens]


def summary(values: Sequence[Floats]) -> dict[str, float]:
    """Return the mean over all tokens, its standard error, and quantiles; `values` are one array a sample."""
    tokens = np.concatenate(values)
    mean = float(tokens.mean())
    told = {"mean": mean}
    if (error := ratio_error(values)) is not None:
        told["mean_stderr"] = error
    return told | {f"p{share}": float(np.percentile(tokens, share)) for share in QUANTILES}


def ratio_error(values: Sequence[Floats]) -> float | None:
    """Return the standard error of the mean over all tokens, samples being what is drawn; None for a single sample.

    The mean is a ratio of two sums over samples, whose error is taken by linearisation (Cochran, Sampling Techniques,
    chapter 6).
    """
    used = [one for one in values if len(one)]
    if len(used) < 2:
        return None
    sums, counts = np.array([one.sum() for one in used]), np.array([len(one) for one in used])
    residues = sums - counts * (sums.sum() / counts.sum())
    return float(np.sqrt(len(used) / (len(used) - 1) * (residues**2).sum()) / counts.sum())


def _on_text(found: "Sequence[Divergence]") -> Metrics:
    """Return perplexities; the standard error of a perplexity is its own times that of the mean loss."""
    metrics: Metrics = {"text/tokens": sum(len(one.loss_after) for one in found)}
    for when, losses in _losses(found).items():
        perplexity, error = float(np.exp(np.concatenate(losses).mean())), ratio_error(losses)
        metrics |= _with_error(f"perplexity/{when}", perplexity, None if error is None else perplexity * error)
    return metrics


def _losses(found: "Sequence[Divergence]") -> dict[str, list[Floats]]:
    return {"before": [one.loss_before for one in found], "after": [one.loss_after for one in found]}


def _with_error(name: str, value: float, error: float | None) -> Metrics:
    return {name: value} | ({} if error is None else {f"{name}_stderr": error})


def _table(lines: Sequence[Mapping[str, Any]], found: "Sequence[Divergence]") -> pa.Table:
    names = (*DIRECTIONS, "loss_before", "loss_after")
    columns = {name: [float(getattr(one, name).mean()) for one in found] for name in names}
    ids, tokens = [line["id"] for line in lines], [len(one.loss_after) for one in found]
    return pa.table({"id": ids, "target_tokens": tokens, **columns})
