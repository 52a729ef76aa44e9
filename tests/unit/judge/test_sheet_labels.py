"""Labelled sheets: read from whatever a spreadsheet made of them, and what follows from their labels."""

import csv
import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from srecycle.errors import UserError
from srecycle.judge import labels
from srecycle.judge.__main__ import main
from srecycle.judge.labels import Sheet, agreements, analysed, read_sheet
from srecycle.judge.pairs import Pair, Verdict
from srecycle.judge.sheet import Key, read_key, write_sheets

VERDICTS = st.sampled_from(["win", "tie", "lose"])


def _key(rows: int, sheets: int = 3, *, own_first: bool = True) -> Key:
    names = [f"r{place:03}" for place in range(1, rows + 1)]
    order = {f"s-{number}": dict.fromkeys(names, own_first) for number in range(1, sheets + 1)}
    return Key(study="s", own="a", other="b", rows={name: f"id {name}" for name in names}, own_first=order)


def _sheets(*verdicts: Sequence[Verdict | None]) -> list[Sheet]:
    """Make a sheet an annotator, of verdicts by row."""
    return [
        Sheet(
            name=f"s-{number}",
            verdicts={f"r{row:03}": one for row, one in enumerate(labels, start=1) if one},
            missing=sum(one is None for one in labels),
            invalid=0,
            problems=(),
        )
        for number, labels in enumerate(verdicts, start=1)
    ]


def _written(path: Path, *lines: Iterable[str], separator: str = ",", encoding: str = "utf-8") -> Path:
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=separator).writerows(lines)
    path.write_bytes(stream.getvalue().encode(encoding))
    return path


HEADER = ("sheet", "row", "preference")


@pytest.mark.parametrize("own_first", [True, False])
def test_sheet_labels_are_read_from_owns_point_of_view(tmp_path: Path, own_first: bool) -> None:
    labels = ["1", "2", "tie", "1.0", " TIE ", "2,0"]
    lines = [("s-1", f"r{row:03}", label) for row, label in enumerate(labels, start=1)]
    found = read_sheet(_written(tmp_path / "s.csv", HEADER, *lines), _key(6, own_first=own_first))
    first, second = ("win", "lose") if own_first else ("lose", "win")
    assert list(found.verdicts.values()) == [first, second, "tie", first, "tie", second]
    assert (found.missing, found.invalid, found.problems) == (0, 0, ())


@pytest.mark.parametrize(
    ("separator", "encoding"),
    [(",", "utf-8"), (",", "utf-8-sig"), (";", "utf-8-sig"), (";", "cp1252"), ("\t", "utf-16"), ("\t", "utf-8")],
)
@pytest.mark.parametrize("columns", [("Comment", "preference", "answer_1", "ROW", " sheet "), HEADER])
def test_sheet_that_went_through_a_spreadsheet_reads_the_same(
    tmp_path: Path, separator: str, encoding: str, columns: Sequence[str]
) -> None:
    texts = {"answer_1": 'say "yes",\nthen; \'=1\t\u00e9', "comment": "caf\u00e9"}
    labels = (("s-1", "r001", "1"), ("s-1", "r002", "tie"))
    records = [texts | dict(zip(HEADER, label, strict=True)) for label in labels]
    lines = [[record[name.strip().lower()] for name in columns] for record in records]
    path = _written(tmp_path / "s.csv", columns, *lines, [""] * len(columns), separator=separator, encoding=encoding)
    found = read_sheet(path, _key(2))
    assert (dict(found.verdicts), found.problems) == ({"r001": "win", "r002": "tie"}, ())


def test_sheet_labels_that_are_none_are_told_with_file_and_line(tmp_path: Path) -> None:
    path = _written(
        tmp_path / "s.csv",
        (*HEADER, "comment"),
        ("s-1", "r001", "1", "two\nlines"),  # lines 2 and 3
        ("s-1", "r002", "", ""),
        ("s-1", "r003", "both", ""),
        ("s-1", "r999", "1", ""),
        ("s-1", "r004", "1", ""),
        ("s-1", "r004", "1", "again"),
        ("s-1", "r005", "1", ""),
        ("s-1", "r005", "2", "or not"),
        ("s-1", "r007", "=1", ""),
    )
    found = read_sheet(path, _key(7))
    assert dict(found.verdicts) == {"r001": "win", "r004": "win"}
    assert (found.missing, found.invalid) == (2, 4)
    assert found.problems == (
        f"{path}: line 4 (row r002): no label",
        f"{path}: line 5 (row r003): 'both' is none of 1, 2, tie",
        f"{path}: line 6 (row r999): the key has no such row",
        f"{path}: line 11 (row r007): '=1' is none of 1, 2, tie",
        f"{path}: row r006 is not there",
        f"{path}: row r005 stands there twice, with different labels",
    )


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([("sheet", "row", "label"), ("s-1", "r001", "1")], "names the columns sheet, row, preference"),
        ([], "begins with ''"),
        ([("sheet", "row", "preference", "Preference"), ("s-1", "r001", "1", "2")], "has 'preference' twice"),
        ([HEADER], "'sheet' has none"),
        ([HEADER, ("t-1", "r001", "1")], "is the sheet t-1, which the key doesn't know"),
        ([HEADER, ("s-1", "r001", "1"), ("s-2", "r002", "1")], "'sheet' has s-1, s-2"),
    ],
)
def test_sheet_of_another_kind_or_study_is_refused(tmp_path: Path, lines: list[tuple[str, ...]], said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_sheet(_written(tmp_path / "s.csv", *lines), _key(2))


def test_sheet_with_an_answer_of_any_length_is_read(tmp_path: Path) -> None:
    lines = [(*HEADER, "answer_1"), ("s-1", "r001", "2", "x" * 140_000), ("s-1", "r002", "tie", "")]
    found = read_sheet(_written(tmp_path / "s.csv", *lines), _key(2))
    assert dict(found.verdicts) == {"r001": "lose", "r002": "tie"}


def test_sheet_whose_first_line_is_no_csv_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "_LONGEST", 131_072)
    csv.field_size_limit(131_072)
    (tmp_path / "s.csv").write_text("x" * 140_000 + "\n")
    with pytest.raises(UserError, match="names the columns sheet, row, preference"):
        read_sheet(tmp_path / "s.csv", _key(1))


def test_sheet_whose_key_lacks_a_rows_order_is_refused(tmp_path: Path) -> None:
    path = _written(tmp_path / "s.csv", HEADER, ("s-1", "r001", "1"), ("s-1", "r002", "1"))
    torn = _key(2).model_copy(update={"own_first": {"s-1": {"r001": True}}})
    with pytest.raises(UserError, match="which answer of row r002 came first in the sheet s-1"):
        read_sheet(path, torn)


@pytest.mark.parametrize("command", [["sheet", "a", "b", "--prompts", "p", "--out", "o"], ["analyse", "k", "s"]])
def test_command_with_a_negative_seed_is_refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--seed", "-1"])
    assert "--seed: -1 is negative" in capsys.readouterr().err


def test_sheet_that_is_torn_or_missing_is_refused(tmp_path: Path) -> None:
    torn = tmp_path / "s.csv"
    torn.write_text('sheet,row,preference\ns-1,r001,"1')
    with pytest.raises(UserError, match=r"line 2 is not CSV"):
        read_sheet(torn, _key(1))
    with pytest.raises(UserError, match="can't be read"):
        read_sheet(tmp_path / "nowhere.csv", _key(1))
    for content in ("{}", "no", '{"study": 1}'):
        (tmp_path / "key.json").write_text(content)
        with pytest.raises(UserError, match="is no key of a sheet"):
            read_key(tmp_path / "key.json")


@pytest.mark.parametrize(
    ("labels", "majority"),
    [
        (("win",), "win"),
        (("win", "win", "lose"), "win"),
        (("tie", "lose", "tie"), "tie"),
        (("win", "tie", "lose"), None),
        (("win", "lose"), None),
        (("win", "win", "tie", "lose"), "win"),
        (("win", "win", "lose", "lose", "tie"), None),
        ((), None),
    ],
)
def test_majority_is_the_label_that_most_annotators_gave(labels: Sequence[Verdict], majority: str | None) -> None:
    for order in permutations(labels):
        found = analysed(_sheets(*([label] for label in order), []), _key(1, 9), 0)
        assert found.verdicts == {"r001": majority}
        reason = "no_majority" if labels else "no_label"
        assert found.metrics.get(f"unjudged/{reason}", 0) == (majority is None)


def test_analysis_gives_the_papers_win_rate_of_its_human_study(shared: Path) -> None:
    tables = json.loads((shared / "reference/paper_tables.json").read_text())
    (study,) = tables["human_study"].values()
    verdicts: list[Verdict] = ["win"] * study["win"] + ["tie"] * study["tie"] + ["lose"] * study["lose"]
    one_dissents: list[Verdict] = ["tie" if verdict == "win" else "win" for verdict in verdicts]
    found = analysed(_sheets(verdicts, one_dissents, verdicts), _key(study["n"]), 0).metrics
    assert {name: found[name] for name in ("win", "tie", "lose")} == {n: study[n] for n in ("win", "tie", "lose")}
    assert found["judged"] == found["rows"] == study["n"]
    assert found["win_rate"] == pytest.approx((57 - 28) / 108 + 1)
    assert found["win_rate_low"] < found["win_rate"] < found["win_rate_high"]
    assert (found["agreement"], found["unanimous"], found["labels"]) == (pytest.approx(1 / 3), 0.0, 324)


def test_alpha_equals_the_published_example_of_two_observers() -> None:
    # Krippendorff (2011), Computing Krippendorff's alpha-reliability, section A: binary data, alpha = 0.095.
    named: Mapping[str, Verdict] = {"0": "lose", "1": "win"}
    found = analysed(_sheets(*([named[one] for one in line] for line in ("0100000010", "1110010000"))), _key(10), 0)
    assert found.metrics["alpha_nominal"] == pytest.approx(0.095, abs=5e-4)
    assert found.metrics["alpha_ordinal"] == pytest.approx(0.095, abs=5e-4)
    assert found.metrics["agreement"] == pytest.approx(0.6)


def _nominal_alpha(rows: Sequence[Sequence[str | None]]) -> float:
    """Compute 1 - observed / expected disagreement from pairs of labels, straight from the definition."""
    units = [[label for label in row if label] for row in rows]
    units = [unit for unit in units if len(unit) > 1]
    values = [label for unit in units for label in unit]
    observed = sum(sum(a != b for a, b in permutations(unit, 2)) / (len(unit) - 1) for unit in units) / len(values)
    expected = sum(a != b for a, b in permutations(values, 2)) / (len(values) * (len(values) - 1))
    return 1 - observed / expected


@given(st.lists(st.tuples(*[st.none() | VERDICTS] * 3), min_size=2, max_size=12))
def test_alpha_with_missing_labels_follows_the_definition(rows: list[tuple[Verdict | None, ...]]) -> None:
    shared = [[label for label in row if label] for row in rows if sum(map(bool, row)) > 1]
    found = analysed(_sheets(*zip(*rows, strict=True)), _key(len(rows)), 0)
    if len({label for row in shared for label in row}) < 2:
        assert "alpha" in found.unknown and "alpha_nominal" not in found.metrics
        assume(False)
    assert found.metrics["alpha_nominal"] == pytest.approx(_nominal_alpha(rows))


def test_alpha_as_an_order_counts_win_against_lose_for_more_than_against_tie() -> None:
    near = analysed(_sheets(["win", "tie", "lose", "win"], ["win", "win", "lose", "tie"]), _key(4), 0).metrics
    far = analysed(_sheets(["win", "tie", "lose", "win"], ["lose", "tie", "win", "win"]), _key(4), 0).metrics
    assert near["agreement"] == far["agreement"] == 0.5
    assert near["alpha_ordinal"] > near["alpha_nominal"] and far["alpha_ordinal"] < far["alpha_nominal"]


def test_agreement_that_cannot_be_told_is_a_reason_and_no_number() -> None:
    alone = analysed(_sheets(["win", "tie"]), _key(2), 0)
    assert set(alone.unknown) == {"agreement", "alpha"} and "agreement" not in alone.metrics
    same = analysed(_sheets(["win", "win"], ["win", "win"]), _key(2), 0)
    assert same.metrics["agreement"] == 1.0 and "all labels are the same" in same.unknown["alpha"]
    none = analysed(_sheets([None], [None]), _key(1), 0).metrics
    assert (none["judged"], none["unjudged/no_label"], none["missing"]) == (0, 1, 2) and "win_rate" not in none
    assert agreements(_sheets(["win", None], ["win", "tie"], [None, "tie"])) == {
        ("s-1", "s-2"): (1, 1),
        ("s-1", "s-3"): (0, 0),
        ("s-2", "s-3"): (1, 1),
    }


def test_analysis_refuses_a_sheet_given_twice_and_names_a_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = _sheets(["win", "tie"])
    with pytest.raises(UserError, match="s-1 was given twice"):
        analysed([one, one], _key(2), 0)
    monkeypatch.setitem(sys.modules, "krippendorff", None)
    with pytest.raises(UserError, match=r"pip install 'srecycle\[human\]'"):
        analysed(_sheets(["win", "tie"], ["tie", "tie"]), _key(2), 0)
    assert analysed([one], _key(2), 0).metrics["judged"] == 2


def test_analyse_command_tells_and_writes_what_the_written_sheets_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two annotators always prefer own's answer, whichever place it has; a third always the first one shown."""
    pairs = [Pair(id=f"id{n}", position=n, question="q", own=f"own {n}", other=f"other {n}") for n in range(6)]
    write_sheets(pairs, ("mine", "theirs"), tmp_path / "s", rows=None, annotators=3, seed=1)
    files = []
    for number in (1, 2, 3):
        text = (tmp_path / f"s/sheets/annotator_{number}.csv").read_bytes().decode("utf-8-sig")
        lines: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(text, newline="")))
        for line in lines:
            line["preference"] = "1" if number == 3 or line["answer_1"].startswith("own") else "2"
        lines[0]["preference"] = "?" if number == 3 else lines[0]["preference"]
        files.append(_written(tmp_path / f"{number}.csv", lines[0], *(line.values() for line in lines), separator=";"))
    out = tmp_path / "told.json"
    command = ["analyse", str(tmp_path / "s/key.json"), *map(str, files)]
    assert main([*command, "--json", str(out)]) == 0
    said = capsys.readouterr()
    assert "mine against theirs: 6 rows, 3 annotators" in said.out and "2.000" in said.out
    assert said.err == f"{files[2]}: line 2 (row r001): '?' is none of 1, 2, tie\n"
    told = json.loads(out.read_text())
    assert (told["metrics"]["win"], told["metrics"]["invalid"], told["metrics"]["labels"]) == (6, 1, 17)
    assert {row["id"]: row["verdict"] for row in told["rows"]} == {f"id{n}": "win" for n in range(6)}
    assert sorted(row["labels"].popitem()[1] or "" for row in told["rows"][1:]) in (
        ["lose"] * 2 + ["win"] * 3,
        ["lose"] * 3 + ["win"] * 2,
    )
    assert main([*command, str(files[0])]) == 2 and "given twice" in capsys.readouterr().err
