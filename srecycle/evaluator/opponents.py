"""Whom answers are compared with: another run of the store, or a file of answers.

A run is named by its id, or by its name (the newest finished run of that name). Its answers are those that one of its
own evaluations kept, generated with the same settings: answers sampled otherwise say something about the sampling.
Identity: the content of the answers.
"""

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srecycle.config import Canonical
from srecycle.data.files import digest_of
from srecycle.errors import UserError
from srecycle.evaluator.answers import ANSWER_SCHEMA, SETTINGS, read
from srecycle.evaluator.prompts import Prompt, read_answers
from srecycle.rows import OK
from srecycle.store import Store

_TABLES = (".json", ".jsonl", ".ndjson", ".parquet")
_ANSWERS = "answers.parquet"
_ASKED = "the file"
_KEPT_NOTHING = (
    "the run {} kept no answers: run it again with evaluator=answers (or pairwise) and the same prompts; what it has "
    "made already is found"
)


@dataclass(frozen=True, kw_only=True)
class Opponent:
    """Somebody's answers: a file of ours (`kept`) or of anybody's. `content` is its digest."""

    name: str
    file: Path
    kept: bool

    @property
    def content(self) -> str:
        """The digest of the answers."""
        return digest_of(self.file, "against")

    def answers(self, prompts: Mapping[str, list[Prompt]]) -> dict[str, dict[str, str]]:
        """Return, by set, the first-turn answers to these prompts that there are, by the prompts' ids.

        Raises UserError where a set has none at all, or the file can't be read.
        """
        known = self._kept() if self.kept else read_answers(self.file, "against")
        found = {
            name: {prompt.id: known[prompt.id] for prompt in some if prompt.id in known}
            for name, some in prompts.items()
        }
        if without := [name for name, some in found.items() if not some]:
            raise UserError(
                f"{self.name} has no answers to the prompts of {', '.join(without)}: compare with answers to the same "
                "prompts (a run has them that was evaluated with evaluator=answers or pairwise and the same files)"
            )
        return found

    def _kept(self) -> dict[str, str]:
        import pyarrow.parquet as pq

        return {one.id: one.text for one in read(pq.read_table(self.file)) if one.turn == 0 and one.status == OK}


def opponent(against: str, store: Store, settings: Mapping[str, Canonical]) -> Opponent:
    """Find whom `against` names: a file of answers, or a run that answered with these settings. Raises UserError."""
    file = Path(against).expanduser()
    if file.suffix in _TABLES:
        return Opponent(name=against, file=file, kept=_is_ours(file))
    run = _run(against, store)
    differences: list[str] = []
    for folder, used in _kept_answers(run, store):
        different = [
            f"{name}: {used.get(name)} there, {settings[name]} here"
            for name in SETTINGS
            if used.get(name) != settings[name]
        ]
        if not different:
            return Opponent(name=f"the run {run['id']}", file=folder / _ANSWERS, kept=True)
        differences = different
    if differences:
        raise UserError(
            f"the run {run['id']} answered with other settings ({'; '.join(differences)}): answers are compared that "
            "were generated alike"
        )
    raise UserError(_KEPT_NOTHING.format(run["id"]))


def sides(first: str, second: str, store: Store, prompts: list[Prompt]) -> tuple[dict[str, str], dict[str, str]]:
    """Return two sides' answers to these prompts, by the prompts' ids; each side is a file of answers, or a run.

    Of runs, answers that both generated with the same settings. Raises UserError where a side has none.
    """
    refused: list[UserError] = []
    for one, settings in _candidates(first, store):
        for other, others in _candidates(second, store):
            if settings and others and any(settings.get(name) != others.get(name) for name in SETTINGS):
                continue
            try:
                return one.answers({_ASKED: prompts})[_ASKED], other.answers({_ASKED: prompts})[_ASKED]
            except UserError as error:
                refused.append(error)
    if refused:
        raise refused[0]
    raise UserError(
        f"{first} and {second} answered with other settings: answers are compared that were generated alike"
    )


def _candidates(name: str, store: Store) -> list[tuple[Opponent, Mapping[str, Any]]]:
    """Return where a side's answers may be, with the settings that they were generated with, if known."""
    file = Path(name).expanduser()
    if file.suffix in _TABLES:
        return [(Opponent(name=name, file=file, kept=_is_ours(file)), {})]
    run = _run(name, store)
    found = [
        (Opponent(name=f"the run {run['id']}", file=folder / _ANSWERS, kept=True), used)
        for folder, used in _kept_answers(run, store)
    ]
    if not found:
        raise UserError(_KEPT_NOTHING.format(run["id"]))
    return found


def _is_ours(file: Path) -> bool:
    """Whether a file is an `answers.parquet` that an evaluation of ours kept."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return file.suffix == ".parquet" and set(ANSWER_SCHEMA.names) <= set(pq.read_schema(file).names)
    except (OSError, pa.ArrowException):
        return False  # who reads it says what is wrong with it


def _run(against: str, store: Store) -> Mapping[str, Any]:
    """Return the run of this id, else the newest finished one of this name."""
    runs = list(_runs(store))
    for run in runs:
        if run["id"] == against:
            return run
    named = [run for run in runs if run["name"] == against and run["status"] == "finished"]
    if named:
        return named[0]
    names = sorted({name for run in runs for name in (run["id"], run["name"])})
    close = difflib.get_close_matches(against, names, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    raise UserError(
        f"{store.root} has no finished run {against}{hint}: name a run by its id or name, or a file of answers "
        f"({', '.join(_TABLES)})"
    )


def _runs(store: Store) -> Iterator[Mapping[str, Any]]:
    """Yield what the store's runs say of themselves, newest first; those that can't be read were killed early."""
    for path in sorted((store.root / "runs").glob("*/run.json"), reverse=True):
        try:
            content = json.loads(path.read_text())
            yield {name: content[name] for name in ("id", "name", "status", "stages")}
        except (OSError, ValueError, KeyError, TypeError):
            continue


def _kept_answers(run: Mapping[str, Any], store: Store) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Yield the run's finished evaluations that kept answers, with the settings of each."""
    for stage in run["stages"]:
        found = store.find("evaluate", stage["key"]) if stage["stage"] == "evaluate" else None
        if found and _ANSWERS in found.record["files"]:
            yield found.folder, found.record["payload"]["evaluator"]
