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

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from srecycle.config import Component, component, runtime
from srecycle.data import Data, Source
from srecycle.engine import Engine
from srecycle.errors import UserError
from srecycle.evaluator import Evaluate, Evaluator
from srecycle.reflection import Reflect, Reflection
from srecycle.rows import PHASES, Phase
from srecycle.scorer import Scorer
from srecycle.selector import Assemble, Keep, Score, Select, Selector
from srecycle.stage import Stage
from srecycle.student import Likelihoods, Student, Template
from srecycle.teacher import Teacher
from srecycle.tracker import Tracker
from srecycle.trainer import Train, Trainer

Plan = dict[str, Stage]


@component
class Experiment(Component):
    """One experiment. Every field is a folder of conf/; `name` and `group` label its runs.

    `scoring_template` is the format that the student is asked in where that is not `template`, in which it is trained.
    `until` ends the plan with the stage of that name (`scores`, `assemble`, `train`, ...), and wants everything there.
    """

    data: Data
    reflection: Reflection
    teacher: Teacher
    student: Student
    template: Template
    scorer: Scorer
    selector: Annotated[dict[Phase, Selector], Field(min_length=len(PHASES))]
    keep: Annotated[dict[str, Keep], Field(min_length=1)]
    trainer: Trainer
    evaluator: Annotated[dict[str, Evaluator], Field(min_length=1)]
    engine: Engine = runtime()
    scoring_template: Template | None = None
    tracker: Tracker = runtime()
    store: Path = runtime()
    until: str = runtime("")
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

    def _plan_all(self) -> Plan:
        """Reflect on everything and score it once, so that selecting again costs neither a call nor a forward pass."""
        plan: Plan = {"source": (rows := Source(data=self.data))}
        reflections: tuple[Reflect, ...] = ()
        if any(self.selector[phase].takes_challengers for phase in PHASES):
            if (samples := self.teacher.samples) > 1:
                raise UserError(
                    f"teacher.samples={samples} would need {samples} answers to each of {samples} new instructions "
                    "with reflection.scope=all: set reflection.scope=chosen, which answers the one that is chosen"
                )
            plan["reflect_instruction"] = on_instruction = self._reflect("instruction", rows)
            plan["reflect_response"] = on_response = self._reflect("response", rows, instructions=on_instruction)
            reflections = (on_instruction, on_response)
        likelihoods: tuple[Likelihoods, ...] = ()
        if self._needs_likelihoods:
            plan["likelihoods"] = scored = self._likelihoods(rows, reflections)
            likelihoods = (scored,)
            plan["scores"] = Score(rows=rows, reflections=reflections, likelihoods=likelihoods)
        plan["select_instruction"] = first = self._select("instruction", rows, reflections, likelihoods)
        plan["select_response"] = second = self._select("response", rows, reflections, likelihoods, before=first)
        return plan | self._train_and_evaluate(rows, reflections, likelihoods, second)

    def _plan_chosen(self) -> Plan:
        """Follow the paper's order: reflect only on the response of the pair that the student chose."""
        plan: Plan = {"source": (rows := Source(data=self.data))}
        reflections: tuple[Reflect, ...] = ()
        likelihoods: tuple[Likelihoods, ...] = ()
        on_instruction = None
        if self.selector["instruction"].takes_challengers:
            plan["reflect_instruction"] = on_instruction = self._reflect("instruction", rows)
            reflections = (on_instruction,)
        if self._needs_likelihoods:
            plan["likelihoods"] = before = self._likelihoods(rows, reflections)
            likelihoods = (before,)
        plan["select_instruction"] = first = self._select("instruction", rows, reflections, likelihoods)
        if self.selector["response"].takes_challengers:
            on_response = self._reflect("response", rows, instructions=on_instruction, chosen=first)
            plan["reflect_response"] = on_response
            reflections = (*reflections, on_response)
            if self._needs_likelihoods:
                plan["likelihoods_response"] = after = self._likelihoods(None, (on_response,))
                likelihoods = (*likelihoods, after)
        if likelihoods:
            plan["scores"] = Score(rows=rows, reflections=reflections, likelihoods=likelihoods)
        plan["select_response"] = second = self._select("response", rows, reflections, likelihoods, before=first)
        return plan | self._train_and_evaluate(rows, reflections, likelihoods, second)

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

    def _likelihoods(self, rows: Source | None, reflections: tuple[Reflect, ...]) -> Likelihoods:
        return Likelihoods(
            rows=rows,
            reflections=reflections,
            student=self.student,
            template=self.scoring_template or self.template,
            trained_in=self.template if self.scoring_template not in (None, self.template) else None,
            scorer=self.scorer,
            engine=self.engine,
        )

    def _select(
        self,
        phase: Phase,
        rows: Source,
        reflections: tuple[Reflect, ...],
        likelihoods: tuple[Likelihoods, ...],
        before: Select | None = None,
    ) -> Select:
        selector = self.selector[phase]
        return Select(
            phase=phase,
            rows=rows,
            reflections=reflections,
            likelihoods=likelihoods if selector.needs else (),
            before=before,
            selector=selector,
        )

    def _train_and_evaluate(
        self, rows: Source, reflections: tuple[Reflect, ...], likelihoods: tuple[Likelihoods, ...], decisions: Select
    ) -> Plan:
        training = Assemble(
            rows=rows, reflections=reflections, likelihoods=likelihoods, decisions=decisions, keep=self.keep
        )
        trained = Train(training=training, trainer=self.trainer, student=self.student, template=self.template)
        evaluations = {
            f"evaluate/{label}": Evaluate(label=label, evaluator=evaluator, trained=trained, training=training)
            for label, evaluator in self.evaluator.items()
        }
        return {"assemble": training, "train": trained, **evaluations}

    @property
    def _needs_likelihoods(self) -> bool:
        needs = [*(one.needs for one in self.selector.values()), *(one.needs for one in self.keep.values())]
        return self.until in ("likelihoods", "scores") or any(needs)
