"""A study's plan, read from `study.toml` in its folder: the runs that it is made of, and the tables made of them.

    name = "ablation"                   # the runs' group
    minutes = 90                        # the time that the whole of it takes on two cores
    common = ["tracker=jsonl", ...]     # overrides of every run, as srecycle takes them
    train = ["trainer=testbed", ...]    # those of the training, which an arm or a block may replace
    [parameters]                        # {rows} in any override
    rows = 800
    [factors]                           # what is crossed, the first varying slowest; {seed} in any override
    seed = [0, 1, 2]
    [sets.teacher]                      # what a value of a factor overrides
    decent = ["teacher=scripted"]
    [arms.selective]                    # an arm's overrides
    set = ["experiment=paper/table4_selective"]
    [[blocks]]                          # runs: arms crossed with the factors, some of which have other values here
    name = "main"
    arms = ["selective", "original"]
    factors = {seed = [0]}
    [small]                             # what --small changes: minutes, parameters, factors, blocks
    parameters = {rows = 200}

Of overrides of one key the last counts: common, a block's `set`, the factors', the arm's, the training's.

An arm with `rows_of = "OTHER"` is trained on as many rows as that arm kept in the same cell (keep.top_random.rows).
`base=weak_1` among overrides is a base student by its name and seed: weak and strong of seed 0 are shipped, the others
lie in $SRECYCLE_BASES, by default the folder `bases` beside the study's. Runs of equal overrides are one job, whatever
blocks they stand in.
"""

import itertools
import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from srecycle.compose import PACKAGE
from srecycle.config import fingerprint
from srecycle.digest import folder_digest
from srecycle.errors import UserError

FILE = "study.toml"
BASES = "SRECYCLE_BASES"

Factors = Mapping[str, str]
Table = Mapping[str, Any]

_KEYS = {
    *("name", "minutes", "common", "train", "parameters", "factors", "sets", "arms", "blocks", "tables", "small"),
    *("phrases",),
}
_BLOCK_KEYS = {"name", "arms", "factors", "set", "train"}
_ARM_KEYS = {"set", "train", "rows_of"}
_SMALL_KEYS = {"minutes", "parameters", "factors", "blocks"}
_SHIPPED = ("weak", "strong")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run to be made: its overrides, and the job whose count of kept rows it is given ("" for none).

    `place` names the cell that it belongs to: jobs of one place share data, replies and likelihoods.
    """

    id: str
    overrides: tuple[str, ...]
    rows_of: str
    place: str
    label: str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """An arm in one setting of a block's factors, and the job that runs it."""

    block: str
    arm: str
    factors: Factors
    job: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a study does. `jobs` are by id, in the order in which they are run."""

    name: str
    folder: Path
    minutes: float
    jobs: Mapping[str, Job]
    cells: tuple[Cell, ...]
    tables: tuple[Table, ...]
    phrases: Mapping[str, str]
    small: bool


def read_plan(folder: Path, *, small: bool = False, given: Mapping[str, str] | None = None) -> Plan:
    """Read a study's plan; `given` replaces parameters. Raises UserError where it is none, or a base is missing."""
    file = folder / FILE
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{file} can't be read ({error.strerror}): give a study's folder, as in experiments/"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{file} is no TOML: {error}") from error
    try:
        return _plan(folder, content, small, given or {})
    except ValueError as error:
        raise UserError(f"{file}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class _Study:
    """What all runs have in common. `bases` remembers the base students that were looked up."""

    folder: Path
    content: Mapping[str, Any]
    parameters: Mapping[str, str]
    factors: Mapping[str, Sequence[str]]
    bases: dict[str, "_Base"] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Base:
    folder: Path
    digest: str


def _plan(folder: Path, content: Mapping[str, Any], small: bool, given: Mapping[str, str]) -> Plan:
    _refuse_unknown("it", content, _KEYS)
    needed = ("name", "factors", "arms") if content.get("blocks") else ("name", "tables")
    if missing := [name for name in needed if not content.get(name)]:
        raise ValueError(f"has no {missing[0]}")
    _refuse_unknown("small", content.get("small", {}), _SMALL_KEYS)
    changed = content.get("small", {}) if small else {}
    parameters = {**content.get("parameters", {}), **changed.get("parameters", {}), **given}
    if strange := [name for name in parameters if name not in content.get("parameters", {})]:
        raise ValueError(f"{strange[0]} is no parameter; there are: {', '.join(content.get('parameters', {}))}")
    fewer = changed.get("factors", {})
    study = _Study(
        folder=folder,
        content=content,
        parameters={name: str(value) for name, value in parameters.items()},
        factors={name: _texts(fewer.get(name, values)) for name, values in content.get("factors", {}).items()},
    )
    every = content.get("blocks", [])
    chosen = changed.get("blocks", [block.get("name") for block in every])
    blocks = [block for block in every if block.get("name") in chosen]
    if len(blocks) < len(chosen):
        raise ValueError(f"small.blocks names {', '.join(chosen)}, and not all of them are blocks")
    found = [one for block in blocks for one in _runs(study, block, fewer)]
    jobs: dict[str, Job] = {}
    for _, job in found:
        jobs.setdefault(job.id, job)
    return Plan(
        name=content["name"] + ("-small" if small else ""),
        folder=folder,
        minutes=float(changed.get("minutes", content.get("minutes", 0))),
        jobs=jobs,
        cells=tuple(cell for cell, _ in found),
        tables=tuple(content.get("tables", ())),
        phrases=content.get("phrases", {}),
        small=small,
    )


def _runs(study: _Study, block: Mapping[str, Any], fewer: Mapping[str, Any]) -> Iterator[tuple[Cell, Job]]:
    """Yield a block's cells with their jobs, arms varying fastest."""
    name = str(block.get("name", ""))
    _refuse_unknown(f"block {name}", block, _BLOCK_KEYS)
    own = {key: _fewer(_texts(values), fewer.get(key, values)) for key, values in block.get("factors", {}).items()}
    factors = {**study.factors, **own}
    for values in itertools.product(*factors.values()):
        setting = dict(zip(factors, values, strict=True))
        jobs: dict[str, str] = {}
        for arm in block.get("arms", ()):
            job = _job(study, block, arm, setting, jobs)
            jobs[arm] = job.id
            yield Cell(block=name, arm=arm, factors=setting, job=job.id), job


def _fewer(values: list[str], wanted: Any) -> list[str]:
    """Return those values that --small leaves of a block's own; all, where it means others."""
    return [one for one in values if one in _texts(wanted)] or values


def _job(study: _Study, block: Mapping[str, Any], arm: str, setting: Factors, before: Mapping[str, str]) -> Job:
    if arm not in study.content["arms"]:
        raise ValueError(f"block {block['name']} has the arm {arm}; there are: {', '.join(study.content['arms'])}")
    own = study.content["arms"][arm]
    _refuse_unknown(f"arm {arm}", own, _ARM_KEYS)
    sets = study.content.get("sets", {})
    if unset := [f"{key}.{value}" for key, value in setting.items() if key in sets and value not in sets[key]]:
        raise ValueError(f"sets has no {unset[0]}")
    written = [
        *study.content.get("common", ()),
        *block.get("set", ()),
        *(one for key, value in setting.items() if key in sets for one in sets[key][value]),
        *own.get("set", ()),
        *own.get("train", block.get("train", study.content.get("train", ()))),
    ]
    values = {**study.parameters, **setting}
    named = [_filled(one, values, f"arm {arm}") for one in written]
    overrides = tuple(one for text in _last(named) for one in _with_base(study, text))
    rows_of = own.get("rows_of", "")
    if rows_of and rows_of not in before:
        raise ValueError(f"arm {arm} takes its rows of {rows_of}, which block {block['name']} doesn't run before it")
    reference = before[rows_of] if rows_of else ""
    digests = [study.bases[text.partition("=")[2]].digest for text in _last(named) if text.startswith("base=")]
    paths = [one for one in overrides if not one.startswith("student.path=")]
    return Job(
        id=fingerprint([*paths, *digests, reference])[:12],
        overrides=overrides,
        rows_of=reference,
        place=" ".join(f"{key}={setting[key]}" for key in study.factors),
        label=" ".join([str(block["name"]), *(f"{key}={value}" for key, value in setting.items()), arm]),
    )


def _filled(text: str, values: Mapping[str, str], where: str) -> str:
    """Put parameters and factors in place of their names in braces; `${...}` is Hydra's, and stays."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise ValueError(f"{where}: {text} has {{{match[1]}}}, which is neither a parameter nor a factor")
        return values[match[1]]

    return re.sub(r"(?<!\$)\{(\w+)\}", value, text)


def _last(overrides: Sequence[str]) -> list[str]:
    """Return overrides of which none sets a key again: the last one counts, in the place of the first."""
    return list({one.partition("=")[0].lstrip("+"): one for one in overrides}.values())


def _with_base(study: _Study, text: str) -> tuple[str, ...]:
    key, _, name = text.partition("=")
    if key != "base":
        return (text,)
    if name not in study.bases:
        folder = base_folder(name, study.folder)
        study.bases[name] = _Base(folder=folder, digest=folder_digest(folder, {one.name for one in folder.iterdir()}))
    return ("student=testbed_base", f"student.path={study.bases[name].folder}")


def base_folder(name: str, study: Path) -> Path:
    """Return the folder of a base student, `weak_1`: its name and its seed. Raises UserError where there is none."""
    student, _, seed = name.rpartition("_")
    if not student or not seed.isdigit():
        raise ValueError(f"base={name} should be a student's name and its seed, as in weak_1")
    if student in _SHIPPED and seed == "0":
        return PACKAGE / "testbed" / "bases" / student
    bases = Path(os.environ.get(BASES) or study.absolute().parent / "bases").expanduser()
    folder = bases / (student if seed == "0" else name)
    if not (folder / "config.json").is_file():
        raise UserError(
            f"the base student {folder.name} is missing: {folder} is no model; "
            f"`python -m srecycle.testbed.pretrain --student {student} --seed {seed} --out {bases}` makes it (4 to 14 "
            f"minutes on a core), or set {BASES} to the folder that holds it"
        )
    return folder


def _texts(values: Any) -> list[str]:
    if not isinstance(values, list) or not values:
        raise ValueError(f"a factor's values should be a list of at least one, not {values!r}")
    return [str(value) for value in values]


def _refuse_unknown(what: str, content: Mapping[str, Any], known: Collection[str]) -> None:
    if unknown := [name for name in content if name not in known]:
        raise ValueError(f"{what} has the key {unknown[0]}, which is not known; there are: {', '.join(sorted(known))}")
