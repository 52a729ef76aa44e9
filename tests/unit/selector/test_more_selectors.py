"""The selectors beyond the paper's arms, against cases that were decided by hand."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from srecycle.errors import UserError
from srecycle.reflection.versions import VERSION_SCHEMA
from srecycle.rows import LIKELIHOOD_SCHEMA
from srecycle.selector import Contest, Selector
from srecycle.selector.band import Band
from srecycle.selector.base import ScoreSelector
from srecycle.selector.capped_ifd import CappedIFD
from srecycle.selector.confidence import Confidence
from srecycle.selector.decide import Decisions, decide
from srecycle.selector.grape import GRAPE
from srecycle.selector.grid import version_grid
from srecycle.selector.perplexity import Perplexity
from srecycle.selector.rank_surprisal import RankSurprisal
from srecycle.selector.s_ifd import SIFD
from srecycle.selector.self_consistency import SelfConsistency
from srecycle.selector.verified import Verified
from srecycle.verifier import NoVerifier
from srecycle.verifier.exact import ExactVerifier

NAN = math.nan
LEAST = np.finfo(np.float64).tiny


def _scored(name: str, rows: Sequence[Sequence[float]], usable: Any = None) -> Contest:
    values = np.array(rows, dtype=float)
    return Contest(
        phase="response",
        ids=np.array([f"row{n}" for n in range(len(rows))]),
        usable=np.ones(values.shape, dtype=bool) if usable is None else np.array(usable),
        columns={name: values},
    )


def _written(rows: Sequence[Sequence[str]], reference: str = "", usable: Any = None) -> Contest:
    responses = np.array(rows, dtype=object)
    same = np.full(responses.shape, "Sum?", dtype=object), np.full(responses.shape, reference, dtype=object)
    return Contest(
        phase="response",
        ids=np.array([f"row{n}" for n in range(len(rows))]),
        usable=np.ones(responses.shape, dtype=bool) if usable is None else np.array(usable),
        columns={},
        texts={"instruction": same[0], "input": same[0], "response": responses, "reference": same[1]},
    )


def _winners(selector: Selector, contest: Contest) -> list[int]:
    return [int(one) for one in selector.choose(contest).winner]


@pytest.mark.parametrize(
    ("kind", "score", "higher_wins"),
    [
        (SIFD, "s_ifd", True),
        (GRAPE, "grape", True),
        (RankSurprisal, "rank_surprisal", False),
        (Confidence, "confidence", True),
    ],
)
def test_score_selector_takes_the_better_value_by_more_than_its_margin(
    kind: type[ScoreSelector], score: str, higher_wins: bool
) -> None:
    rows = [(0.5, 0.375), (0.5, 0.625), (0.5, 0.5), (0.5, NAN), (NAN, 0.5), (NAN, NAN)]
    better = [0, 1] if higher_wins else [1, 0]
    assert _winners(kind(), _scored(score, rows)) == [*better, 0, 0, 0, 0]
    assert _winners(kind(tie="challenger"), _scored(score, rows)) == [*better, 1, 0, 0, 0]
    assert _winners(kind(margin=0.125), _scored(score, rows)) == [0] * 6
    assert _winners(kind(margin=0.125, tie="challenger"), _scored(score, rows)) == [*better, 0, 0, 0, 0]
    assert _winners(kind(margin=0.124), _scored(score, rows)) == [*better, 0, 0, 0, 0]
    unusable = _scored(score, [(0.5, 0.0), (0.5, 1.0)], usable=[[True, False]] * 2)
    assert _winners(kind(tie="challenger"), unusable) == [0, 0]
    assert kind().needed == (score,) and kind().decided_by == score


def test_grape_without_a_margin_decides_as_perplexity_does() -> None:
    losses = np.random.default_rng(0).uniform(0, 4, (200, 3))
    assert _winners(GRAPE(), _scored("grape", -losses)) == _winners(Perplexity(), _scored("perplexity", np.exp(losses)))


CAPPED: Sequence[tuple[tuple[float, ...], int, float]] = (
    ((0.5, 0.8), 1, -0.2),  # taken by 0.3, and 0.2 below the cap: the cap is nearer
    ((0.5, 0.6), 1, 0.1),  # taken by 0.1: the margin is nearer
    ((0.5, 1.2), 0, 0.2),  # vetoed: the cap would have to rise
    ((0.5, 1.0), 0, LEAST),  # vetoed at the cap itself
    ((1.3, 0.9), 0, -0.4),  # an incumbent has no cap, and no cap takes a lower IFD
    ((1.3, 1.4), 0, 0.4),
    ((1.3, 1.2), 0, NAN),  # vetoed and behind: no single change takes it
    ((0.5, 0.5), 0, -LEAST),
    ((NAN, 0.6), 0, NAN),
    ((0.5, NAN), 0, NAN),
    ((0.5, 0.7, 1.1), 1, 0.2),  # the highest is vetoed, the next one wins
    ((0.5, 0.9, 0.7), 1, -0.3),  # the cap must fall below the lowest that would win
    ((0.5, 0.45, 1.04), 0, 0.04),
    ((0.5, 0.48, 1.04), 0, -0.02),
)


@pytest.mark.parametrize(("values", "winner", "flip"), CAPPED, ids=[str(one[0]) for one in CAPPED])
def test_capped_ifd_takes_what_is_higher_and_below_the_cap(values: tuple[float, ...], winner: int, flip: float) -> None:
    choice = CappedIFD().choose(_scored("ifd", [values]))
    assert choice.winner.tolist() == [winner]
    assert choice.flip[0] == pytest.approx(flip, nan_ok=True, rel=1e-9, abs=0)


def test_capped_ifd_cap_and_margin_are_settings() -> None:
    contest = _scored("ifd", [(0.5, 0.8), (0.5, 1.2), (0.5, 0.55)])
    assert _winners(CappedIFD(below=0.8), contest) == [0, 0, 1]
    assert _winners(CappedIFD(below=1.3, margin=0.1), contest) == [1, 1, 0]
    with pytest.raises(ValidationError, match="below"):
        CappedIFD(below=0)


def test_capped_ifd_does_not_change_the_scores_it_is_given() -> None:
    contest = _scored("ifd", [(0.5, 1.2)])
    CappedIFD().choose(contest)
    assert contest.columns["ifd"].tolist() == [[0.5, 1.2]]


def test_band_of_values_prefers_the_nearer() -> None:
    inside, outside = [(0.25, 0.5), (0.5, 0.25), (0.5, 0.75)], [(0.25, 1.0), (0.0, 0.25), (1.0, 1.5), (0.25, 0.0)]
    contest = _scored("ifd", [*inside, *outside, (NAN, 0.5), (0.25, NAN)])
    fields: dict[str, Any] = {"bounds": "value", "low": 0.375, "high": 0.75}
    choice = Band(**fields).choose(contest)
    assert choice.winner.tolist() == [1, 0, 0, 0, 1, 0, 0, 0, 0]
    assert choice.preference[3:5].tolist() == [[-0.125, -0.25], [-0.375, -0.125]]
    assert choice.flip.tolist()[:5] == [0.125, -0.125, 0.0, -0.125, 0.25]
    assert _winners(Band(**fields, tie="challenger"), contest) == [1, 0, 1, 0, 1, 0, 0, 0, 0]
    assert _winners(Band(**fields, margin=0.125), contest) == [0, 0, 0, 0, 1, 0, 0, 0, 0]


def test_band_of_quantiles_is_the_middle_of_the_incumbents() -> None:
    # The incumbents' scores are 0, 1, 2, 3, 4: their quartiles 1 and 3. Challengers and the unscored count for nothing.
    rows = [(0.0, 2.0), (1.0, 2.0), (2.0, 99.0), (3.0, 0.0), (4.0, 3.5), (NAN, 7.0)]
    usable = [[True, True]] * 6 + [[False, True]]
    contest = _scored("ifd", [*rows, (500.0, 2.0)], usable=usable)
    choice = Band(low=0.25, high=0.75).choose(contest)
    assert choice.winner.tolist() == [1, 0, 0, 0, 1, 0, 0]
    assert choice.preference[:5].tolist() == [[-1, 0], [0, 0], [0, -96], [0, -1], [-1, -0.5]]
    assert np.isnan(choice.preference[6, 0])


def test_band_without_a_scored_incumbent_keeps_them_all() -> None:
    assert _winners(Band(tie="challenger"), _scored("ifd", [(NAN, 0.5), (NAN, 0.7)])) == [0, 0]


def test_band_reads_the_score_that_it_is_told() -> None:
    selector = Band(by="r_ifd", bounds="value", low=0, high=1)
    assert selector.needed == ("r_ifd",) and selector.decided_by == "r_ifd"
    assert _winners(selector, _scored("r_ifd", [(2.0, 1.0)])) == [1]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"by": "ifdd"}, "should be one of ifd, r_ifd"),
        ({"low": 0.8, "high": 0.2}, "low=0.8 is above high=0.2"),
        ({"low": 0.5, "high": 1.5}, "between 0 and 1 as quantiles"),
        ({"bounds": "values"}, "bounds"),
    ],
)
def test_band_without_meaning_is_refused(fields: Mapping[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Band(**fields)


RIGHT, WRONG = "The answer is 4.", "The answer is 5."


@pytest.mark.parametrize("otherwise", ["keep", "take"])
def test_verified_takes_what_is_right_where_the_incumbent_is_not(otherwise: Any) -> None:
    selector = Verified(verifier=ExactVerifier(), otherwise=otherwise)
    rows = [(WRONG, RIGHT), (RIGHT, WRONG), (RIGHT, RIGHT), (WRONG, WRONG)]
    assert _winners(selector, _written(rows, reference="4")) == [1, 0, 0, 0]
    # Of three samples the first that is right.
    assert _winners(selector, _written([(WRONG, WRONG, RIGHT, RIGHT)], reference="4")) == [2]
    unusable = _written([(WRONG, RIGHT), (WRONG, RIGHT)], reference="4", usable=[[True, False], [False, True]])
    assert _winners(selector, unusable) == [0, 0]


@pytest.mark.parametrize(("otherwise", "taken"), [("keep", 0), ("take", 1)])
def test_verified_where_the_verifier_cannot_tell_of_either(otherwise: Any, taken: int) -> None:
    assert _winners(Verified(verifier=NoVerifier(), otherwise=otherwise), _written([(WRONG, RIGHT)])) == [taken]


@pytest.mark.parametrize(
    ("incumbent", "challenger", "keep", "take"),
    [
        ("4", "", 0, 0),  # right, untold: a verified answer is never given up for another
        ("5", "", 0, 1),  # wrong, untold
        ("", "4", 1, 1),  # untold, right
        ("", "5", 0, 0),  # untold, wrong
    ],
)
def test_verified_of_one_that_can_be_told_and_one_that_cannot(
    incumbent: str, challenger: str, keep: int, take: int
) -> None:
    """An empty answer stands here for a version without a reference: a verifier knows nothing of it."""
    contest = _written([(incumbent, challenger)])
    reference = np.array([["4" if one else "" for one in (incumbent, challenger)]], dtype=object)
    told = Contest(
        phase="response",
        ids=contest.ids,
        usable=contest.usable,
        columns={},
        texts={**contest.texts, "reference": reference},
    )
    for otherwise, winner in (("keep", keep), ("take", take)):
        selector = Verified(verifier=ExactVerifier(), otherwise=otherwise)  # type: ignore[arg-type]
        assert _winners(selector, told) == [winner]


FOUR, FIVE, NONE = "It is 4.", "So 5", " "


@pytest.mark.parametrize(
    ("row", "fields", "winner"),
    [
        ((FIVE, FOUR, "x = 4.0", FIVE), {}, 0),  # two against two: the incumbent's own vote counts
        ((FIVE, FOUR, "x = 4.0", FIVE), {"count_incumbent": False}, 1),  # two against one
        ((FIVE, FOUR, "x = 4.0", FIVE), {"tie": "challenger"}, 1),
        ((FIVE, "7", FOUR, FOUR), {}, 2),
        ((FIVE, "7", FOUR, FOUR), {"quorum": 3}, 0),
        ((FIVE, FOUR, FOUR, FOUR), {"quorum": 3}, 1),
        ((FIVE, FOUR, "6", "7"), {"quorum": 1}, 0),
        ((FIVE, FOUR, "6", "7"), {"quorum": 1, "count_incumbent": False}, 1),  # one vote against none
        ((NONE, FOUR, FOUR, FOUR), {}, 0),  # nothing to compare with
        ((FIVE, NONE, FOUR, FOUR), {}, 2),
        ((FIVE, NONE, NONE, NONE), {"quorum": 1, "tie": "challenger"}, 0),
        (("Paris", "It was\nBerlin.", "berlin", "the  Berlin"), {}, 1),
        (("1", "The sum is 1,000", "1000.0", "$1000"), {}, 1),
        (("[a] 1", "[b] 1", "[b] 2", "[a] 3"), {"pattern": r"\[(\w)\]"}, 0),
        (("[a] 1", "[b] 1", "[b] 2", "[b] 3"), {"pattern": r"\[(\w)\]"}, 1),
    ],
)
def test_self_consistency_takes_the_majoritys_first(row: tuple[str, ...], fields: dict[str, Any], winner: int) -> None:
    assert _winners(SelfConsistency(**fields), _written([row])) == [winner]


def test_self_consistency_unusable_versions_have_no_vote() -> None:
    rows, usable = [(FIVE, FOUR, FOUR, FOUR)], [[True, True, False, False]]
    assert _winners(SelfConsistency(), _written(rows, usable=usable)) == [0]
    assert _winners(SelfConsistency(), _written(rows, usable=[[False, True, True, True]])) == [0]


def test_self_consistency_flip_is_the_quorums() -> None:
    rows = [(FIVE, FOUR, FOUR, FOUR), (FIVE, FOUR, FOUR, "6"), (FIVE, FIVE, FOUR, FOUR), (FIVE, NONE, NONE, NONE)]
    for quorum, flips in ((3, [0, -1, NAN, NAN]), (1, [2, 1, NAN, NAN])):
        assert SelfConsistency(quorum=quorum).choose(_written(rows)).flip.tolist() == pytest.approx(flips, nan_ok=True)


@pytest.mark.parametrize(
    ("pattern", "said"), [("(a", "no regular expression"), ("a", "has 0"), ("(a)|(b)", "has 2"), ("(?:a)", "has 0")]
)
def test_self_consistency_pattern_without_one_group_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SelfConsistency(pattern=pattern)


def test_self_consistency_pattern_without_end_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srecycle.answers._SECONDS", 0.05)
    with pytest.raises(UserError, match="did not come to an end"):
        _winners(SelfConsistency(pattern="(?:a|aa)+(b)"), _written([("a" * 3000,) * 2]))


def _decided(selector: Selector, versions: Mapping[str, tuple[str, float | None]], **likelihood: Any) -> Decisions:
    """Decide one row whose versions have a response and a loss (None: too long to be read)."""
    texts = {"id": "r", "position": 0, "history": [], "criteria": []}
    empty = dict.fromkeys(("instruction", "input", "label", "reference", "source", "critique"), "")
    lines = [
        {**texts, **empty, "version": name, "status": "ok", "response": response}
        for name, (response, _) in versions.items()
    ]
    losses = [
        {
            **{"id": "r", "version": name, "status": "too_long" if loss is None else "ok", "loss_y_given_x": loss},
            **dict.fromkeys(("loss_y", "loss_x_given_y", "loss_x"), None if loss is None else 1.0),
            **{"tokens_y": 1, "tokens_x": 1, "context_truncated": False, "target_truncated": False},
            **likelihood,
        }
        for name, (_, loss) in versions.items()
    ]
    grid = version_grid(
        pa.Table.from_pylist(lines, schema=VERSION_SCHEMA), [pa.Table.from_pylist(losses, schema=LIKELIHOOD_SCHEMA)]
    )
    return decide(grid, "response", selector, np.zeros(1, dtype=np.int64))


def test_decide_tells_why_there_was_no_verdict() -> None:
    def reason(selector: Selector, first: float, second: float | None, response: str = "") -> str:
        return str(_decided(selector, {"original": ("4", first), "response": (response, second)}).reasons()[0])

    assert reason(CappedIFD(), 0.5, 2.0) == "challenger_vetoed"
    assert reason(CappedIFD(), 0.5, 0.9) == "challenger_won"
    assert reason(Confidence(), 0.5, 0.9) == "challenger_no_answer"
    assert reason(Confidence(), 0.5, None) == "challenger_too_long"
    assert reason(SelfConsistency(), 0.5, 0.9) == "challenger_no_answer"
    assert reason(SelfConsistency(), 0.5, 0.9, "5") == "challenger_vetoed"
    assert reason(Verified(verifier=NoVerifier()), 0.5, 0.9) == "challenger_unverified"


def test_decide_tells_the_values_of_the_score_that_the_band_is_of() -> None:
    decided = _decided(Band(by="grape", low=0, high=1), {"original": ("", 0.5), "response": ("", 0.75)})
    assert decided.values.tolist() == [[-0.5, -0.75]]
