"""AlpacaEval: how often a judge prefers this run's answers to a reference's (table 1 of arXiv:2402.10110).

In: the evaluation set (805 instructions), the subject's answers to it or `model_outputs` made elsewhere, and outputs of
a reference. A judge of ours is shown each pair once, in an order that the instruction decides; outputs that are equal
are a draw, as on the leaderboard, and asked about by nobody. Or `annotations` of just these outputs are read. Out: the
leaderboard's figures (srecycle.judge.annotations), under `v1/` or `v2/`: the two versions are never mixed.

Kept: `model_outputs.json` and `annotations.json`, as AlpacaEval's own tools have them, and the tables of judgments.

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
from srecycle.data.files import digest_of, records
from srecycle.errors import UserError
from srecycle.evaluator.alpaca_eval_pairs import Compared, Output, annotated, by_place, chosen, line, pair
from srecycle.evaluator.answers import Answer
from srecycle.evaluator.base import Subject
from srecycle.evaluator.judging import ASKED, NUMBER, REPLY, TEXT, Again, Judging, named
from srecycle.evaluator.one_set import OneSet
from srecycle.evaluator.prompts import Prompt, read_answers
from srecycle.judge import Case
from srecycle.judge.annotations import (
    Annotation,
    Version,
    figures,
    read_annotations,
    require_version,
    versions,
    versions_of,
)
from srecycle.judge.length_controlled import length_controlled, package_version, require_difficulty, require_package
from srecycle.judge.preference import PreferenceRequest, ask
from srecycle.reflection.quote import Quote
from srecycle.stage import Metrics, Work
from srecycle.store import Artifact, Store, write_json
from srecycle.teacher import Reply

_FILES: Final = ("reference_outputs", "model_outputs", "annotations", "difficulty")


@component
class AlpacaEval(Judging[Compared]):
    """Compares answers to the prompts (one file) with `reference_outputs`, a file in AlpacaEval's format.

    `model_outputs` are model outputs that were generated elsewhere, instead of the subject's answers. `annotations` are
    preferences for these outputs that were made elsewhere, instead of a judge's; they hold the reference's outputs too.
    `generator` names the model in the files that are written. `difficulty` is version 2's df_gamed.csv.
    """

    revision: ClassVar[int] = 3

    prompts: OneSet
    version: Version
    request: PreferenceRequest
    reference_outputs: InputPath | None = None
    model_outputs: InputPath | None = None
    annotations: InputPath | None = None
    difficulty: InputPath | None = None
    generator: str = "srecycle"

    what: ClassVar[str] = "pairs"
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            *ASKED,
            pa.field("preference", NUMBER),
            pa.field("status", TEXT, False),
            pa.field("own_first", pa.bool_(), False),
            *(pa.field(name, TEXT, False) for name in ("question", "answer_1", "answer_2")),
            *REPLY,
        ]
    )
    """A line for each instruction, answers in the order in which they were shown."""

    def __post_init__(self) -> None:
        """Refuse settings that would go unused. Raises ValueError."""
        if self.reference_outputs and self.annotations:
            raise ValueError(
                "annotations hold the outputs of a reference: set annotations or reference_outputs, not both"
            )
        if self.probes and self.annotations:
            raise ValueError("probes ask a judge again, and annotations were made elsewhere: leave one of them out")
        if self.difficulty and self.version == 1:
            raise ValueError("difficulty is for the length-controlled win rate of version=2: leave it out, or set that")

    def resolved(self) -> Mapping[str, Any]:
        """Files stand as their content; what isn't asked for stands as null; version 2 names the package's version."""
        files = {name: getattr(self, name) for name in _FILES}
        found: dict[str, Any] = {name: path and digest_of(path, name) for name, path in files.items()}
        if self.annotations:
            found |= {"judge": None, "system": None, "request": None}
        if self.version == 2:
            found["alpaca_eval"] = package_version()
        return {**super().resolved(), **found}

    def check(self) -> None:
        """Raise UserError where a file is missing, of another version, or about other instructions; or the package."""
        (prompts,) = self.questions().values()
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

    def answered(self, subject: Subject, work: Work) -> dict[str, list[Answer]]:
        """Return the subject's answers; none where they were made elsewhere."""
        return {} if self.model_outputs else super().answered(subject, work)

    def known(self, subject: Subject | None, store: Store | None) -> dict[str, Artifact | None]:
        """Return whether the store has the answers; nothing where they were made elsewhere."""
        return {} if self.model_outputs else super().known(subject, store)

    def items(self, answers: Mapping[str, Sequence[Answer]]) -> dict[str, list[Compared]]:
        """Return the pairs: the reference's outputs and these answers, or those that were made elsewhere."""
        ((name, prompts),) = self.questions().items()
        outputs = self._given(prompts)
        if outputs is None:
            outputs = {one.id: Output(text=one.text, status=one.status) for one in answers[name]}
        return {name: self._compared(prompts, outputs)}

    def quote(self, subject: Subject | None, store: Store | None) -> Quote | None:
        """Return what judging would cost; nothing where annotations are read."""
        return None if self.annotations else super().quote(subject, store)

    def _given(self, prompts: Sequence[Prompt]) -> dict[str, Output] | None:
        """Return the outputs that were made elsewhere, by prompt; None where they are the subject's to make."""
        if self.model_outputs is None:
            return None
        known = read_answers(self.model_outputs, "model_outputs")
        found = {one.id: Output(text=known[one.id]) for one in prompts if one.id in known}
        if not found:
            raise UserError(
                f"model_outputs={self.model_outputs} has none for these prompts: they are found by their instruction"
            )
        return found

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
        name = _generator(self.reference_outputs, "reference_outputs") or self.reference_outputs.stem
        require_version(self.version, versions([name]), str(self.reference_outputs))
        return read_answers(self.reference_outputs, "reference_outputs"), name

    @cached_property
    def _recorded(self) -> dict[str, list[Annotation]]:
        """The annotations by instruction."""
        assert self.annotations is not None
        found: dict[str, list[Annotation]] = {}
        known = read_annotations(self.annotations, "annotations")
        require_version(self.version, versions_of(known), str(self.annotations))
        for one in known:
            found.setdefault(one.instruction.strip(), []).append(one)
        return found

    @cached_property
    def _name(self) -> str:
        return (self.model_outputs and _generator(self.model_outputs, "model_outputs")) or self.generator

    def cases(self, one: Compared) -> list[Case]:
        """Return the pair's one judgment."""
        first, second = one.shown
        texts = {"instruction": one.annotation.instruction, "output_1": first, "output_2": second}
        return [
            Case(
                id=one.prompt.id,
                position=one.prompt.position,
                question=one.annotation.instruction,
                answers=one.shown,
                messages=ask(self.system, self.request, texts),
            )
        ]

    def read_replies(self, one: Compared, asked: Sequence[Case], replies: Sequence[Reply]) -> Compared:
        """Return the pair with what is preferred."""
        (reply,) = replies
        return chosen(one, reply)

    def lines(self, name: str, one: Compared) -> list[Mapping[str, Any]]:
        """Return the instruction's line."""
        return [line(one)]

    def keep(
        self, judged: Mapping[str, Sequence[Compared]], again: Mapping[str, Sequence[Again[Compared]]], work: Work
    ) -> None:
        """Write AlpacaEval's own files, and the tables of the judgments."""
        (some,) = judged.values()
        write_json(work.folder / "model_outputs.json", [self._model_output(one) for one in some if one.answered])
        write_json(work.folder / "annotations.json", [one.annotation.line for one in some])
        super().keep(judged, again, work)

    def _model_output(self, one: Compared) -> dict[str, str]:
        output = {"instruction": one.annotation.instruction, "output": one.annotation.output_2}
        return {**output, "generator": one.annotation.generator_2}

    def figures(self, some: Sequence[Compared]) -> Metrics:
        """Return the leaderboard's figures."""
        return figures([one.annotation for one in some])

    def heading(self, name: str) -> str:
        """Return the version, which all metrics begin with."""
        return f"v{self.version}"

    def title(self, name: str) -> str:
        """Return the benchmark's name and version: there is one set."""
        return f"AlpacaEval {self.version}"

    def summary(self, found: Metrics) -> str:
        """Return the preferences and the win rate."""
        counts = f"{found['wins']} wins, {found['draws']} draws, {found['losses']} losses"
        return f"{counts}, win rate {found['win_rate']:.2f}"

    def metrics(
        self, judged: Mapping[str, Sequence[Compared]], again: Mapping[str, Sequence[Again[Compared]]]
    ) -> Metrics:
        """Return the leaderboard's figures, also by category, the probes', and how the order counted."""
        ((name, some),) = judged.items()
        found = super().metrics(judged, again) | named(self.heading(name), by_place(some))
        if self.version == 2 and self.difficulty and found["v2/judged"]:
            controlled = length_controlled([one.annotation for one in some], self.difficulty)
            found |= named(self.heading(name), controlled)
        return found


def _generator(path: Path, setting: str) -> str:
    """Return the one generator that a file of outputs names, or "". Raises UserError where there are several."""
    found = sorted({str(record["generator"]) for record in records(path, setting) if record.get("generator")})
    if len(found) > 1:
        raise UserError(f"{path} has outputs of several models ({', '.join(found[:3])}): give one model's")
    return found[0] if found else ""
