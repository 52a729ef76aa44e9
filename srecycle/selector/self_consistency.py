"""Selection by majority: of several sampled versions the one wins whose final answer most of them share.

Self-consistency (arXiv:2203.11171) over the teacher's samples (`teacher.samples`), which must answer one question: it
is made for the response phase, since in the instruction phase each sample answers a question of its own.
"""

import re
from collections import Counter
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from srecycle.answers import SEARCHED, AnswerPattern, answer_span
from srecycle.config import component
from srecycle.selector.base import Contest, Matrix, Selector
from srecycle.verifier.exact import final_answer, normalised

_NUMBER = re.compile(r"(?<![\w.,])[-\u2212]?\d++(?:,\d{3})*+(?:\.\d++)?+(?:[/:]\d++)*+")


@component
class SelfConsistency(Selector):
    """Prefers a version by how many of its row's versions come to the same answer, itself included.

    The answer is what the group of `pattern` holds in its last match; null: the last number of the marked or last line,
    else that line. Answers are compared as `exact` verification does. `count_incumbent` gives the incumbent a vote too.
    A challenger needs at least `quorum` votes. A version without an answer has no vote and no verdict.
    """

    needs: ClassVar[tuple[str, ...]] = ("response",)
    unjudged: ClassVar[str] = "no_answer"

    pattern: AnswerPattern | None = None
    count_incumbent: bool = True
    quorum: Annotated[int, Field(ge=1)] = 2

    def preference(self, contest: Contest) -> Matrix:
        """Prefer the answer with more votes; a challenger's below the quorum is vetoed."""
        votes = self._votes(contest)
        challengers = votes[:, 1:]
        challengers[challengers < self.quorum] = -np.inf
        return votes

    def flip(self, contest: Contest, ahead: Matrix) -> Matrix:
        """Return how the quorum must change: to below or above the votes of what would win without one."""
        votes = self._votes(contest)
        best = np.where(np.isnan(votes[:, 1:]), -np.inf, votes[:, 1:]).max(axis=1)
        wins = best >= votes[:, 0] if self.tie == "challenger" else best > votes[:, 0]
        return np.where(wins & np.isfinite(best), best - self.quorum, np.nan)

    def _votes(self, contest: Contest) -> Matrix:
        """Return how many versions of its row share each version's answer, shape [rows, versions]; NaN without one."""
        votes = np.full(contest.usable.shape, np.nan)
        for row, usable in enumerate(contest.usable):
            texts = contest.texts["response"][row]
            answers = {place: self._answer(texts[place]) for place in np.flatnonzero(usable)}
            voting = Counter(answer for place, answer in answers.items() if place or self.count_incumbent)
            for place, answer in answers.items():
                if answer:
                    votes[row, place] = voting[answer]
        return votes

    def _answer(self, response: str) -> str:
        if self.pattern is not None:
            span = answer_span(self.pattern, response)
            return normalised(response[slice(*span)]) if span else ""
        told = final_answer(response)[-SEARCHED:]
        numbers = _NUMBER.findall(told)
        return normalised(numbers[-1] if numbers else told)
