"""AlpacaEval's annotations: the figures, the versions, and the command that prints them beside the paper's."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from srecycle.errors import UserError
from srecycle.judge.__main__ import main
from srecycle.judge.annotations import Annotation, figures, read_annotations, versions
from tests.conftest import ROOT


def _record(preference: Any, **fields: Any) -> dict[str, Any]:
    names = {"generator_1": "text_davinci_003", "generator_2": "me", "annotator": "alpaca_eval_gpt4"}
    return {"instruction": "i", "output_1": "other", "output_2": "mine", "preference": preference} | names | fields


def _file(folder: Path, *records: Any, name: str = "annotations.json") -> Path:
    (folder / name).write_text(json.dumps(records))
    return folder / name


def _annotation(preference: float | None, output: str = "mine", status: str = "ok") -> Annotation:
    names = {"instruction": "i", "output_1": "other", "generator_1": "", "generator_2": "", "annotator": ""}
    return Annotation(**names, output_2=output, preference=preference, status=status)


def test_figures_are_the_leaderboards() -> None:
    found = figures([_annotation(2.0, "x" * 10), _annotation(1.0, "y" * 5), _annotation(1.5), _annotation(1.75)])
    assert (found["wins"], found["draws"], found["losses"], found["judged"]) == (2, 1, 1, 4)
    assert found["win_rate"] == 100 * (1 + 0 + 0.5 + 0.75) / 4
    deviation = math.sqrt(sum((score - 0.5625) ** 2 for score in (1, 0, 0.5, 0.75)) / 3)
    assert found["win_rate_stderr"] == pytest.approx(100 * deviation / 2)
    assert found["avg_length"] == int((10 + 5 + 4 + 4) / 4) == 5


def test_figures_without_preferences_are_counts_and_no_number() -> None:
    found = figures([_annotation(None, status="cut"), _annotation(None, "", "too_long")])
    assert found == {
        "asked": 2,
        "judged": 0,
        "wins": 0,
        "draws": 0,
        "losses": 0,
        "unjudged/cut": 1,
        "unjudged/too_long": 1,
        "avg_length": 4,
    }
    assert "win_rate_stderr" not in figures([_annotation(2.0)])


@pytest.mark.parametrize(
    ("value", "preference", "status"),
    [
        (1, 1.0, "ok"),
        (0, 1.5, "ok"),
        (1.37, 1.37, "ok"),
        (None, None, "not_annotated"),
        (math.nan, None, "not_annotated"),
        (2.1, None, "out_of_range"),
        (-1, None, "out_of_range"),
        (0.5, None, "out_of_range"),
        ("2", None, "unparsed"),
        (True, None, "unparsed"),
    ],
)
def test_preferences_are_read_or_have_a_reason(
    tmp_path: Path, value: Any, preference: float | None, status: str
) -> None:
    (one,) = read_annotations(_file(tmp_path, _record(value)))
    assert (one.preference, one.status) == (preference, status)


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([], "holds no annotations"),
        ([{"instruction": "i"}], "record 0 has no 'preference'"),
        ([{"preference": 1}], "record 0 has no column 'instruction'"),
        ([_record(1), _record(1, generator_2="you")], r"several models in 'generator_2' \(me, you\)"),
    ],
)
def test_annotations_other_files_are_refused(tmp_path: Path, records: list[Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_annotations(_file(tmp_path, *records))


def test_versions_are_told_by_reference_and_annotator() -> None:
    assert versions(["text_davinci_003"]) == versions(["text-davinci-003"], ["alpaca_eval_gpt4"]) == {1}
    assert versions(["gpt4_1106_preview"]) == versions(["x"], ["weighted_alpaca_eval_gpt4_turbo"]) == {2}
    assert versions(["gpt4_1106_preview"], ["alpaca_eval_gpt4"]) == {1, 2} and versions(["x"], ["srecycle"]) == set()


def test_command_prints_the_published_figures_beside_the_papers(shared: Path) -> None:
    names = ("recycled-wizardlm-7b-v2.0", "alpaca-7b")
    files = [str(shared / f"data/alpaca_eval/{name}_annotations.json") for name in names]
    command = [sys.executable, "-m", "srecycle.judge", "alpaca_eval", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=dict(os.environ))
    lines = done.stdout.splitlines()
    published = {"recycled-wizardlm-7b-v2.0": "sRecycled WizardLM 7B", "alpaca-7b": "Alpaca 7B"}
    figures = {"alpaca-7b": "26.46 1.54 205 16 396", names[0]: "83.48 1.31 672 0 1583"}
    for name, title in published.items():
        (place,) = [number for number, line in enumerate(lines) if line.strip().startswith(f"{name} ")]
        assert " ".join(lines[place].split()) == f"{name} annotations {figures[name]} 805 of 805"
        assert " ".join(lines[place + 1].split()) == f"{title} the paper {figures[name]}"


def test_command_tables_equal_the_papers(shared: Path) -> None:
    from dataclasses import astuple

    from srecycle.judge.leaderboard import TABLE_1

    tables = json.loads((shared / "reference/paper_tables.json").read_text())
    assert [list(astuple(one)) for one in TABLE_1] == [row[:6] for row in tables["table1_alpacaeval"]["rows"]]


def test_command_never_mixes_the_versions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = str(_file(tmp_path, _record(2), _record(1)))
    records = [_record(1.2, generator_1="gpt4_1106_preview", annotator="weighted_alpaca_eval_gpt4_turbo")]
    second = str(_file(tmp_path, *records, name="second.json"))
    assert main(["alpaca_eval", first, second]) == 2
    told = capsys.readouterr()
    assert "these are not comparable: AlpacaEval 1 against text_davinci_003, AlpacaEval 2" in told.err and not told.out
    both = str(_file(tmp_path, _record(1, annotator="weighted_alpaca_eval_gpt4_turbo"), name="both.json"))
    assert main(["alpaca_eval", both]) == 2 and "mixes AlpacaEval's versions" in capsys.readouterr().err
    assert main(["alpaca_eval", second]) == 0
    alone = capsys.readouterr().out
    assert "AlpacaEval 2, against gpt4_1106_preview" in alone and "the paper " not in alone


def test_command_tells_what_has_no_preference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["alpaca_eval", str(_file(tmp_path, _record(None), _record(9)))]) == 0
    told = capsys.readouterr().out
    assert "0 of 2" in told and "me: no preference: 1 not_annotated, 1 out_of_range" in told
