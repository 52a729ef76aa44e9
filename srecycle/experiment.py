"""The experiment: a frozen tree of components, and the plan that the paper's algorithm becomes. Read this file first.

Selective Reflection-Tuning (arXiv:2402.10110, section 3), for every row (x0, y0):

1. the teacher reflects on the instruction and writes (x_ins, y_ins);
2. the student takes the pair with the higher IFD: it selects by difficulty;
3. the teacher reflects on the response and writes y_res;
4. the student takes the pair with the lower r-IFD: it selects by feasibility;
5. of these, the pairs with IFD < 1, r-IFD < 1 and a reflected response are kept;
6. the student is fine-tuned on them, and evaluated.

With `teacher.samples` above 1 the teacher writes that often in steps 1 and 3, and in steps 2 and 4 the best of its
pairs stands against the one that the student has.

Selectors, keep filters, teacher, student, trainer and evaluators are all parts to be exchanged. Constructing an
experiment or its plan does no work and loads no model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from srecycle.assemble import Assemble, Assembly
from srecycle.config import Component, component, runtime
from srecycle.data import Data, Source
from srecycle.embedder import Embedder, Embeddings
from srecycle.engine import Engine
from srecycle.errors import UserError
from srecycle.evaluator import Evaluate, Evaluator
from srecycle.keep import Keep
from srecycle.keep.base import EMBEDDING
from srecycle.reflection import Reflect, Reflection
from srecycle.rows import PHASES, Phase
from srecycle.scorer import LIKELIHOODS, SCORES, Scorer
from srecycle.selector import Score, Select, Selector
from srecycle.selector.base import COHERENCE
from srecycle.stage import Stage
from srecycle.student import Likelihoods, Student, Template
from srecycle.teacher import Teacher
from srecycle.tracker import Tracker
from srecycle.trainer import Train, Trainer
from srecycle.trainer.preferences import Preferences

Plan = dict[str, Stage]


@component
class Experiment(Component):
    """One experiment. Every field is a folder of conf/; `name` and `group` label its runs.

    `scoring_template` is the format that the student is asked in where that is not `template`, in which it is trained.
    `until` ends the plan with the stage of that name (`scores`, `assemble`, `train`, ...), and wants everything there.
    With `rounds` above 1 all of it is done that often, each round beginning with the student that the last one trained.
    """

    data: Data
    reflection: Reflection
    teacher: Teacher
    student: Student
    template: Template
    scorer: Scorer
    selector: Annotated[dict[Phase, Selector], Field(min_length=len(PHASES))]
    embedder: Embedder
    keep: Annotated[dict[str, Keep], Field(min_length=1)]
    assemble: Assembly
    trainer: Trainer
    evaluator: Annotated[dict[str, Evaluator], Field(min_length=1)]
    engine: Engine = runtime()
    scoring_template: Template | None = None
    tracker: Tracker = runtime()
    store: Path = runtime()
    until: str = runtime("")
    rounds: Annotated[int, Field(ge=1)] = 1
    name: str = runtime("experiment")
    group: str = runtime("")

    def plan(self) -> Plan:
        """Return the stages by name, each after the ones that it reads.

        Raises UserError where `until` names none, and where several samples would multiply (scope=all).
        """
        plan = self._plan_all() if self.reflection.scope == "all" else self._plan_chosen()
        if not self.until:
            return plan
        if self.until not in plan:
            known = list(replace(self, until="scores").plan()) if self.until != "scores" else []
            told = ", ".join(dict.fromkeys([*known, *plan]))
            raise UserError(f"until={self.until} is no stage of this experiment, which has: {told}")
        names = list(plan)
        return {name: plan[name] for name in names[: names.index(self.until) + 1]}

    def in_round(self, trained: Sequence[Path]) -> "Experiment":
        """Return the round that follows those whose trainings' artifacts are given: the same, from a later student.

        A teacher that is the student becomes that later one too; students that evaluators compare with stay. Raises
        UserError where a round would train nothing, or can't train what the one before it made.
        """
        if self.rounds == 1:
            return self
        if not self.trainer.trains or "train" not in self.plan():
            raise UserError(
                f"rounds={self.rounds} wants a student trained in each: choose a trainer, and no until before it"
            )
        if not self.trainer.trains_merged:
            raise UserError(
                f"rounds={self.rounds} merges each round's adapter into the student, and this trainer can't train one "
                "with an adapter merged: use trainer=lora, or rounds=1"
            )
        student = reduce(Student.trained, trained, self.student)
        return replace(
            self,
            student=student,
            teacher=_following(self.teacher, self.student, student),
            name=f"{self.name} round {len(trained) + 1}",
            group=self.group or self.name,
        )

    def _plan_all(self) -> Plan:
        """Reflect on everything and score it once, so that selecting again costs neither a call nor a forward pass."""
        plan: Plan = {"source": (rows := Source(data=self.data))}
        known = _Known(rows=rows)
        if any(self.selector[phase].takes_challengers for phase in PHASES):
            if (samples := self.teacher.samples) > 1:
                raise UserError(
                    f"teacher.samples={samples} would need {samples} answers to each of {samples} new instructions "
                    "with reflection.scope=all: set reflection.scope=chosen, which answers the one that is chosen"
                )
            plan["reflect_instruction"] = on_instruction = self._reflect("instruction", rows)
            plan["reflect_response"] = on_response = self._reflect("response", rows, instructions=on_instruction)
            known = replace(known, reflections=(on_instruction, on_response))
        plan |= (measured := self._measure(rows, known.reflections))
        known = known.also(measured)
        if known.likelihoods:
            plan["scores"] = self._score(known)
        plan["select_instruction"] = first = self._select("instruction", known)
        plan["select_response"] = second = self._select("response", known, before=first)
        return plan | self._train_and_evaluate(known, first, second)

    def _plan_chosen(self) -> Plan:
        """Follow the paper's order: reflect only on the response of the pair that the student chose."""
        plan: Plan = {"source": (rows := Source(data=self.data))}
        known = _Known(rows=rows)
        on_instruction = None
        if self.selector["instruction"].takes_challengers:
            plan["reflect_instruction"] = on_instruction = self._reflect("instruction", rows)
            known = replace(known, reflections=(on_instruction,))
        plan |= (measured := self._measure(rows, known.reflections))
        known = known.also(measured)
        plan["select_instruction"] = first = self._select("instruction", known)
        if self.selector["response"].takes_challengers:
            on_response = self._reflect("response", rows, instructions=on_instruction, chosen=first)
            plan["reflect_response"] = on_response
            known = replace(known, reflections=(*known.reflections, on_response))
            measured = self._measure(None, (on_response,))
            plan |= {f"{name}_response": stage for name, stage in measured.items()}
            known = known.also(measured)
        if known.likelihoods:
            plan["scores"] = self._score(known)
        plan["select_response"] = second = self._select("response", known, before=first)
        return plan | self._train_and_evaluate(known, first, second)

    def _reflect(
        self, phase: Phase, rows: Source, *, instructions: Reflect | None = None, chosen: Select | None = None
    ) -> Reflect:
        return Reflect(
            phase=phase,
            rows=rows,
            instructions=instructions,
            chosen=chosen,
            teacher=self.teacher,
            reflection=self.reflection,
            engine=self.engine,
        )

    def _measure(self, rows: Source | None, reflections: tuple[Reflect, ...]) -> Plan:
        """Let the student read versions, as far as a selector, a filter, the trainer or `until` wants it."""
        needed = self._needed
        measured: Plan = {}
        if needed & {*SCORES, *LIKELIHOODS} or self.until in ("likelihoods", "scores"):
            measured["likelihoods"] = Likelihoods(
                rows=rows,
                reflections=reflections,
                student=self.student,
                template=self.scoring_template or self.template,
                trained_in=self.template if self.scoring_template not in (None, self.template) else None,
                scorer=self.scorer,
                engine=self.engine,
            )
        if needed & _EMBEDDED or self.until == "embeddings":
            measured["embeddings"] = Embeddings(
                rows=rows,
                reflections=reflections,
                embedder=self.embedder,
                student=self.student if self.embedder.uses_student else None,
                engine=self.engine,
            )
        return measured

    def _score(self, known: "_Known") -> Score:
        return Score(rows=known.rows, reflections=known.reflections, likelihoods=known.likelihoods)

    def _select(self, phase: Phase, known: "_Known", before: Select | None = None) -> Select:
        selector = self.selector[phase]
        return Select(
            phase=phase,
            rows=known.rows,
            reflections=known.reflections,
            likelihoods=known.likelihoods if {*selector.needed} & {*SCORES, *LIKELIHOODS} else (),
            embeddings=known.embeddings if {*selector.needed} & _EMBEDDED else (),
            before=before,
            selector=selector,
        )

    def _train_and_evaluate(self, known: "_Known", first: Select, decisions: Select) -> Plan:
        extra = Source(data=self.assemble.extra) if self.assemble.extra else None
        filters_need = {name for one in self.keep.values() for name in one.needed}
        training = Assemble(
            rows=known.rows,
            reflections=known.reflections,
            likelihoods=known.likelihoods,
            embeddings=known.embeddings if filters_need & _EMBEDDED else (),
            decisions=decisions,
            keep=self.keep,
            assembly=self.assemble,
            extra=extra,
        )
        preferences = None
        if self.trainer.which_pairs:
            preferences = Preferences(
                rows=known.rows,
                reflections=known.reflections,
                instruction=first,
                decisions=decisions,
                training=training,
            )
        trained = Train(
            training=training,
            trainer=self.trainer,
            student=self.student,
            template=self.template,
            preferences=preferences,
        )
        evaluations = {
            f"evaluate/{label}": Evaluate(
                label=label, evaluator=evaluator, trained=trained, training=training, engine=self.engine
            )
            for label, evaluator in self.evaluator.items()
        }
        mixed: Plan = {"extra": extra} if extra else {}
        paired: Plan = {"preferences": preferences} if preferences else {}
        return {**mixed, "assemble": training, **paired, "train": trained, **evaluations}

    @property
    def _needed(self) -> set[str]:
        """What the student has to tell of the versions."""
        selectors, filters = self.selector.values(), self.keep.values()
        found = {name for one in selectors for name in one.needed} | {name for one in filters for name in one.needed}
        return found | set(self.trainer.needs)


def _following(part: Any, before: Student, after: Student) -> Any:
    """Return a part in which `after` stands wherever a student of the weights of `before` stood."""
    if isinstance(part, Student):
        same = part.resolved() == before.resolved()
        return replace(part, **{name: getattr(after, name) for name in after.resolved()}) if same else part
    if isinstance(part, Mapping):
        return {name: _following(one, before, after) for name, one in part.items()}
    if not isinstance(part, Component):
        return part
    values = {one.name: getattr(part, one.name) for one in fields(part)}  # type: ignore[arg-type]
    changed = {name: new for name, one in values.items() if (new := _following(one, before, after)) != one}
    return replace(part, **changed) if changed else part  # type: ignore[type-var]


_EMBEDDED = {COHERENCE, EMBEDDING}


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What is there of the versions, as far as the plan has come."""

    rows: Source
    reflections: tuple[Reflect, ...] = ()
    likelihoods: tuple[Likelihoods, ...] = ()
    embeddings: tuple[Embeddings, ...] = ()

    def also(self, measured: Plan) -> "_Known":
        """Return this with more measurements."""
        stages = measured.values()
        return replace(
            self,
            likelihoods=(*self.likelihoods, *(one for one in stages if isinstance(one, Likelihoods))),
            embeddings=(*self.embeddings, *(one for one in stages if isinstance(one, Embeddings))),
        )
