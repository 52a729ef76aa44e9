"""A row's id is its content."""

import random
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from srecycle.rows import (
    KINDS,
    ROW_SCHEMA,
    Kind,
    Row,
    Turn,
    challenger,
    content_id,
    kind_of,
    numbered,
    sample_of,
    to_rows,
    to_table,
    version_of,
    version_order,
    versions_of,
)

TURNS = (Turn(role="user", content="hi"), Turn(role="assistant", content="hello"))


def test_content_id_same_content_is_equal_in_another_process() -> None:
    script = "from srecycle.rows import content_id; print(content_id('a', 'b', 'ç'))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    )
    assert done.stdout.strip() == content_id("a", "b", "ç")


def test_content_id_each_field_counts() -> None:
    ids = {
        content_id("a", "b", "c"),
        content_id("ab", "", "c"),
        content_id("a", "", "bc"),
        content_id("b", "a", "c"),
        content_id("a", "b", "c "),
        content_id("a", "b", "c", TURNS),
        content_id("a", "b", "c", TURNS[:1]),
        content_id("a", "b", "c", TURNS[::-1]),
    }
    assert len(ids) == 8
    assert all(len(identifier) == 16 and int(identifier, 16) >= 0 for identifier in ids)


def test_content_id_half_of_a_character_is_accepted() -> None:
    assert content_id("\ud83d", "", "") != content_id("", "", "")


def test_numbered_duplicates_get_running_numbers() -> None:
    assert list(numbered(["a", "b", "a", "a", "c", "b"])) == ["a", "b", "a-2", "a-3", "c", "b-2"]


@given(st.lists(st.sampled_from("abcd"), max_size=30), st.randoms())
def test_numbered_any_order_gives_the_same_ids(ids: list[str], rng: random.Random) -> None:
    shuffled = rng.sample(ids, len(ids))
    assert sorted(numbered(ids)) == sorted(numbered(shuffled))
    assert len(set(numbered(ids))) == len(ids)


def test_row_table_round_trip_keeps_everything() -> None:
    rows = [
        Row(id="x", position=3, instruction="i\n", input="", response="\U0001f600", history=TURNS, label="noisy"),
        Row(id="y", position=4, instruction="", input="n", response=""),
    ]
    assert to_rows(to_table(rows, ROW_SCHEMA)) == rows


@given(st.sampled_from(KINDS), st.integers(0, 10**6))
def test_version_names_say_kind_and_sample(kind: Kind, sample: int) -> None:
    name = version_of(kind, sample)
    assert (kind_of(name), sample_of(name)) == (kind, sample)
    assert (name == kind) == (sample == 0)


def test_versions_are_ordered_by_kind_and_then_by_number() -> None:
    assert versions_of(1) == KINDS
    new = [*(f"instruction-{n}" for n in range(2, 12)), *(f"response-{n}" for n in range(2, 12))]
    assert [one for one in versions_of(11) if "-" in one][:20] == new
    assert sorted(random.Random(1).sample(versions_of(11), 34), key=version_order) == list(versions_of(11))


def test_challenger_of_any_sample_is_of_the_kind_that_the_phase_makes() -> None:
    assert [challenger("instruction", "original", sample) for sample in (0, 1)] == ["instruction", "instruction-2"]
    assert challenger("response", "original", 2) == "response-3"
    assert challenger("response", "instruction") == challenger("response", "instruction-7") == "both"
    assert challenger("response", "instruction-7", 1) == "both-2"
