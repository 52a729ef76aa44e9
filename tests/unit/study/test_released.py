"""The replay of published statistics, against the two selections written out row by row in plain Python."""

import json
import math
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from srecycle.rows import KINDS
from srecycle.study.__main__ import main
from srecycle.study.released import (
    NOTHING,
    PUBLISHED,
    compared,
    paper_reading,
    published_for,
    released_reading,
)
from srecycle.study.statistics import SPLITS, read_statistics


def record(ifd, r_ifd, *, y=4.0, x=8.0):
    """Return a version's statistics with these scores; powers of two keep the ratios exact."""
    return numbers([x, y, x * r_ifd, y * ifd])


def numbers(ppl):
    return {"data": {"ppl": ppl, "loss": [math.log(one) if one > 0 else 0.0 for one in ppl]}}


FAILED, NONE = numbers([0.0, 0.0, 0.0, 0.0]), {"data": {}}
HALF = record(0.5, 0.5)


def written(folder, rows, ending="jsonl"):
    """Write the four tables; a row has its versions in the order of `KINDS`."""
    folder.mkdir(exist_ok=True)
    for number, split in enumerate(SPLITS.values()):
        records = [row[number] for row in rows]
        file = folder / f"{split}.{ending}"
        if ending == "parquet":
            pq.write_table(pa.Table.from_pylist(records), file)
        else:
            lines = [json.dumps(one) for one in records]
            file.write_text("\n".join(lines) if ending == "jsonl" else f"[{','.join(lines)}]")
    return folder


def readings(folder, rows):
    statistics = read_statistics([str(written(folder, rows))])
    return paper_reading(statistics), released_reading(statistics)


def kinds(reading):
    return [KINDS[number] if number != NOTHING else None for number in reading.taken]


# Original, new instruction, new response, both; then what each reading takes, and why it keeps it or not.
CASES = {
    "harder and better": ([HALF, record(0.75, 0.5), HALF, record(0.5, 0.25)], "both", "", "both", ""),
    "harder, not better": (
        [HALF, record(0.75, 0.5), record(0.5, 0.25), record(0.5, 0.75)],
        *("instruction", "response_not_reflected") * 2,
    ),
    "easier, better": ([HALF, record(0.25, 0.125), record(0.5, 0.25), HALF], "response", "", "response", ""),
    "ties keep the incumbent": ([HALF, HALF, HALF, record(0.5, 0.25)], *("original", "response_not_reflected") * 2),
    "a limit is strict": (
        [HALF, record(0.25, 0.5), record(1.0, 0.25), HALF],
        *("response", "ifd_too_high", "response", "not_below_1"),
    ),
    "no way back to a version that would pass": (
        [record(0.5, 2.0), record(0.25, 0.5), record(0.5, 1.5), HALF],
        *("response", "r_ifd_too_high", "response", "not_below_1"),
    ),
    "a failed response wins by its zero": (
        [HALF, record(0.25, 0.5), FAILED, HALF],
        *("original", "response_not_reflected", "response", ""),
    ),
    "a failed new instruction never wins": ([HALF, FAILED, record(0.5, 0.25), HALF], *("response", "") * 2),
    "a failed original loses to any instruction": (
        [FAILED, HALF, HALF, record(0.5, 0.25)],
        *("original", "ifd_failed", "both", ""),
    ),
    "a failed denominator alone": (
        [HALF, record(0.25, 0.5), numbers([0.0, 4.0, 2.0, 2.0]), HALF],
        *("original", "response_not_reflected", "response", ""),
    ),
    "a loss of zero in a denominator": (
        [numbers([8.0, 1.0, 4.0, 0.5]), record(0.25, 0.5), HALF, record(0.5, 0.25)],
        *("original", "response_not_reflected", "both", ""),
    ),
    "no statistics": ([HALF, record(0.25, 0.5), record(0.5, 0.25), NONE], "response", "", None, "no_statistics"),
    "no original": ([NONE, HALF, HALF, HALF], "original", "ifd_no_statistics", None, "no_statistics"),
}


@pytest.mark.parametrize("name", CASES)
def test_readings_hand_made_row_is_taken_and_kept_as_they_say(tmp_path, name):
    row, *wanted = CASES[name]
    paper, released = readings(tmp_path, [row])
    assert [*kinds(paper), paper.reason[0], *kinds(released), released.reason[0]] == wanted


def oracle_release(row):
    """Take and keep as shared/reference/release.md describes the script, with zeros as numbers."""
    ifd, r_ifd = {}, {}
    for kind, one in zip(KINDS, row, strict=True):
        ppl = one["data"]["ppl"]
        ifd[kind] = ppl[3] / ppl[1] if ppl[1] else 0
        r_ifd[kind] = ppl[2] / ppl[0] if ppl[0] else 0
    if ifd["instruction"] > ifd["original"]:
        taken = "both" if r_ifd["both"] < r_ifd["instruction"] else "instruction"
    else:
        taken = "response" if r_ifd["response"] < r_ifd["original"] else "original"
    return taken, ifd[taken] < 1 and r_ifd[taken] < 1 and taken in ("response", "both")


def oracle_paper(row):
    """Take and keep as the paper words it; a failure compares with nothing and is not kept."""
    scores = {}
    for kind, one in zip(KINDS, row, strict=True):
        x, y, x_given_y, y_given_x = one["data"]["ppl"]
        scores[kind] = (y_given_x / y if y and y_given_x else None, x_given_y / x if x and x_given_y else None)

    def beats(new, old, score, sign):
        one, other = scores[new][score], scores[old][score]
        return one is not None and other is not None and sign * one > sign * other

    taken = "instruction" if beats("instruction", "original", 0, 1) else "original"
    other = {"original": "response", "instruction": "both"}[taken]
    taken = other if beats(other, taken, 1, -1) else taken
    kept = all(one is not None and one < 1 for one in scores[taken]) and taken in ("response", "both")
    return taken, kept


def drawn(rows, seed=3):
    """Draw rows with many ties, scores around 1, and failures of all or one of a version's numbers."""
    rng, found = random.Random(seed), []
    for _ in range(rows):
        row = [record(rng.randint(1, 9) / 8, rng.randint(1, 9) / 8) for _ in KINDS]
        for place, one in enumerate(row):
            if rng.random() < 0.1:
                row[place] = FAILED
            elif rng.random() < 0.1:
                broken = rng.randrange(4)
                row[place] = numbers(
                    [0.0 if number == broken else value for number, value in enumerate(one["data"]["ppl"])]
                )
        found.append(row)
    return found


def test_readings_random_rows_equal_the_oracles(tmp_path):
    rows = drawn(1500)
    paper, released = readings(tmp_path, rows)
    for reading, oracle in ((paper, oracle_paper), (released, oracle_release)):
        wanted = [oracle(row) for row in rows]
        assert list(zip(kinds(reading), reading.kept.tolist(), strict=True)) == wanted
        counts = reading.counts()
        assert counts["kept"] == sum(kept for _, kept in wanted) == sum(counts[f"kept/{kind}"] for kind in KINDS)
        assert len(rows) == counts["kept"] + sum(n for name, n in counts.items() if name.startswith("refused/"))
    assert 0 < paper.counts()["kept"] != released.counts()["kept"] > 0


def test_findings_count_zeros_and_those_that_the_release_keeps(tmp_path):
    rows = [CASES[name][0] for name in ("a failed response wins by its zero", "easier, better", "no statistics")]
    statistics = read_statistics([str(written(tmp_path, rows))])
    findings = compared(statistics, [paper_reading(statistics), released_reading(statistics)], [])
    assert "1 of 11 scored versions failed (a perplexity of 0), in 1 rows; 1 versions have no statistics" in findings[0]
    assert "paper's wording keeps 0 rows by a failed version, the release 1" in findings[0]
    assert "1 rows are kept in the paper's wording only, 1 in the release's only" in findings[1]
    assert "No published set was chosen from 3 rows" in findings[2]


def test_published_sets_are_those_of_the_paper(shared):
    tables = json.loads((shared / "reference" / "paper_tables.json").read_text())["released_sets"]
    assert {one.title: one.kept for one in PUBLISHED.values()} == tables["selected"]
    assert PUBLISHED["alpaca_7b"].rows == tables["base"]["alpaca"]
    assert {PUBLISHED[name].rows for name in ("wizardlm_7b", "wizardlm_13b")} == {tables["base"]["wizardlm_7b_subset"]}


@pytest.mark.parametrize(
    ("named", "rows", "titles"),
    [
        ("alpaca_7b", 3, ["sRecycled Alpaca 7B"]),
        ("some/folder", 52_002, ["sRecycled Alpaca 7B"]),
        ("some/folder", 70_000, ["sRecycled WizardLM 7B", "sRecycled WizardLM 13B"]),
        ("org/Wiz70_Analysis_llama2_13b", 70_000, ["sRecycled WizardLM 13B"]),
        ("some/folder", 70_001, []),
    ],
)
def test_published_for_name_or_size_chooses_the_sets(named, rows, titles):
    assert [one.title for one in published_for(named, rows)] == titles


def test_command_compares_with_the_published_counts_without_asserting(tmp_path, capsys):
    folder = written(tmp_path / "statistics", drawn(20))
    out = tmp_path / "out"
    assert main(["released", str(folder), "--set", "alpaca_7b", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    kept = json.loads((out / "released.json").read_text())["paper"]["kept"]
    assert f"sRecycled Alpaca 7B has 37,114 of 52,002 rows: the paper keeps {kept}, {37114 - kept:,} fewer" in said
    assert "was chosen from 52,002 rows, these are 20" in said
    lines = pq.read_table(out / "released.parquet").to_pylist()
    assert len(lines) == 20 and sum(line["paper_kept"] for line in lines) == kept


@pytest.mark.parametrize("ending", ["json", "jsonl", "parquet"])
@pytest.mark.parametrize("form", ["folder", "data", "files", "flat"])
def test_statistics_any_form_gives_the_same_numbers(tmp_path, ending, form):
    rows = [*drawn(6), [HALF, {"data": {"ppl": None, "loss": None}}, HALF, HALF]]
    wanted = read_statistics([str(written(tmp_path / "wanted", rows))])
    if form == "flat":
        rows = [[one["data"] for one in row] for row in rows]
    root = tmp_path / "given"
    root.mkdir()
    folder = written(root / "data" if form == "data" else root, rows, ending)
    places = sorted(map(str, folder.iterdir())) if form == "files" else [str(root)]
    found = read_statistics(places)
    assert found.there.tolist() == wanted.there.tolist() and not found.there[6, 1]
    assert found.ppl[found.there].tolist() == wanted.ppl[wanted.there].tolist()
    assert found.loss[found.there].tolist() == wanted.loss[wanted.there].tolist()


def test_statistics_snapshot_shards_are_read_in_order(tmp_path):
    folder = written(tmp_path, drawn(3), "parquet")
    whole = pq.read_table(folder / "origin.parquet")
    (folder / "origin.parquet").unlink()
    for number, part in enumerate((whole.slice(0, 2), whole.slice(2))):
        pq.write_table(part, folder / f"origin-0000{number}-of-00002.parquet")
    assert read_statistics([str(folder)]).ppl[:, 0].tolist() == [row["ppl"] for row in whole["data"].to_pylist()]


def misaligned(folder):
    (folder / "reflect_both.jsonl").write_text(json.dumps(HALF))


def spoiled(record):
    return lambda folder: (folder / "reflect_both.jsonl").write_text(f"{json.dumps(HALF)}\n{json.dumps(record)}\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            misaligned,
            "the same order, but they have: origin 2, reflect_instruction 2, reflect_response 2, reflect_both 1",
        ),
        (lambda folder: (folder / "origin.jsonl").unlink(), "has no table origin"),
        (
            spoiled({"data": {"ppl": [1, 2, 3], "loss": [0] * 4}}),
            "reflect_both: record 1: 'ppl' should be four numbers",
        ),
        (spoiled({"data": {"ppl": [1] * 4, "loss": "no"}}), "'loss' should be four numbers, but is no"),
        (spoiled({"data": {"ppl": [1] * 4}}), "should hold 'ppl' and 'loss', alone or in 'data', but holds 'ppl'"),
        (spoiled({"instruction": "x"}), "should hold 'ppl' and 'loss'"),
        (spoiled([1]), "expected an object"),
    ],
)
def test_command_unusable_statistics_are_one_line(tmp_path, told, change, message):
    folder = written(tmp_path, [[HALF] * 4] * 2)
    change(folder)
    assert message in told("released", str(folder))


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (["{folder}/none"], "is no folder: give a folder"),
        (["{folder}/origin.jsonl", "{folder}/mine.jsonl"], "mine.jsonl can't be told"),
        (["{folder}/origin.jsonl", "{folder}/reflect_both.jsonl"], "no file of the split reflect_instruction is given"),
        (["nobody/nothing"], "nobody/nothing is neither a file or folder nor in the local hub cache"),
    ],
)
def test_command_place_without_statistics_is_one_line(tmp_path, told, places, message):
    written(tmp_path, [[HALF] * 4])
    assert message in told("released", *(place.format(folder=tmp_path) for place in places))
