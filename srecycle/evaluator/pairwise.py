"""A judge compares this run's answers with another run's, or with a file of answers (arXiv:2402.10110, tables 4 and 9).

The judge scores both answers from 1 to 10, in both orders; srecycle.judge.pairs has the rule of win, tie and lose and
the win rate. Out: the figures of each set, of all of them (`all`), and of the gap between sets in domain and out of
distribution; `probe/swapped`, which both orders tell anyway, is among them always.

Identity: the prompts' and the other answers' content, how answers are generated, the judge and the wording.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import pyarrow as pa
from pydantic import AfterValidator

from srecycle.config import InputPath, canonical, component, runtime
from srecycle.evaluator.answers import SETTINGS, Answer
from srecycle.evaluator.gap import GAP, Gap, check_gap, gap_figures
from srecycle.evaluator.judging import ASKED, NUMBER, REPLY, TEXT, Again, Judging, different, named
from srecycle.evaluator.opponents import Opponent, opponent
from srecycle.evaluator.prompts import Prompt
from srecycle.judge import Case
from srecycle.judge.decorations import SWAPPED, Decoration
from srecycle.judge.pairs import Outcome, Pair, cases, figures, lines, outcomes
from srecycle.judge.probes import swapped
from srecycle.judge.wording import PairRequest
from srecycle.rows import OK
from srecycle.stage import Metrics
from srecycle.store import Store
from srecycle.teacher import Reply

NO_OTHER_ANSWER = "no_other_answer"
_ALL = "all"


@component
class Pairwise(Judging[Outcome]):
    """Compares with `against`: a run's id or name, or a file of answers (.json, .jsonl, .parquet).

    `request` is the judge's wording, or `file:PATH` of one. `store` is where the other run is. `gap` names sets in
    domain and out of distribution, and tells the win rate over each of both groups, and how much lower it is out of
    distribution.
    """

    revision: ClassVar[int] = 3

    against: str
    request: PairRequest
    probes: Annotated[tuple[Decoration, ...], AfterValidator(different)] = ()
    gap: Gap | None = None
    store: InputPath = runtime()

    what: ClassVar[str] = "pairs"
    verdicts: ClassVar[pa.DataType] = TEXT
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("set", TEXT, False),
            *ASKED,
            pa.field("verdict", TEXT),
            pa.field("reason", TEXT, False),
            pa.field("own_first", pa.bool_(), False),
            pa.field("status", TEXT, False),
            pa.field("score_1", NUMBER),
            pa.field("score_2", NUMBER),
            *(pa.field(name, TEXT, False) for name in ("question", "answer_1", "answer_2")),
            *REPLY,
        ]
    )
    """A line for each judgment, answers in the order in which they were shown; and one for a pair that has none."""

    def __post_init__(self) -> None:
        """Refuse sets whose figures the pooled ones would overwrite, and a gap between none. Raises ValueError."""
        if _ALL in self.prompts:
            raise ValueError(f"prompts has a set named {_ALL!r}, as the figures of all sets are: give it another name")
        if self.gap is not None:
            check_gap(self.gap, self.prompts)

    def resolved(self) -> Mapping[str, Any]:
        """Prompts and the other's answers stand as their content."""
        return {**super().resolved(), "against": self.opponent().content}

    def check(self) -> None:
        """Raise UserError where the judge lacks something, or the other has no answers to a set."""
        self.judge.check()
        self.opponent().answers(self.questions())

    def opponent(self) -> Opponent:
        """Return the other side. Raises UserError where there is none of that name, or it answered otherwise."""
        settings = {name: canonical(getattr(self, name)) for name in SETTINGS}
        return opponent(self.against, Store(self.store, create=False), settings)

    def items(self, answers: Mapping[str, Sequence[Answer]]) -> dict[str, list[Outcome]]:
        """Return the pairs by set: these answers as own, the opponent's as other."""
        questions = self.questions()
        others = self.opponent().answers(questions)
        return {
            name: _paired(questions[name], {one.id: one for one in some}, others[name])
            for name, some in answers.items()
        }

    def cases(self, one: Outcome) -> list[Case]:
        """Return the pair's two judgments, one in each order."""
        return cases([one.pair], self.system, self.request)

    def read_replies(self, one: Outcome, asked: Sequence[Case], replies: Sequence[Reply]) -> Outcome:
        """Return the pair with both judgments."""
        (found,) = outcomes([one.pair], asked, replies)
        return found

    def lines(self, name: str, one: Outcome) -> list[Mapping[str, Any]]:
        """Return a line for each judgment."""
        return lines([one], set=name)

    def figures(self, some: Sequence[Outcome]) -> Metrics:
        """Return the figures of srecycle.judge.pairs."""
        return figures(some, self.seed)

    def summary(self, found: Metrics) -> str:
        """Return the verdicts and the win rate."""
        return f"{found['win']} win, {found['tie']} tie, {found['lose']} lose, win rate {found['win_rate']:.3f}"

    def metrics(
        self, judged: Mapping[str, Sequence[Outcome]], again: Mapping[str, Sequence[Again[Outcome]]]
    ) -> Metrics:
        """Return the figures of each set and its categories, of both orders, of all sets, and of the gap."""
        found = super().metrics(judged, again)
        for name, some in judged.items():
            found |= self._orders(name, some)
        if len(judged) > 1:
            every = [one for some in judged.values() for one in some]
            probed = [one for some in again.values() for one in some]
            found |= named(_ALL, self.figures(every) | self.probe_figures(probed)) | self._orders(_ALL, every)
        if self.gap is not None:
            groups = {group: [one for name in names for one in judged[name]] for group, names in self.gap.items()}
            found |= named(GAP, gap_figures(groups, self.seed))
        return found

    def _orders(self, name: str, judged: Sequence[Outcome]) -> Metrics:
        return named(f"{name}/probe/{SWAPPED}", swapped(judged, self.seed))


def _paired(prompts: Sequence[Prompt], own: Mapping[str, Answer], other: Mapping[str, str]) -> list[Outcome]:
    pairs = [
        Pair(
            id=prompt.id,
            position=prompt.position,
            question=prompt.question,
            own=own[prompt.id].text,
            other=other.get(prompt.id, ""),
            category=prompt.category,
            status=_status(own[prompt.id].status, prompt.id in other),
        )
        for prompt in prompts
    ]
    return [Outcome(pair=pair) for pair in pairs]


def _status(own: str, has_other: bool) -> str:
    return own if own != OK or has_other else NO_OTHER_ANSWER
