"""A judge compares this run's answers with another run's, or with a file of answers (arXiv:2402.10110, tables 4 and 9).

The judge scores both answers from 1 to 10, in both orders; srecycle.judge.pairs has the rule of win, tie and lose and
the win rate. Pairs without a verdict are counted with their reason. Kept: `answers.parquet`, and `judgments.parquet`
with every judgment, its messages' texts and the raw reply; `probes.parquet` has those of the probes, which ask whether
verdicts stand when an answer is dressed up (srecycle.judge.probes). Replies go through the store's ledger, whoever
judges, so that judging again asks and pays for what is missing only.

Identity: the prompts' and the other answers' content, how answers are generated, the judge and the wording.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, TypeVar

import pyarrow as pa
from pydantic import AfterValidator, Field

from srecycle.config import InputPath, canonical, component, runtime
from srecycle.errors import UserError
from srecycle.evaluator.answers import SETTINGS, Answer, Answering, read
from srecycle.evaluator.base import Subject
from srecycle.evaluator.gap import GAP, Gap, check_gap, gap_figures
from srecycle.evaluator.opponents import Opponent, opponent
from srecycle.evaluator.probed import Again, Probing
from srecycle.evaluator.prompts import Prompt, read_prompts
from srecycle.judge import Case, Judge, asking
from srecycle.judge.base import Ask, require_judged
from srecycle.judge.pairs import Outcome, Pair, by, cases, figures, lines, outcomes
from srecycle.judge.probes import Probe
from srecycle.judge.quote import quoted
from srecycle.judge.wording import PairRequest
from srecycle.progress import say
from srecycle.reflection.prompts import Wording
from srecycle.reflection.quote import PRIOR, Quote, ledger_of
from srecycle.rows import OK
from srecycle.stage import Metrics, Work
from srecycle.store import Store

NO_OTHER_ANSWER = "no_other_answer"
_ALL = "all"
_UNWRITTEN = round(PRIOR.output_tokens_per_reply * PRIOR.characters_per_input_token)
"""How long (characters) an answer is taken to be that is still to be generated."""

_TEXT, _NUMBER = pa.string(), pa.float64()
JUDGMENT_SCHEMA = pa.schema(
    [
        pa.field("set", _TEXT, False),
        pa.field("id", _TEXT, False),
        pa.field("position", pa.int64(), False),
        pa.field("category", _TEXT, False),
        pa.field("verdict", _TEXT),
        pa.field("reason", _TEXT, False),
        pa.field("own_first", pa.bool_(), False),
        pa.field("status", _TEXT, False),
        pa.field("score_1", _NUMBER),
        pa.field("score_2", _NUMBER),
        pa.field("question", _TEXT, False),
        pa.field("answer_1", _TEXT, False),
        pa.field("answer_2", _TEXT, False),
        pa.field("reply", _TEXT, False),
        pa.field("finish_reason", _TEXT, False),
        pa.field("judge", _TEXT, False),
    ]
)
"""A line for each judgment, answers in the order in which they were shown; and one for a pair that has none."""

PROBE_SCHEMA = pa.schema(
    [pa.field("probe", _TEXT, False), pa.field("decorated", _TEXT, False), pa.field("before", _TEXT), *JUDGMENT_SCHEMA]
)
"""The same for pairs that were judged again: by which probe, which answer it decorated, and the verdict before."""


_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


def _different(names: tuple[Probe, ...]) -> tuple[Probe, ...]:
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]} stands twice")
    return names


@component
class Pairwise(Answering):
    """Compares with `against`: a run's id or name, or a file of answers (.json, .jsonl, .parquet).

    `system` and `request` are the judge's wording; either can be `file:PATH`. `store` is where the other run is. Each
    of `probes` judges up to `probe_rows` pairs of each set again, drawn with `seed`. `gap` names sets in domain and out
    of distribution, and tells the win rate over each of both groups, and how much lower it is out of distribution.
    """

    revision: ClassVar[int] = 2

    judge: Judge
    against: str
    system: Wording
    request: PairRequest
    probes: Annotated[tuple[Probe, ...], AfterValidator(_different)] = ()
    probe_rows: Annotated[int, Field(ge=1)] = 50
    gap: Gap | None = None
    store: InputPath = runtime()

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

    def questions(self) -> dict[str, list[Prompt]]:
        """Return the prompts by set. Raises UserError where some have several turns."""
        found = {name: read_prompts(path, self.category) for name, path in self.prompts.items()}
        if several := [name for name, some in found.items() if any(len(one.turns) > 1 for one in some)]:
            raise UserError(f"the prompts of {several[0]} have several turns: pairs are judged on one answer each")
        return found

    def pairs(self, answered: Mapping[str, Sequence[Answer]]) -> dict[str, list[Pair]]:
        """Return the pairs by set: these answers as own, the opponent's as other, in the order of the prompts."""
        questions = self.questions()
        others = self.opponent().answers(questions)
        return {
            name: _paired(questions[name], {one.id: one for one in some}, others[name])
            for name, some in answered.items()
        }

    def evaluate(self, subject: Subject, work: Work) -> Metrics:
        """Answer, have both orders of every pair judged, and count.

        Raises UserError where some set could not be judged: after all of them were asked for, so that what came stands
        in the ledger and is not asked for again.
        """
        failed: dict[str, UserError] = {}
        pairs = self.pairs(self.answered(subject, work))
        with asking(self.judge, work) as ask:
            judged = _each(pairs, lambda name, some: self._judged(name, some, ask), failed)
            again = _each(judged, lambda name, some: self._probing.again(name, some, ask), failed)
        if failed:
            name, reason = next(iter(failed.items()))
            raise UserError(f"{len(failed)} of {len(pairs)} sets could not be judged; the first is {name}: {reason}")
        every = [one.reason for some in judged.values() for one in some if one.judgments]
        require_judged(every, "pairs")
        written = [line for name, some in judged.items() for line in lines(some, set=name)]
        work.write("judgments", pa.Table.from_pylist(written, schema=JUDGMENT_SCHEMA))
        if self.probes:
            written = [line for name, some in again.items() for one in some for line in one.lines(set=name)]
            work.write("probes", pa.Table.from_pylist(written, schema=PROBE_SCHEMA))
        return self._metrics(judged, again)

    @property
    def _probing(self) -> Probing:
        return Probing(
            probes=self.probes, rows=self.probe_rows, seed=self.seed, system=self.system, request=self.request
        )

    def _judged(self, name: str, pairs: Sequence[Pair], ask: Ask) -> list[Outcome]:
        asked = cases(pairs, self.system, self.request)
        judged = outcomes(pairs, asked, ask(asked, f"judging {name}"))
        _tell(name, judged, self.seed)
        return judged

    def _metrics(self, judged: Mapping[str, Sequence[Outcome]], again: Mapping[str, Sequence[Again]]) -> Metrics:
        metrics: Metrics = {}
        for name, some in judged.items():
            metrics |= _named(name, figures(some, self.seed) | self._probing.metrics(some, again[name]))
            for category, found in by(some, self.seed).items():
                metrics |= _named(f"{name}/{category}", found)
        if len(judged) > 1:
            every = [one for some in judged.values() for one in some]
            probed = [one for some in again.values() for one in some]
            metrics |= _named(_ALL, figures(every, self.seed) | self._probing.metrics(every, probed))
        if self.gap is not None:
            groups = {group: [one for name in names for one in judged[name]] for group, names in self.gap.items()}
            metrics |= _named(GAP, gap_figures(groups, self.seed))
        return metrics

    def quote(self, subject: Subject | None, store: Store | None) -> Quote:
        """Return what judging would cost; answers that are not generated yet are taken to be of a usual length."""
        known = self.known(subject, store)
        answered = {
            name: read(artifact.table("answers")) if artifact else _stand_ins(self.questions()[name])
            for name, artifact in known.items()
        }
        pairs = self.pairs(answered)
        asked = {name: cases(some, self.system, self.request) for name, some in pairs.items()}
        again, guessed = self._asked_again(pairs, asked, store)
        return quoted(
            self.judge,
            [*(case for some in asked.values() for case in some), *again],
            store,
            estimated=sum(len(some) for name, some in asked.items() if known[name] is None) + guessed,
        )

    def _asked_again(
        self, pairs: Mapping[str, Sequence[Pair]], asked: Mapping[str, Sequence[Case]], store: Store | None
    ) -> tuple[list[Case], int]:
        """Return what the probes will ask, and how much of it is guessed: who lost is not known before."""
        found, guessed = list[Case](), 0
        if not self.probes:
            return found, guessed
        with ledger_of(store) as ledger:
            for name, some in pairs.items():
                if self.judge.outstanding(asked[name], ledger):
                    likely = self._probing.likely_cases(some)
                    found, guessed = [*found, *likely], guessed + len(likely)
                else:
                    judged = outcomes(some, asked[name], self.judge.replies(asked[name], ledger))
                    found += self._probing.cases(judged)
        return found, guessed


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


def _paired(prompts: Sequence[Prompt], own: Mapping[str, Answer], other: Mapping[str, str]) -> list[Pair]:
    return [
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


def _status(own: str, has_other: bool) -> str:
    return own if own != OK or has_other else NO_OTHER_ANSWER


def _stand_ins(prompts: Iterable[Prompt]) -> list[Answer]:
    """Return an answer a prompt that is not generated yet: like no other."""
    empty = Answer(
        id="",
        position=0,
        turn=0,
        instruction="",
        input="",
        text="",
        status=OK,
        finish_reason="",
        input_tokens=0,
        output_tokens=0,
    )
    return [replace(empty, id=one.id, position=one.position, text=one.id.ljust(_UNWRITTEN, "?")) for one in prompts]


def _named(name: str, metrics: Metrics) -> Metrics:
    return {f"{name}/{what}": value for what, value in metrics.items()}


def _tell(name: str, judged: Sequence[Outcome], seed: int) -> None:
    """Say how a set came out, and why pairs have no verdict."""
    found = figures(judged, seed)
    rate = f", win rate {found['win_rate']:.3f}" if found["judged"] else ""
    left = {what.partition("/")[2]: count for what, count in found.items() if what.startswith("unjudged/")}
    without = f"; no verdict: {', '.join(f'{count} {why}' for why, count in left.items())}" if left else ""
    counts = f"{found['win']} win, {found['tie']} tie, {found['lose']} lose"
    say(f"  {name}: {counts} of {found['judged']} judged and {found['asked']} asked{rate}{without}")
