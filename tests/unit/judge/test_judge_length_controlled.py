"""AlpacaEval 2's length-controlled win rate through the package alpaca_eval, or a clear error without it."""

import csv
import importlib.util
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from srecycle.errors import UserError
from srecycle.judge.annotations import Annotation, figures, read_annotations
from srecycle.judge.length_controlled import length_controlled, require_difficulty, require_package

INSTRUCTIONS = 60
COLUMNS = ("model", "preference", "index", "std_delta_len", "instruction_difficulty", "not_gamed_baseline")
PUBLISHED = ("recycled-wizardlm-7b-v2.0", "alpaca-7b")
installed = pytest.mark.skipif(
    importlib.util.find_spec("alpaca_eval") is None or importlib.util.find_spec("pkg_resources") is None,
    reason="the package alpaca_eval isn't installed, or not with setuptools<81",
)


def _difficulty(folder: Path, instructions: int = INSTRUCTIONS, columns: Sequence[str] = COLUMNS) -> Path:
    """Write a file of the shape of df_gamed.csv: two baselines, one short and one long, that win by chance."""
    chance = random.Random(0)
    hard = [chance.gauss(0, 1) for _ in range(instructions)]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "df_gamed.csv").open("w", newline="") as stream:
        lines = csv.DictWriter(stream, columns, extrasaction="ignore")
        lines.writeheader()
        for model, longer in (("concise", 1), ("verbose", -1)):
            for place in range(instructions):
                values = (model, float(chance.random() < 0.5), place, chance.gauss(longer, 1), hard[place], False)
                lines.writerow(dict(zip(COLUMNS, values, strict=True)))
    return folder / "df_gamed.csv"


def _annotations(longer: int) -> list[Annotation]:
    """Return preferences for the measured output where it is longer; it is so two times of three."""
    chance = random.Random(1)
    names = {"instruction": "i", "generator_1": "gpt4_1106_preview", "generator_2": "me", "annotator": "a"}
    made = []
    for place in range(INSTRUCTIONS):
        length = 300 + chance.randint(1, longer) * (1 if place % 3 else -1)
        preference = 2.0 if length > 300 else 1.0
        made.append(Annotation(**names, output_1="x" * 300, output_2="y" * length, preference=preference))
    return made


@installed
def test_length_controlled_rate_of_what_wins_by_length_alone_is_lower(tmp_path: Path) -> None:
    from sklearn import get_config

    before = get_config()
    annotations, difficulty = _annotations(200), _difficulty(tmp_path)
    found = length_controlled(annotations, difficulty)
    assert figures(annotations)["win_rate"] == pytest.approx(200 / 3)
    assert 0 < found["length_controlled_win_rate"] < 60 and found["length_controlled_win_rate_stderr"] > 0
    assert length_controlled(annotations, difficulty) == found and get_config() == before


def _packages(lines: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, float]:
    """Have the package compute it by itself: from its hub's file as it lies in a cache, and from what it reads."""
    from alpaca_eval import constants
    from alpaca_eval.metrics import get_length_controlled_winrate

    place = folder / "datasets--tatsu-lab--alpaca_eval"
    _difficulty(place / "snapshots" / ("a" * 40), instructions=805)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr(constants, "DEFAULT_CACHE_DIR", str(folder))
    return dict(get_length_controlled_winrate(lines, save_weights_dir=None))


@installed
@pytest.mark.parametrize("name", PUBLISHED)
def test_length_controlled_rate_of_published_annotations_equals_the_packages_own(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    file = shared / f"data/alpaca_eval/{name}_annotations.json"
    theirs = _packages(json.loads(file.read_text()), tmp_path / "hub", monkeypatch)
    ours = length_controlled(read_annotations(file), _difficulty(tmp_path, instructions=805))
    assert ours["length_controlled_win_rate"] == theirs["length_controlled_winrate"]
    assert ours["length_controlled_win_rate_stderr"] == theirs["lc_standard_error"]
    assert abs(ours["length_controlled_win_rate"] - theirs["win_rate"]) > 0.5, "length counts for something"


@installed
def test_length_controlled_rate_keeps_the_places_of_what_is_left(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pandas

    annotations = read_annotations(shared / f"data/alpaca_eval/{PUBLISHED[0]}_annotations.json")
    missing = [place for place in range(805) if place % 7 == 3]
    for place in missing:
        annotations[place] = replace(annotations[place], preference=None, output_2="", status="no_output")
    left = {place: one.line for place, one in enumerate(annotations) if place not in missing}
    theirs = _packages(pandas.DataFrame(left.values(), index=list(left)), tmp_path / "hub", monkeypatch)
    ours = length_controlled(annotations, _difficulty(tmp_path, instructions=805))
    assert ours["length_controlled_win_rate"] == theirs["length_controlled_winrate"]
    unplaced = length_controlled([annotations[place] for place in left], tmp_path / "df_gamed.csv")
    assert unplaced != ours, "difficulties belong to places"


@installed
@pytest.mark.parametrize("name", PUBLISHED)
def test_annotations_figures_are_those_of_the_packages_leaderboard(shared: Path, name: str) -> None:
    import alpaca_eval

    file = "leaderboards/data_AlpacaEval/alpaca_eval_gpt4_leaderboard.csv"
    with (Path(alpaca_eval.__file__).parent / file).open(newline="") as stream:
        (row,) = [line for line in csv.DictReader(stream) if line[""] == name]
    found = figures(read_annotations(shared / f"data/alpaca_eval/{name}_annotations.json"))
    theirs = {"win_rate": "win_rate", "win_rate_stderr": "standard_error", "wins": "n_wins", "losses": "n_wins_base"}
    theirs |= {"draws": "n_draws", "judged": "n_total", "avg_length": "avg_length"}
    assert {ours: found[ours] for ours in theirs} == pytest.approx(
        {ours: float(row[one]) for ours, one in theirs.items()}
    )


@installed
def test_length_controlled_rate_that_cannot_be_computed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="computes no length-controlled win rate from these 1 annotations"):
        length_controlled(_annotations(200)[:1], _difficulty(tmp_path))


@pytest.mark.skipif(importlib.util.find_spec("alpaca_eval") is not None, reason="the package alpaca_eval is installed")
def test_length_controlled_rate_without_the_package_says_what_to_install() -> None:
    with pytest.raises(UserError, match=r"isn't installed; pip install 'alpaca_eval>=0.6.6' 'setuptools<81'"):
        require_package()


def test_difficulty_of_another_form_or_set_is_refused(tmp_path: Path) -> None:
    require_difficulty(_difficulty(tmp_path), INSTRUCTIONS)
    with pytest.raises(UserError, match="is about 60 instructions, and 805 are asked"):
        require_difficulty(tmp_path / "df_gamed.csv", 805)
    with pytest.raises(UserError, match="has no column 'instruction_difficulty'"):
        require_difficulty(_difficulty(tmp_path, columns=COLUMNS[:4]), INSTRUCTIONS)
    with pytest.raises(UserError, match="can't be read"):
        require_difficulty(tmp_path / "nowhere.csv", INSTRUCTIONS)
