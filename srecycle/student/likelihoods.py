"""The stage that asks the student how likely each version of each row is (sections 3.1 and 3.2 of the paper).

In: versions. Out: `likelihoods.parquet`, one line a usable version, in version order. Identity: the student, its
template, how the scorer reads, and the versions' keys; the batches' token budget is not.
"""

import math
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from srecycle.config import component, runtime
from srecycle.data import Source
from srecycle.engine import Engine
from srecycle.progress import say
from srecycle.reflection import Reflect
from srecycle.reflection.versions import version_table
from srecycle.rows import LIKELIHOOD_SCHEMA, OK, Likelihood, Turn, to_table
from srecycle.scorer import Scorer
from srecycle.stage import Metrics, Stage, Work
from srecycle.student.encoding import Encoded, anchor_ids, anchor_name, encode, token_ids
from srecycle.student.model import Loaded, Student
from srecycle.student.template import PromptTemplate

Line = dict[str, Any]


@component
class Likelihoods(Stage):
    """Computes L(y|x), L(y), L(x|y') and L(x) of every usable version of `rows` (where given) and `reflections`."""

    rows: Source | None = None
    reflections: tuple[Reflect, ...] = ()
    student: Student
    template: PromptTemplate
    scorer: Scorer
    engine: Engine = runtime()

    @property
    def name(self) -> str:
        """The stage's name."""
        return "likelihoods"

    def check(self) -> None:
        """Refuse to start on a device that isn't there."""
        self.student.check()

    def run(self, work: Work) -> Metrics:
        """Score all versions, a row's versions together."""
        versions = version_table(work, self.rows, self.reflections).to_pylist()
        rows = [list(lines) for _, lines in groupby(versions, key=itemgetter("id"))]
        loaded = self.student.load()
        started = time.monotonic()

        def score(shard: Sequence[Sequence[Line]]) -> pa.Table:
            usable = [line for lines in shard for line in lines if line["status"] == OK]
            return to_table(self.likelihoods(loaded, usable), LIKELIHOOD_SCHEMA)

        table = self.engine.map_shards(self.name, rows, score, work.scratch)
        work.write("likelihoods", table)
        seconds = time.monotonic() - started
        work.notes.update(batch_tokens=self.scorer.batch_tokens, rows_per_second=round(len(rows) / seconds, 2))
        above_one = _share_above_one(table)
        if above_one is not None and above_one > 0.5:
            say(
                f"  warning: IFD is above 1 for {above_one:.0%} of the versions: their instructions make responses "
                "less likely to this student; is template=NAME the format that it was trained on?"
            )
        statuses = Counter(table["status"].to_pylist())
        return {
            "versions": len(table),
            "ifd_above_one_share": above_one,
            "context_truncated": sum(table["context_truncated"].to_pylist()),
            "anchor": anchor_name(loaded.tokenizer),
            **{f"status/{status}": count for status, count in sorted(statuses.items())},
        }

    def likelihoods(self, loaded: Loaded, lines: Sequence[Line]) -> Iterable[Likelihood]:
        """Return the likelihoods of usable versions (with instruction, input, response and history), in order."""
        scored = [index for index, line in enumerate(lines) if _reason(line) is None]
        sequences = self._sequences(loaded, [lines[index] for index in scored])
        losses = iter(_mean_losses(loaded, sequences, self.scorer.batch_tokens))
        four = {index: tuple(next(losses) for _ in range(4)) for index in scored}
        encoded = {index: sequences[4 * place : 4 * place + 4] for place, index in enumerate(scored)}
        for index, line in enumerate(lines):
            yield _likelihood(line, _reason(line), four.get(index), encoded.get(index))

    def _sequences(self, loaded: Loaded, lines: Sequence[Line]) -> list[Encoded]:
        """Encode four sequences a line: y after x, y alone, x after y', x alone."""
        tokenizer = loaded.tokenizer
        template, anchor = self.template, anchor_ids(tokenizer)
        eos = (tokenizer.eos_token_id,) if self.scorer.score_eos and tokenizer.eos_token_id is not None else ()
        forward, backward, responses, instructions = (
            token_ids(tokenizer, texts)
            for texts in (
                [template.prompt(line["instruction"], line["input"], _turns(line)) for line in lines],
                [template.prompt(self.scorer.request(line["response"])) for line in lines],
                [template.completion(line["response"]) for line in lines],
                [template.completion(template.whole_instruction(line["instruction"], line["input"])) for line in lines],
            )
        )
        # Without an anchor L(y) can't say how likely y's first token is, so L(y|x) must not count it either.
        unpredicted = 0 if anchor else 1
        return [
            encode(anchor, context + target[:unpredicted], (*target[unpredicted:], *eos), loaded.max_length)
            for place in range(len(lines))
            for context, target in (
                (forward[place], responses[place]),
                ((), responses[place]),
                (backward[place], instructions[place]),
                ((), instructions[place]),
            )
        ]


def _share_above_one(table: pa.Table) -> float | None:
    """Return the share of scored versions with IFD > 1, or None where nothing was scored."""
    higher = pc.greater(table["loss_y_given_x"], table["loss_y"]).drop_null()
    return float(pc.mean(higher).as_py()) if len(higher) else None


def _mean_losses(loaded: Loaded, sequences: Sequence[Encoded], batch_tokens: int) -> list[float]:
    from srecycle.student.inference import mean_losses  # imports torch, which planning must not

    scorable = [sequence for sequence in sequences if sequence.target_tokens > 0]
    losses = iter(mean_losses(loaded, scorable, batch_tokens))
    return [next(losses) if sequence.target_tokens > 0 else math.nan for sequence in sequences]


def _reason(line: Line) -> str | None:
    if not line["response"].strip():
        return "empty_response"
    return "empty_instruction" if not line["instruction"].strip() else None


def _turns(line: Line) -> tuple[Turn, ...]:
    return tuple(Turn(**turn) for turn in line["history"])


def _likelihood(
    line: Line, reason: str | None, losses: tuple[float, ...] | None, sequences: Sequence[Encoded] | None
) -> Likelihood:
    tokens_y = sequences[0].target_tokens if sequences else 0
    tokens_x = sequences[2].target_tokens if sequences else 0
    if reason is None and (tokens_y == 0 or tokens_x == 0):
        reason = "too_short"
    elif reason is None and any(sequence.context_gone for sequence in sequences or ()):
        reason = "too_long"
    elif reason is None and (losses is None or not all(math.isfinite(loss) for loss in losses)):
        reason = "non_finite"
    usable = losses if reason is None and losses is not None else (None, None, None, None)
    return Likelihood(
        id=line["id"],
        version=line["version"],
        status=reason or OK,
        loss_y_given_x=usable[0],
        loss_y=usable[1],
        loss_x_given_y=usable[2],
        loss_x=usable[3],
        tokens_y=tokens_y,
        tokens_x=tokens_x,
        context_truncated=any(sequence.context_lost > 0 for sequence in sequences or ()),
    )
