"""AlpacaEval 2's length-controlled win rate through the package alpaca_eval, or a clear error without it."""

import csv
import importlib.util
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from srecycle.errors import UserError
from srecycle.judge.annotations import Annotation, figures
from srecycle.judge.length_controlled import length_controlled, require_difficulty, require_package

INSTRUCTIONS = 60
COLUMNS = ("model", "preference", "index", "std_delta_len", "instruction_difficulty", "not_gamed_baseline")
installed = pytest.mark.skipif(
    importlib.util.find_spec("alpaca_eval") is None or importlib.util.find_spec("pkg_resources") is None,
    reason="the package alpaca_eval isn't installed, or not with setuptools<81",
)


def _difficulty(folder: Path, columns: Sequence[str] = COLUMNS) -> Path:
    """Write a file of the shape of df_gamed.csv: two baselines, one short and one long, that win by chance."""
    chance = random.Random(0)
    hard = [chance.gauss(0, 1) for _ in range(INSTRUCTIONS)]
    with (folder / "df_gamed.csv").open("w", newline="") as stream:
        lines = csv.DictWriter(stream, columns, extrasaction="ignore")
        lines.writeheader()
        for model, longer in (("concise", 1), ("verbose", -1)):
            for place in range(INSTRUCTIONS):
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
        require_difficulty(_difficulty(tmp_path, COLUMNS[:4]), INSTRUCTIONS)
    with pytest.raises(UserError, match="can't be read"):
        require_difficulty(tmp_path / "nowhere.csv", INSTRUCTIONS)
