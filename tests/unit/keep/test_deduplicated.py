"""Deduplication: one of each group is kept, and nothing is refused for a row that is refused itself."""

import random
import time
from typing import Any

import numpy as np
import pytest

from srecycle.keep import Chosen
from srecycle.keep.deduplicated import Deduplicated, normalised
from tests.unit.keep.taken import permuted

WORDS = ("the", "a", "list", "write", "describe", "story", "poem", "city", "river", "about", "three", "healthy", "how")


def _chosen(questions: list[Any], ifd: list[float] | None = None) -> Chosen:
    """Take (instruction, input, earlier turns); what is missing is empty."""
    count = len(questions)
    whole = [one if isinstance(one, tuple) else (one,) for one in questions]
    texts = {name: np.empty(count, dtype=object) for name in ("instruction", "input", "history")}
    for place, (instruction, *rest) in enumerate(whole):
        texts["instruction"][place] = instruction
        texts["input"][place] = rest[0] if rest else ""
        texts["history"][place] = [{"role": "user", "content": turn} for turn in rest[1:]]
    scores = np.array(ifd if ifd is not None else [0.5] * count, dtype=np.float64)
    return Chosen(
        id=np.array([f"id{place}" for place in range(count)], dtype=object),
        version=np.array(["both"] * count, dtype=object),
        score_status=np.where(np.isnan(scores), "too_long", "ok").astype(object),
        columns={"ifd": scores},
        texts=texts,
    )


def _duplicates(chosen: Chosen, **settings: Any) -> list[int]:
    reasons = Deduplicated(**settings).reasons(chosen)
    assert {*reasons} <= {"", "duplicate"}
    return np.flatnonzero(reasons == "duplicate").tolist()


def _alike(one: str, other: str) -> float:
    """Compute the Jaccard similarity of two texts' sets of five characters in a row."""
    first, second = ({text[at : at + 5] for at in range(max(1, len(text) - 4))} for text in (one, other))
    return len(first & second) / len(first | second)


@pytest.mark.parametrize("similarity", [0.8, 1.0])
def test_deduplicated_same_texts_are_found_whatever_their_case_and_spaces(similarity: float) -> None:
    questions = [
        "Name a fruit.",
        "  name a\tFRUIT. ",
        "Sing.",
        ("Translate.", "hello"),
        ("Translate.", "bonjour monsieur"),
        ("Translate.", "HELLO"),
        "\uff2eame a fruit.",
        "Go on.",
        ("Go on.", "", "Tell me about the moon and how it came to be."),
        ("Go on.", "", "Which rivers of Europe are the longest?"),
        "",
        " ",
    ]
    assert _duplicates(_chosen(questions), similarity=similarity) == [1, 5, 6, 11]


def test_deduplicated_near_duplicates_go_by_the_threshold() -> None:
    one, other = "Write a poem about the river Rhine in spring", "Write a poem about the river Rhone in spring"
    between = _alike(*(normalised(text, "") for text in (one, other)))
    assert 0.6 < between < 0.9
    for similarity, found in ((between, [1]), (np.nextafter(between, 1), []), (0.3, [1]), (1.0, [])):
        assert _duplicates(_chosen([one, other]), similarity=similarity) == found


def test_deduplicated_a_row_is_refused_for_a_kept_one_only() -> None:
    """Each text is like the next one, the first and the third are not alike: the third stays."""
    texts = ["abcdefghij klmnopqrst", "abcdefghij klmnopq", "defghij klmnopq"]
    assert min(_alike(texts[0], texts[1]), _alike(texts[1], texts[2])) >= 0.7 > _alike(texts[0], texts[2])
    assert _duplicates(_chosen(texts), similarity=0.7) == [1]
    assert _duplicates(_chosen(texts, [0.1, 0.9, 0.1]), similarity=0.7, by="ifd") == [0, 2]


@pytest.mark.parametrize(("settings", "kept"), [({}, 0), ({"by": "ifd"}, 2), ({"by": "ifd", "highest": False}, 1)])
@pytest.mark.parametrize("similarity", [0.8, 1.0])
def test_deduplicated_keeps_the_first_or_the_best(settings: Any, kept: int, similarity: float) -> None:
    chosen = _chosen(["Name a fruit."] * 4, [0.5, 0.1, 0.9, 0.9])
    found = _duplicates(chosen, similarity=similarity, **settings)
    assert found == [place for place in range(4) if place != kept]


@pytest.mark.parametrize("similarity", [0.7, 1.0])
@pytest.mark.parametrize("highest", [True, False])
def test_deduplicated_by_score_keeps_the_same_rows_in_any_order(similarity: float, highest: bool) -> None:
    """Each question stands there three times, of two scores: mostly the ids part the equal ones."""
    rng = random.Random(0)
    questions = [" ".join(rng.choices(WORDS, k=8)) for _ in range(40)]
    texts = [question + end for question in questions for end in ("", "", "!")]
    chosen = _chosen(texts, rng.choices((0.25, 0.5), k=120))
    one = Deduplicated(by="ifd", similarity=similarity, highest=highest)
    told = one.reasons(chosen)
    assert 40 <= np.count_nonzero(told == "duplicate") <= 90
    for _ in range(5):
        order = rng.sample(range(120), 120)
        assert one.reasons(permuted(chosen, order)).tolist() == told[order].tolist()


def test_deduplicated_without_score_the_first_of_the_source_is_kept_whatever_its_id() -> None:
    chosen = permuted(_chosen(["Name a fruit."] * 3), [2, 0, 1])
    assert _duplicates(chosen) == [1, 2]
    assert _duplicates(chosen, by="ifd") == [0, 2]


def test_deduplicated_without_the_score_is_refused_and_displaces_nobody() -> None:
    chosen = _chosen(["Name a fruit.", "Name a fruit.", "Sing."], [np.nan, 0.5, np.nan])
    assert Deduplicated(by="ifd").reasons(chosen).tolist() == ["ifd_too_long", "", "ifd_too_long"]
    assert _duplicates(chosen) == [1]


def test_deduplicated_needs_the_question_and_the_score() -> None:
    assert Deduplicated().needed == ("instruction", "input", "history")
    assert Deduplicated(by="ifd").needed == ("instruction", "input", "history", "ifd")
    assert Deduplicated().reasons(_chosen([])).tolist() == []


@pytest.mark.parametrize("similarity", [0.4, 0.6, 0.8])
def test_deduplicated_finds_what_comparing_all_with_all_finds(similarity: float) -> None:
    rng = random.Random(1)
    questions: list[str] = []
    for _ in range(400):
        words = rng.choice(questions).split() if questions and rng.random() < 0.6 else rng.choices(WORDS, k=9)
        words[rng.randrange(9)] = rng.choice(WORDS)
        questions.append(" ".join(words))
    kept: list[str] = []
    expected = []
    for place, question in enumerate(questions):
        if any(_alike(question, other) >= similarity for other in kept):
            expected.append(place)
        else:
            kept.append(question)
    assert 20 < len(expected) < 390
    assert _duplicates(_chosen(questions), similarity=similarity) == expected


@pytest.mark.slow
def test_deduplicated_52000_rows_take_less_than_a_minute() -> None:
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randrange(2, 9))) for _ in range(3000)]
    questions = [" ".join(rng.choices(words, k=rng.randrange(5, 30))) for _ in range(50_000)]
    questions += [f"{question}, please" for question in rng.sample(questions, 2000)]
    started = time.monotonic()
    Deduplicated().reasons(_chosen(questions))
    assert time.monotonic() - started < 60
