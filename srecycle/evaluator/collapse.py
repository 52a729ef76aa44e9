"""Whether what the student writes becomes narrower: the diversity of sampled outputs, and whether its rare words last.

In: held-out prompts, with the answers that their source has (the reference). Out: `outputs.parquet`, one sampled output
a prompt, and figures over all of them, on token ids of the student's own tokenizer:

- `distinct/N`: different n-grams as a share of all (Li et al. 2016, arXiv:1510.03055). It falls with the amount of
  text, so only equal settings compare.
- `repeated`: the share of an output's 4-grams that it had already (Welleck et al. 2020, seq-rep-4, arXiv:1908.04319).
- `tail_tokens` and `tail_bigrams`: the share of the reference's rare types that occur in the outputs. Collapse begins
  there (Shumailov et al. 2024, arXiv:2305.17493). Rare are the types of the lowest counts, as many counts as it takes
  for them to make up `tail_share` of the reference's running text; types of one count are in or out together.

Outputs are generated as all answers are (srecycle.evaluator.answers): batches, order and kills decide nothing.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from srecycle.config import component, runtime
from srecycle.data import Data
from srecycle.evaluator.answers import Answer, Answers, read
from srecycle.evaluator.base import Evaluator, Subject
from srecycle.evaluator.drift import held_out
from srecycle.progress import say
from srecycle.rows import OK
from srecycle.stage import Metrics, Work, materialize
from srecycle.student.encoding import token_ids

Ids = tuple[int, ...]
REPEATED = 4

OUTPUT_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), False),
        pa.field("instruction", pa.string(), False),
        pa.field("reference", pa.string(), False),
        pa.field("output", pa.string(), False),
        pa.field("finish_reason", pa.string(), False),
    ]
)


@component
class Collapse(Evaluator):
    """Samples one output for each of `rows` prompts, of at most `max_new_tokens` tokens.

    Prompts are drawn with `seed` from `held_out`, as for the evaluator `drift`; so are the outputs. `batch_tokens` is
    how many tokens a batch may hold at its end.
    """

    held_out: Data | None = None
    rows: Annotated[int, Field(ge=2)] = 200
    seed: int = 0
    temperature: Annotated[float, Field(gt=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_new_tokens: Annotated[int, Field(ge=1)] = 256
    tail_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    batch_tokens: Annotated[int, Field(ge=1)] = runtime(32768)

    def check(self) -> None:
        """Raise UserError where the samples can't be had."""
        if self.held_out is not None:
            self.held_out.rows()

    def evaluate(self, subject: Subject, work: Work) -> Metrics:
        """Sample the outputs, and count what is in them."""
        drawn = held_out(subject, self.held_out, self.rows, self.seed)
        lines = [one for one in drawn if one["instruction"].strip() and one["response"].strip()]
        if not lines:
            say("  collapse: every row was trained on, so none is held out; give the evaluator samples (held_out)")
            return {"reason": "no_held_out_rows"}
        answers = self._answers(subject, lines, work)
        reasons = Counter(answer.status for answer in answers if answer.status != OK)
        counts = {f"unanswered/{reason}": count for reason, count in sorted(reasons.items())}
        used = [(line, answer) for line, answer in zip(lines, answers, strict=True) if answer.status == OK]
        if not used:
            return {"reason": "no_usable_held_out_rows", **counts}
        table = _table(used)
        work.write("outputs", table)
        tokenizer = subject.student.tokenizer()
        outputs, references = (
            token_ids(tokenizer, [text.strip() for text in table[name].to_pylist()], continuing=True, plain=True)
            for name in ("output", "reference")
        )
        return {
            "rows": len(used),
            **counts,
            "empty": sum(not ids for ids in outputs),
            "cut_share": sum(answer.finish_reason == "length" for _, answer in used) / len(used),
            **figures(outputs, references, self.tail_share),
        }

    def _answers(self, subject: Subject, lines: Sequence[Mapping[str, Any]], work: Work) -> list[Answer]:
        """Return one answer a line, in order; the store keeps them by the prompts' content."""
        prompts = work.scratch / "prompts.jsonl"
        _write(prompts, lines)
        stage = Answers(
            prompts=prompts,
            student=subject.student,
            template=subject.template,
            adapter=subject.adapter,
            model=subject.model,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            stop=(),
            batch_tokens=self.batch_tokens,
            engine=subject.engine,
        )
        return read(materialize(stage, work.store).artifact.table("answers"))


def _write(file: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    columns = ("instruction", "input", "history")
    asked = [json.dumps({name: line[name] for name in columns}) for line in lines]
    file.write_text("\n".join(asked) + "\n", encoding="utf-8")


def _table(used: Sequence[tuple[Mapping[str, Any], Answer]]) -> pa.Table:
    columns = {
        "id": [line["id"] for line, _ in used],
        "instruction": [line["instruction"] for line, _ in used],
        "reference": [line["response"] for line, _ in used],
        "output": [answer.text for _, answer in used],
        "finish_reason": [answer.finish_reason for _, answer in used],
    }
    return pa.table(columns, schema=OUTPUT_SCHEMA)


def figures(texts: Sequence[Ids], references: Sequence[Ids], tail_share: float) -> Metrics:
    """Return the figures of outputs, given as token ids; one that nothing can be said of is left out."""
    lengths = np.array([len(ids) for ids in texts], dtype=float)
    metrics: Metrics = _mean("length", lengths)
    for size in (1, 2, 3):
        if total := sum(1 for ids in texts for _ in ngrams(ids, size)):
            metrics[f"distinct/{size}"] = len({one for ids in texts for one in ngrams(ids, size)}) / total
    repeated = [
        1 - len(set(ngrams(ids, REPEATED))) / (len(ids) - REPEATED + 1) for ids in texts if len(ids) >= REPEATED
    ]
    if repeated:
        metrics |= _mean("repeated", np.array(repeated))
    for name, size in (("tail_tokens", 1), ("tail_bigrams", 2)):
        if rare := tail((one for ids in references for one in ngrams(ids, size)), tail_share):
            seen = {one for ids in texts for one in ngrams(ids, size)}
            metrics |= {f"{name}/coverage": len(rare & seen) / len(rare), f"{name}/types": len(rare)}
    return metrics


def ngrams(ids: Ids, size: int) -> Iterator[Ids]:
    """Yield the runs of so many tokens, in order."""
    return (ids[place : place + size] for place in range(len(ids) - size + 1))


def tail(running: Iterable[Ids], share: float) -> set[Ids]:
    """Return the types of the lowest counts: of as few counts as make up at least `share` of the running text."""
    counts = Counter(running)
    held, rare = 0, set[Ids]()
    for count in sorted(set(counts.values())):
        if held >= share * counts.total():
            break
        types = {one for one, times in counts.items() if times == count}
        rare |= types
        held += count * len(types)
    return rare


def _mean(name: str, values: "np.ndarray[Any, Any]") -> Metrics:
    error = {f"{name}/mean_stderr": float(values.std(ddof=1) / np.sqrt(len(values)))} if len(values) > 1 else {}
    return {f"{name}/mean": float(values.mean()), **error}
