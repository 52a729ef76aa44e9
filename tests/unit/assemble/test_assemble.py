"""The training set beyond the kept rows: what is learnt, what is mixed in, and what would flip a refusal."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from srecycle.assemble import Assembly
from srecycle.data import Source
from srecycle.data.alpaca import Alpaca
from srecycle.keep import Keep
from srecycle.keep.limit import IFDMax, ReversedIFDMax
from srecycle.keep.none import KeepAll
from srecycle.keep.reflected import ResponseReflectedOnly
from srecycle.keep.top import Top
from srecycle.rows import own_rows, trained_ids
from srecycle.selector import Select
from srecycle.selector.always import Always
from srecycle.selector.ifd import IFD
from srecycle.selector.never import Never
from srecycle.selector.reversed_ifd import ReversedIFD
from srecycle.stage import materialize
from tests.unit.selector.bench import Bench

ALL: dict[str, Keep] = {"all": KeepAll()}


@pytest.fixture
def bench(tmp_path: Path, tiny_models: Mapping[str, Path]) -> Bench:
    return Bench(tmp_path, tiny_models["llama"])


def _paper(bench: Bench) -> Select:
    return bench.select("response", ReversedIFD(), bench.select("instruction", IFD()))


def test_assemble_flip_names_the_limit_that_decides_and_how_far_it_is(bench: Bench) -> None:
    keep: dict[str, Keep] = {"ifd": IFDMax(below=0.6), "r_ifd": ReversedIFDMax(below=0.5)}
    lines = bench.assemble(_paper(bench), keep).table("training").to_pylist()
    # Taken: both (.5488, .5488), response (1.6487, .4066), original (.6065, .6065), instruction (.9048, .6065), none.
    told = [(line["reason"], line["flip_of"], line["flip"]) for line in lines]
    assert [(reason, name) for reason, name, _ in told] == [
        ("r_ifd_too_high", "r_ifd"),
        ("ifd_too_high", "ifd"),
        ("ifd_too_high", ""),
        ("ifd_too_high", ""),
        ("ifd_empty_response", ""),
    ]
    assert told[0][2] == pytest.approx(0.5 - 0.5488116, abs=1e-6)
    assert told[1][2] == pytest.approx(0.6 - 1.6487213, abs=1e-6)
    assert [value for *_, value in told[2:]] == [None] * 3


@pytest.mark.parametrize("nudge", [1e-9, -1e-9])
def test_assemble_limit_moved_by_the_flip_decides_the_row_the_other_way(bench: Bench, nudge: float) -> None:
    decisions, limits = _paper(bench), {"ifd": 0.6, "r_ifd": 0.6}
    filters = {"ifd": IFDMax, "r_ifd": ReversedIFDMax}

    def kept(limits: dict[str, float]) -> list[dict[str, object]]:
        keep: dict[str, Keep] = {name: filters[name](below=below) for name, below in limits.items()}
        return bench.assemble(decisions, keep).table("training").to_pylist()

    flipped = 0
    for place, line in enumerate(kept(limits)):
        if line["flip"] is None:
            continue
        sign = -1 if line["kept"] else 1  # a kept row's limit is tightened, a refused row's loosened
        moved = limits | {line["flip_of"]: limits[line["flip_of"]] + sign * abs(line["flip"]) + sign * nudge}
        assert (kept(moved)[place]["kept"] != line["kept"]) == (nudge > 0)
        flipped += 1
    assert flipped == 2


def test_assemble_row_that_another_filter_refuses_has_no_flip(bench: Bench) -> None:
    keep: dict[str, Keep] = {"ifd": IFDMax(below=0.5), "only": ResponseReflectedOnly()}
    lines = bench.assemble(_paper(bench), keep).table("training").to_pylist()
    assert [line["flip_of"] for line in lines] == ["ifd", "ifd", "", "", ""]


def test_assemble_critique_and_answer_puts_the_reason_first(bench: Bench) -> None:
    decisions = bench.select("response", Always(), bench.select("instruction", Never()))
    plain = bench.assemble(decisions, ALL).table("training").to_pylist()
    both = bench.assemble(decisions, ALL, Assembly(target="critique_and_answer")).table("training").to_pylist()
    assert [line["response"] for line in plain] == ["B0", "B1", "B2", "r3", "B4"]
    assert [line["response"] for line in both] == ["Weak.\n\nB0", "Weak.\n\nB1", "Weak.\n\nB2", "r3", "Weak.\n\nB4"]


def test_assemble_originals_are_mixed_in_by_the_kept_rows(bench: Bench) -> None:
    keep: dict[str, Keep] = {"only": ResponseReflectedOnly()}
    decisions = _paper(bench)
    made = bench.assemble(decisions, keep, Assembly(originals=1.5, seed=3))
    lines = made.table("training").to_pylist()
    mixed = [line for line in lines if line["id"].startswith("original:")]
    assert made.metrics["kept"] == 2 and made.metrics["mixed/original"] == len(mixed) == 3
    assert len(lines) == 5 + 3 and lines[5:] == mixed
    rows = {line["id"]: line for line in bench.store_of(bench.source).table("rows").to_pylist()}
    for line in mixed:
        row = rows[line["id"].removeprefix("original:")]
        assert (line["instruction"], line["response"]) == (row["instruction"], row["response"])
        assert line["kept"] and line["version"] == "original" and line["ifd"] is None
    fewer = bench.assemble(decisions, keep, Assembly(originals=0.5, seed=3)).table("training").to_pylist()[5:]
    assert len(fewer) == 1 and fewer[0] in mixed, "a larger share holds the smaller one"


def test_assemble_original_that_is_trained_on_is_not_mixed_in_again(bench: Bench) -> None:
    made = bench.assemble(bench.select("response", Never()), ALL, Assembly(originals=1.0))
    assert made.metrics["kept"] == 5 and made.metrics["mixed/original"] == 0


@pytest.mark.parametrize(("share", "count"), [(None, 4), (1.0, 2), (9.0, 4)])
def test_assemble_extra_data_is_mixed_in(bench: Bench, tmp_path: Path, share: float | None, count: int) -> None:
    (tmp_path / "more.json").write_text(json.dumps([{"instruction": f"q{n}", "output": f"a{n}"} for n in range(4)]))
    extra = Source(data=Alpaca(path=tmp_path / "more.json"))
    materialize(extra, bench.store)
    keep: dict[str, Keep] = {"only": ResponseReflectedOnly()}
    made = bench.assemble(_paper(bench), keep, Assembly(extra=extra.data, extra_share=share), extra)
    lines = made.table("training").to_pylist()[5:]
    assert made.metrics["mixed/extra"] == len(lines) == count
    assert all(line["id"].startswith("extra:") and line["kept"] for line in lines)
    assert {line["response"] for line in lines} <= {f"a{n}" for n in range(4)}


def test_assemble_row_refused_before_a_comparing_filter_has_no_flip(bench: Bench) -> None:
    """Whether the top share would take a row that a limit refuses first is not known: nothing is promised."""
    keep: dict[str, Keep] = {"ifd": IFDMax(below=0.6), "top": Top(rows=1, by="ifd", highest=False)}
    lines = bench.assemble(_paper(bench), keep).table("training").to_pylist()
    refused = [line for line in lines if line["reason"] == "ifd_too_high"]
    assert len(refused) == 3 and all(line["flip"] is None and line["flip_of"] == "" for line in refused)


def test_own_rows_and_trained_ids_tell_mixed_rows_apart(bench: Bench) -> None:
    keep: dict[str, Keep] = {"only": ResponseReflectedOnly()}
    table = bench.assemble(_paper(bench), keep, Assembly(originals=1.0)).table("training")
    assert own_rows(table)["id"].to_pylist() == bench.ids
    mixed = {line["id"].removeprefix("original:") for line in table.to_pylist()[5:]}
    assert len(mixed) == 2 and trained_ids(table) == {bench.ids[0], bench.ids[1]} | mixed
