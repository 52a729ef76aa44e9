"""AlpacaEval 2's length-controlled win rate, by the package alpaca_eval: what it would be at the reference's lengths.

The package fits a logistic regression to the preferences, the difference in length and the instructions' difficulty
(arXiv:2404.04475). It reads the difficulty from `df_gamed.csv` of the hub's data set tatsu-lab/alpaca_eval, here from
that file by its path. The file knows instructions by their place in the evaluation set, so annotations must stand in
its order, all of them: those without two outputs are left out here, and the others keep their place.
"""

import csv
import importlib
import importlib.metadata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from srecycle.errors import UserError
from srecycle.judge.annotations import Annotation
from srecycle.progress import quiet_libraries
from srecycle.stage import Metrics

PACKAGE: Final = "alpaca_eval"
_COLUMNS: Final = {"model", "preference", "index", "std_delta_len", "instruction_difficulty", "not_gamed_baseline"}


def package_version() -> str:
    """Return the installed package's version. Raises UserError where there is none."""
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(_missing("it isn't installed")) from error


def require_package() -> None:
    """Raise UserError where the package can't be used."""
    package_version()
    _module()


def require_difficulty(path: Path, instructions: int) -> None:
    """Raise UserError where the file is none of difficulties, or not about as many instructions."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            lines = csv.DictReader(stream)
            missing = _COLUMNS - set(lines.fieldnames or ())
            places = set() if missing else {line["index"] for line in lines}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"difficulty={path} can't be read ({error}): give df_gamed.csv") from error
    if missing:
        raise UserError(f"difficulty={path} has no column {min(missing)!r}: expected AlpacaEval's df_gamed.csv")
    if len(places) != instructions:
        raise UserError(
            f"difficulty={path} is about {len(places)} instructions, and {instructions} are asked: it belongs to "
            "AlpacaEval's own evaluation set, in its order"
        )


def length_controlled(annotations: Sequence[Annotation], difficulty: Path) -> Metrics:
    """Return `length_controlled_win_rate` and its standard error (percent), as predicted for all with two outputs.

    What is unjudged isn't fitted. Raises UserError where the package can't be used, or can't compute it from these.
    """
    from pandas import DataFrame
    from sklearn import config_context

    module = _module()
    places = [place for place, one in enumerate(annotations) if one.output_2 or one.preference is not None]
    lines = DataFrame([annotations[place].line for place in places], index=places)
    try:
        with quiet_libraries(), config_context(), _reading(module, difficulty):
            found = module.get_length_controlled_winrate(
                lines, save_weights_dir=None, is_add_glm_preference_inplace=False, is_warn_extreme_changes=False
            )
    except (ValueError, KeyError, TypeError) as error:
        told = " ".join(str(error).split())
        raise UserError(
            f"alpaca_eval {package_version()} computes no length-controlled win rate from these {len(lines)} "
            f"annotations ({type(error).__name__}: {told})"
        ) from error
    return {
        "length_controlled_win_rate": float(found["length_controlled_winrate"]),
        "length_controlled_win_rate_stderr": float(found["lc_standard_error"]),
    }


@contextmanager
def _reading(module: Any, difficulty: Path) -> Iterator[None]:
    """Have the package read this file where it would download its own: it has no setting for that."""
    downloads = module.hf_hub_download
    module.hf_hub_download = lambda **_: str(difficulty)
    try:
        yield
    finally:
        module.hf_hub_download = downloads


def _module() -> Any:
    try:
        with quiet_libraries():
            return importlib.import_module("alpaca_eval.metrics.glm_winrate")
    except ImportError as error:  # it needs pkg_resources, which setuptools 81 did away with
        raise UserError(_missing(f"it can't be imported: {error}")) from error


def _missing(why: str) -> str:
    return (
        f"AlpacaEval 2's length-controlled win rate needs the package alpaca_eval, and {why}; "
        "pip install 'alpaca_eval>=0.6.6' 'setuptools<81'"
    )
