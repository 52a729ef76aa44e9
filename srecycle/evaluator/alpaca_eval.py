"""AlpacaEval: how often a judge prefers this run's answers to a reference's (table 1 of arXiv:2402.10110).

In: the evaluation set (805 instructions), the subject's answers to it or `model_outputs` made elsewhere, and outputs of
a reference. A judge of ours is shown each pair once, in an order that the instruction decides; outputs that are equal
are a draw, as on the leaderboard, and asked about by nobody. Or `annotations` of just these outputs are read. Out: the
leaderboard's figures (srecycle.judge.annotations), under `v1/` or `v2/`: the two versions are never mixed.

Kept: `model_outputs.json` and `annotations.json`, as AlpacaEval's own tools have them, `answers.parquet` where answers
were generated, and `judgments.parquet` with every raw reply (a recording that judge=replay reads).

Version 2 adds the length-controlled win rate, by the package alpaca_eval. Its own judge weighs its two words by their
probabilities; ours reads the one that was written, so that preferences are 1 or 2 unless they come with `annotations`.

Identity: the content of every file, how answers are generated, the judge and the wording, the version.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final

import pyarrow as pa

from srecycle.config import InputPath, component
from srecycle.data.files import records
from srecycle.digest import file_digest
from srecycle.errors import UserError
from srecycle.evaluator.alpaca_eval_pairs import (
    PREFERENCE_SCHEMA,
    Compared,
    Output,
    annotated,
    by_place,
    chosen,
    line,
    pair,
)
from srecycle.evaluator.answers import Answering, read
from srecycle.evaluator.base import Subject
from srecycle.evaluator.one_set import OneSet
from srecycle.evaluator.prompts import Prompt, read_answers, read_prompts
from srecycle.evaluator.unwritten import unwritten
from srecycle.judge import Case, Judge, asking
from srecycle.judge.annotations import (
    Annotation,
    Version,
    by,
    figures,
    read_annotations,
    require_version,
    versions,
    versions_of,
)
from srecycle.judge.base import require_judged
from srecycle.judge.length_controlled import length_controlled, package_version, require_difficulty, require_package
from srecycle.judge.preference import PreferenceRequest, ask
from srecycle.judge.quote import quoted
from srecycle.progress import say
from srecycle.reflection.prompts import Wording
from srecycle.reflection.quote import Quote
from srecycle.stage import Metrics, Work
from srecycle.store import Store, write_json

_FILES: Final = ("reference_outputs", "model_outputs", "annotations", "difficulty")


@component
class AlpacaEval(Answering):
    """Compares answers to the prompts (one file) with `reference_outputs`, a file in AlpacaEval's format.

    `model_outputs` are model outputs that were generated elsewhere, instead of the subject's answers. `annotations` are
    preferences for these outputs that were made elsewhere, instead of a judge's; they hold the reference's outputs too.
    `generator` names the model in the files that are written. `difficulty` is version 2's df_gamed.csv.
    """

    revision: ClassVar[int] = 2

    prompts: OneSet
    version: Version
    judge: Judge
    system: Wording
    request: PreferenceRequest
    reference_outputs: InputPath | None = None
    model_outputs: InputPath | None = None
    annotations: InputPath | None = None
    difficulty: InputPath | None = None
    generator: str = "srecycle"

    def __post_init__(self) -> None:
        """Refuse settings that would go unused. Raises ValueError."""
        if self.reference_outputs and self.annotations:
            raise ValueError(
                "annotations hold the outputs of a reference: set annotations or reference_outputs, not both"
            )
        if self.difficulty and self.version == 1:
            raise ValueError("difficulty is for the length-controlled win rate of version=2: leave it out, or set that")

    def resolved(self) -> Mapping[str, Any]:
        """Files stand as their content; what isn't asked for stands as null; version 2 names the package's version."""
        files = {name: getattr(self, name) for name in _FILES}
        found: dict[str, Any] = {name: path and file_digest(path) for name, path in files.items()}
        if self.annotations:
            found |= {"judge": None, "system": None, "request": None}
        if self.version == 2:
            found["alpaca_eval"] = package_version()
        return {**super().resolved(), **found}

    def check(self) -> None:
        """Raise UserError where a file is missing, of another version, or about other instructions; or the package."""
        prompts = self.questions()
        if not self.annotations:
            self.judge.check()
            if self.reference_outputs is None:
                raise UserError(
                    "reference_outputs=null: give the reference's outputs (or annotations), a file of AlpacaEval's"
                )
        self._compared(prompts, self._given(prompts))
        if self.version == 2:
            require_package()
            if self.difficulty is None:
                raise UserError(
                    "difficulty=null: version=2 needs df_gamed.csv of the data set tatsu-lab/alpaca_eval, by its path"
                )
            require_difficulty(self.difficulty, len(prompts))

    def questions(self) -> list[Prompt]:
        """Return the evaluation set. Raises UserError where it can't be read, or asks several turns."""
        (path,) = self.prompts.values()
        found = read_prompts(path, self.category)
        if any(len(one.turns) > 1 for one in found):
            raise UserError(f"{path} has prompts of several turns: AlpacaEval's instructions have one")
        return found

    def evaluate(self, subject: Subject, work: Work) -> Metrics:
        """Answer, have the pairs judged or read annotations, and count. Paid replies stand in the ledger first."""
        prompts = self.questions()
        given = self._given(prompts)
        outputs = self._generated(subject, work) if given is None else given
        compared = self._compared(prompts, outputs)
        if not self.annotations:
            compared = self._judged(compared, work)
            known = [one.annotation for one in compared if one.reply or one.annotation.preference is not None]
            require_judged([one.status for one in known], "pairs")
        annotations = [one.annotation for one in compared]
        write_json(work.folder / "model_outputs.json", [self._model_output(one) for one in compared if one.answered])
        write_json(work.folder / "annotations.json", [one.line for one in annotations])
        work.write("judgments", pa.Table.from_pylist([line(one) for one in compared], schema=PREFERENCE_SCHEMA))
        metrics = self._metrics(annotations)
        metrics |= {f"v{self.version}/{name}": value for name, value in by_place(compared).items()}
        _tell(self.version, metrics)
        return metrics

    def quote(self, subject: Subject | None, store: Store | None) -> Quote | None:
        """Return what judging would cost; answers that are not generated yet are taken to be of a usual length."""
        if self.annotations:
            return None
        prompts = self.questions()
        given = self._given(prompts)
        known = next(iter(self.known(subject, store).values())) if given is None else None
        answers = read(known.table("answers")) if known else unwritten(prompts)
        outputs = {one.id: Output(text=one.text, status=one.status) for one in answers} if given is None else given
        cases = self._cases(self._compared(prompts, outputs))
        return quoted(self.judge, cases, store, estimated=0 if given is not None or known else len(cases))

    def _given(self, prompts: Sequence[Prompt]) -> dict[str, Output] | None:
        """Return the outputs that were made elsewhere, by prompt; None where they are the subject's to make."""
        if self.model_outputs is None:
            return None
        known = read_answers(self.model_outputs)
        found = {one.id: Output(text=known[one.id]) for one in prompts if one.id in known}
        if not found:
            raise UserError(
                f"model_outputs={self.model_outputs} has none for these prompts: they are found by their instruction"
            )
        return found

    def _generated(self, subject: Subject, work: Work) -> dict[str, Output]:
        (answers,) = self.answered(subject, work).values()
        return {one.id: Output(text=one.text, status=one.status) for one in answers}

    def _compared(self, prompts: Sequence[Prompt], outputs: Mapping[str, Output] | None) -> list[Compared]:
        """Return the instructions in order, with what can be said of these outputs (None: not there yet) unasked."""
        some = outputs or {}
        if not self.annotations:
            known, name = self._references
            if not any(one.id in known for one in prompts):
                raise UserError(
                    f"{self.reference_outputs} has no outputs for these prompts: they are found by their instruction"
                )
            return [pair(one, some.get(one.id), known.get(one.id), name, self._name) for one in prompts]
        recorded = self._recorded
        found = [annotated(one, some.get(one.id), recorded, self._name) for one in prompts]
        if outputs is not None and not any(one.annotation.preference is not None for one in found):
            reasons = ", ".join(sorted({one.annotation.status for one in found}))
            raise UserError(
                f"{self.annotations} has a preference for none of these {len(prompts)} outputs ({reasons}): they must "
                "be the outputs that were annotated; model_outputs=FILE takes those in place of the student's answers"
            )
        return found

    @cached_property
    def _references(self) -> tuple[dict[str, str], str]:
        """The reference's outputs by prompt, and its name."""
        assert self.reference_outputs is not None
        name = _generator(self.reference_outputs) or self.reference_outputs.stem
        require_version(self.version, versions([name]), str(self.reference_outputs))
        return read_answers(self.reference_outputs), name

    @cached_property
    def _recorded(self) -> dict[str, list[Annotation]]:
        """The annotations by instruction."""
        assert self.annotations is not None
        found: dict[str, list[Annotation]] = {}
        known = read_annotations(self.annotations)
        require_version(self.version, versions_of(known), str(self.annotations))
        for one in known:
            found.setdefault(one.instruction.strip(), []).append(one)
        return found

    @cached_property
    def _name(self) -> str:
        return (self.model_outputs and _generator(self.model_outputs)) or self.generator

    def _cases(self, compared: Sequence[Compared]) -> list[Case]:
        return [self._case(one) for one in compared if one.asked]

    def _case(self, one: Compared) -> Case:
        first, second = one.shown
        texts = {"instruction": one.annotation.instruction, "output_1": first, "output_2": second}
        return Case(
            id=one.prompt.id,
            position=one.prompt.position,
            question=one.annotation.instruction,
            answers=one.shown,
            messages=ask(self.system, self.request, texts),
        )

    def _judged(self, compared: Sequence[Compared], work: Work) -> list[Compared]:
        """Ask the judge about the pairs that need it."""
        with asking(self.judge, work) as ask_judge:
            replies = iter(ask_judge(self._cases(compared), f"judging AlpacaEval {self.version}"))
        return [chosen(one, next(replies)) if one.asked else one for one in compared]

    def _model_output(self, one: Compared) -> dict[str, str]:
        output = {"instruction": one.annotation.instruction, "output": one.annotation.output_2}
        return {**output, "generator": one.annotation.generator_2}

    def _metrics(self, annotations: Sequence[Annotation]) -> Metrics:
        metrics = figures(annotations)
        if self.version == 2 and self.difficulty and metrics["judged"]:
            metrics |= length_controlled(annotations, self.difficulty)
        for category, found in by(annotations).items():
            metrics |= {f"{category}/{name}": value for name, value in found.items()}
        return {f"v{self.version}/{name}": value for name, value in metrics.items()}


def _generator(path: Path) -> str:
    """Return the one generator that a file of outputs names, or "". Raises UserError where there are several."""
    found = sorted({str(record["generator"]) for record in records(path) if record.get("generator")})
    if len(found) > 1:
        raise UserError(f"{path} has outputs of several models ({', '.join(found[:3])}): give one model's")
    return found[0] if found else ""


def _tell(version: Version, metrics: Metrics) -> None:
    """Say how it came out, and what has no preference."""
    found = {name.removeprefix(f"v{version}/"): value for name, value in metrics.items()}
    rate = f", win rate {found['win_rate']:.2f}" if "win_rate" in found else ""
    left = {name.removeprefix("unjudged/"): count for name, count in found.items() if name.startswith("unjudged/")}
    without = f"; not judged: {', '.join(f'{count} {why}' for why, count in left.items())}" if left else ""
    counts = f"{found['wins']} wins, {found['draws']} draws, {found['losses']} losses"
    say(f"  AlpacaEval {version}: {counts} of {found['judged']} judged and {found['asked']} asked{rate}{without}")
