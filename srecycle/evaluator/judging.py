"""What evaluators have in common that put a student's answers before a judge.

In: the answers by set, of which an evaluator makes items: a pair of answers, an answer to be graded. Out: the figures
of the judged items by set and by a column of the prompts, and of those that were judged again under the probes
(srecycle.judge.probes). What has no verdict is counted with its reason. Kept: `judgments.parquet`, with every judgment,
its texts and the raw reply, and `probes.parquet`, the same of what was judged again: recordings for judge=replay.

Replies go through the store's ledger, whoever judges: judging again asks and pays for what is missing only. A set that
can't be judged to the end fails the evaluation when the others were asked for, so that what came stands in the ledger.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Generic, TypeVar

import pyarrow as pa
from pydantic import AfterValidator, Field

from srecycle.config import component
from srecycle.errors import UserError
from srecycle.evaluator.answering import Answering, grouped
from srecycle.evaluator.answers import Answer, read
from srecycle.evaluator.base import Subject
from srecycle.evaluator.prompts import Prompt
from srecycle.evaluator.unwritten import unwritten
from srecycle.judge import Case, Judge, asking, probes
from srecycle.judge.base import Ask, require_judged
from srecycle.judge.counts import unjudged
from srecycle.judge.decorations import Probe
from srecycle.judge.probes import Judged, Probed
from srecycle.judge.quote import quoted
from srecycle.progress import say
from srecycle.reflection.prompts import Wording
from srecycle.reflection.quote import Quote, ledger_of
from srecycle.stage import Metrics, Work
from srecycle.store import Store
from srecycle.teacher import Reply

TEXT: Final = pa.string()
NUMBER: Final = pa.float64()
ASKED: Final = (pa.field("id", TEXT, False), pa.field("position", pa.int64(), False), pa.field("category", TEXT, False))
REPLY: Final = tuple(pa.field(name, TEXT, False) for name in ("reply", "finish_reason", "judge"))
"""Columns of all tables of judgments."""

T = TypeVar("T", bound=Judged)
_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


@dataclass(frozen=True, kw_only=True)
class Again(Generic[T]):
    """What a probe asked of a set, and what became of each."""

    probe: Probe
    asked: Sequence[Probed[T]]
    after: Sequence[T]


P = TypeVar("P", bound=str)


def different(names: tuple[P, ...]) -> tuple[P, ...]:
    """Refuse probes that are named twice."""
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]} stands twice")
    return names


@component
class Judging(Answering, ABC, Generic[T]):
    """An evaluator whose answers a judge is shown. `system` is the judge's system message, or `file:PATH` of one.

    Each of `probes` has up to `probe_rows` questions of each set judged again, drawn with `seed`.
    """

    judge: Judge
    system: Wording
    probes: Annotated[tuple[Probe, ...], AfterValidator(different)] = ()
    probe_rows: Annotated[int, Field(ge=1)] = 50

    what: ClassVar[str]
    turns: ClassVar[int] = 1
    schema: ClassVar[pa.Schema]
    verdicts: ClassVar[pa.DataType] = NUMBER
    """What is judged (a plural noun), how many turns a prompt may have, the columns of a judgment, a verdict's type."""

    @abstractmethod
    def items(self, answers: Mapping[str, Sequence[Answer]]) -> dict[str, list[T]]:
        """Return what is to be judged by set, in the order of the prompts."""

    @abstractmethod
    def cases(self, one: T) -> list[Case]:
        """Return the judgments that it takes."""

    @abstractmethod
    def read_replies(self, one: T, asked: Sequence[Case], replies: Sequence[Reply]) -> T:
        """Return it with what the judge replied to its cases."""

    @abstractmethod
    def lines(self, name: str, one: T) -> list[Mapping[str, Any]]:
        """Return its lines of `judgments.parquet`, as one of the set of this name."""

    @abstractmethod
    def figures(self, some: Sequence[T]) -> Metrics:
        """Return `asked`, `judged`, `unjudged/REASON`, and the figures of these."""

    @abstractmethod
    def summary(self, found: Metrics) -> str:
        """Return the figures of a set in a few words; `judged` is more than 0."""

    def heading(self, name: str) -> str:
        """Return what the names of a set's metrics begin with."""
        return name

    def title(self, name: str) -> str:
        """Return what a set is called on the screen."""
        return name

    def check(self) -> None:
        """Raise UserError where the judge lacks something, or a set can't be asked."""
        self.judge.check()
        self.questions()

    def questions(self) -> dict[str, list[Prompt]]:
        """Return the prompts by set. Raises UserError where one has more turns than can be judged."""
        found = super().questions()
        for name, some in found.items():
            if long := [one for one in some if len(one.turns) > self.turns]:
                raise UserError(
                    f"{self.prompts[name]}: prompt {long[0].position} has {len(long[0].turns)} turns: at most "
                    f"{self.turns} can be judged here"
                )
        return found

    def evaluate(self, subject: Subject, work: Work) -> Metrics:
        """Answer, have the answers judged, and count. Raises UserError where a set could not be judged to the end."""
        items = self.items(self.answered(subject, work))
        failed: dict[str, UserError] = {}
        with asking(self.judge, work) as ask:
            judged = _each(items, lambda name, some: self._judged(name, some, ask), failed)
            again = _each(judged, lambda name, some: self._again(name, some, ask), failed)
        if failed:
            name, reason = next(iter(failed.items()))
            more = f"{len(failed)} of {len(items)} sets could not be judged; the first is {name}: "
            raise UserError(f"{more if len(items) > 1 else ''}{reason}")
        both = [pair for name in items for pair in zip(items[name], judged[name], strict=True)]
        require_judged([after.reason for before, after in both if before.asked], self.what)
        self.keep(judged, again, work)
        return self.metrics(judged, again)

    def keep(self, judged: Mapping[str, Sequence[T]], again: Mapping[str, Sequence[Again[T]]], work: Work) -> None:
        """Write the tables of the judgments."""
        written = [line for name, some in judged.items() for one in some for line in self.lines(name, one)]
        work.write("judgments", pa.Table.from_pylist(written, schema=self.schema))
        if not self.probes:
            return
        probed = [
            {**line, "probe": probe.probe, "decorated": one.decorated, "before": one.before.verdict}
            for name, some in again.items()
            for probe in some
            for one, after in zip(probe.asked, probe.after, strict=True)
            for line in self.lines(name, after)
        ]
        columns = [
            pa.field("probe", TEXT, False),
            pa.field("decorated", TEXT, False),
            pa.field("before", self.verdicts),
        ]
        work.write("probes", pa.Table.from_pylist(probed, schema=pa.schema([*columns, *self.schema])))

    def metrics(self, judged: Mapping[str, Sequence[T]], again: Mapping[str, Sequence[Again[T]]]) -> Metrics:
        """Return the figures of each set, of its probes, and of each value of the column `category`."""
        found: Metrics = {}
        for name, some in judged.items():
            head = self.heading(name)
            found |= named(head, self.figures(some) | self.probe_figures(again[name]))
            groups = grouped(self.category, [(one.about.category, one) for one in some])
            for value, group in groups.items():
                found |= named(f"{head}/{value}", self.figures(group))
        return found

    def probe_figures(self, again: Sequence[Again[T]]) -> Metrics:
        """Return the figures of the probes, of one set or several."""
        found: Metrics = {}
        for probe in self.probes:
            some = [one for one in again if one.probe == probe]
            asked, after = [one for made in some for one in made.asked], [one for made in some for one in made.after]
            found |= named(f"probe/{probe}", probes.figures(asked, after, self.seed))
        return found

    def quote(self, subject: Subject | None, store: Store | None) -> Quote | None:
        """Return what judging would cost; answers that are not generated yet are taken to be of a usual length."""
        known, prompts = self.known(subject, store), self.questions()
        answers = {
            name: read(artifact.table("answers")) if artifact else unwritten(prompts[name])
            for name, artifact in known.items()
        }
        items = self.items(answers)
        asked = {name: self._cases(some) for name, some in items.items()}
        again, guessed = self._asked_again(items, asked, store)
        unknown = sum(len(asked[name]) for name, artifact in known.items() if artifact is None)
        whole = [*(case for some in asked.values() for case in some), *again]
        return quoted(self.judge, whole, store, estimated=unknown + guessed)

    def _asked_again(
        self, items: Mapping[str, Sequence[T]], asked: Mapping[str, Sequence[Case]], store: Store | None
    ) -> tuple[list[Case], int]:
        """Return what the probes will ask, and how much of it is guessed: who lost is not known before."""
        found, guessed, drawing = list[Case](), 0, (self.probe_rows, self.seed)
        if not self.probes:
            return found, guessed
        with ledger_of(store) as ledger:
            for name, some in items.items():
                if self.judge.outstanding(asked[name], ledger):
                    shown = [one for probe in self.probes for one in probes.stand_ins(some, probe, *drawing)]
                    guessed += len(self._cases(shown))
                else:
                    judged = self._read(some, self.judge.replies(asked[name], ledger))
                    shown = [one.again for probe in self.probes for one in probes.probed(judged, probe, *drawing)]
                found += self._cases(shown)
        return found, guessed

    def _cases(self, some: Sequence[T]) -> list[Case]:
        return [case for one in some if one.asked for case in self.cases(one)]

    def _read(self, some: Sequence[T], replies: Sequence[Reply]) -> list[T]:
        """Return the items with the replies to their cases."""
        given = iter(replies)
        found = []
        for one in some:
            asked = self.cases(one) if one.asked else []
            found.append(self.read_replies(one, asked, [next(given) for _ in asked]) if asked else one)
        return found

    def _judged(self, name: str, some: Sequence[T], ask: Ask) -> list[T]:
        if asked := self._cases(some):
            some = self._read(some, ask(asked, f"judging {self.title(name)}"))
        found = self.figures(some)
        told = f", {self.summary(found)}" if found["judged"] else ""
        say(f"  {self.title(name)}: {found['judged']} judged of {found['asked']} asked{told}{_without(found)}")
        return list(some)

    def _again(self, name: str, judged: Sequence[T], ask: Ask) -> list[Again[T]]:
        """Ask the judge again about a set, by each probe. Raises UserError where it can't go on."""
        made = []
        for probe in self.probes:
            asked = probes.probed(judged, probe, self.probe_rows, self.seed)
            shown = [one.again for one in asked]
            replies = ask(self._cases(shown), f"judging {self.title(name)} again, {probe}")
            made.append(Again(probe=probe, asked=asked, after=self._read(shown, replies)))
            found = probes.figures(asked, made[-1].after, self.seed)
            moved = f"{found['flips']:.1%} flip towards it, {found['changes']:.1%} change" if found["judged"] else ""
            counts = f"({found['judged']} judged of {found['asked']} asked){_without(found)}"
            say(f"  {self.title(name)}, probe {probe}: {moved or 'no figure'} {counts}")
        return made


def named(name: str, metrics: Metrics) -> Metrics:
    """Return the metrics with a name before theirs."""
    return {f"{name}/{what}": value for what, value in metrics.items()}


def _without(found: Metrics) -> str:
    return f"; no verdict: {left}" if (left := unjudged(found)) else ""


def _each(
    some: Mapping[str, _Given], do: Callable[[str, _Given], _Made], failed: dict[str, UserError]
) -> dict[str, _Made]:
    """Do it for each set, and note those that failed: the others are still to be asked for."""
    made = {}
    for name, one in some.items():
        try:
            made[name] = do(name, one)
        except UserError as error:
            failed.setdefault(name, error)
            say(f"  {name}: not judged to the end: {error}")
    return made
