"""Running an experiment: materialize its plan in order, tell the tracker, and leave a `run.json`.

    <store>/runs/<run id>/   run.json (what was run, each stage's key and metrics), metrics.jsonl, the tracker's files,
                             report.html

Only the runner talks to the tracker. Metrics come from the stages' records, so a cached run tracks as much as any.
"""

import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from srecycle.config import Canonical, field_diff, identity
from srecycle.errors import UserError
from srecycle.evaluator import Evaluate
from srecycle.experiment import Experiment
from srecycle.progress import say
from srecycle.reflection import Reflect
from srecycle.reflection.quote import Quote, quote
from srecycle.stage import Made, Stage, materialize
from srecycle.store import RUN, Store, write_json
from srecycle.tracker import NullSession, RunInfo, Session


@dataclass(frozen=True, kw_only=True)
class PlannedStage:
    """What running would do for a stage: `how` is "hit", "resume" or "run"; `changed` says why it is no hit.

    `quote` says what is still to be asked of the teacher, or of a judge, may cost; None where nothing is.
    """

    label: str
    stage: str
    key: str
    how: Literal["hit", "resume", "run"]
    changed: list[str]
    quote: Quote | None


def planned(experiment: Experiment) -> list[PlannedStage]:
    """Say for each stage whether the store has it, and if not, what differs from the newest like it. Runs nothing."""
    store = Store(experiment.store, create=False)
    return [_planned(label, stage, store) for label, stage in experiment.plan().items()]


def _planned(label: str, stage: Stage, store: Store) -> PlannedStage:
    how: Literal["hit", "resume", "run"] = "hit"
    changed: list[str] = []
    if store.find(stage.name, stage.key) is None:
        scratch = store.scratch(stage.name, stage.key)
        how = "resume" if scratch.is_dir() and any(scratch.iterdir()) else "run"
        diffs = [field_diff(record["payload"], stage.payload) for record in store.records(stage.name)]
        changed = min(diffs, key=len, default=[])
    price = _quoted(stage, store) if how != "hit" else None
    return PlannedStage(label=label, stage=stage.name, key=stage.key, how=how, changed=changed, quote=price)


def _quoted(stage: Stage, store: Store) -> Quote | None:
    if isinstance(stage, Evaluate):
        return stage.quote(store)
    return quote(stage, store) if isinstance(stage, Reflect) else None


def rounds(experiment: Experiment) -> Iterator[Experiment]:
    """Yield each round's experiment in turn, as long as what the rounds before it train stands in the store.

    Raises UserError where a round would train nothing.
    """
    store = Store(experiment.store, create=False)
    trained = list[Path]()
    for _ in range(experiment.rounds):
        yield (one := experiment.in_round(trained))
        if experiment.rounds > 1:
            training = one.plan()["train"]
            artifact = store.find(training.name, training.key)
            if artifact is None:
                return
            trained.append(artifact.folder)


def run_rounds(experiment: Experiment, choices: Mapping[str, str], overrides: list[str]) -> list[Path]:
    """Run all rounds of an experiment, each as a run of its own, and return their folders."""
    if experiment.rounds == 1:
        return [run(experiment, choices, overrides)]
    return [
        run(one, {**choices, "round": str(number)}, overrides) for number, one in enumerate(rounds(experiment), start=1)
    ]


def run(experiment: Experiment, choices: Mapping[str, str], overrides: list[str]) -> Path:
    """Run an experiment (one round of it) to its end, and return the run's folder.

    `choices` and `overrides` are what was chosen on the command line; they label the run and decide nothing. Whatever
    stops the run, its folder says how far it came.
    """
    store = Store(experiment.store)
    plan = experiment.plan()
    for stage in plan.values():
        if store.find(stage.name, stage.key) is None:
            stage.check()
    info = _run_info(experiment, choices, overrides, plan, store)
    say(f"{info.name} ({info.id})")
    started, made, status, reason = time.monotonic(), dict[str, Made](), "failed", ""
    session: Session = NullSession()
    try:
        session = experiment.tracker.open(info)
        failed = dict[str, UserError]()
        for label, stage in plan.items():
            try:
                made[label] = one = materialize(stage, store)
            except UserError as error:
                if not isinstance(stage, Evaluate):
                    raise
                failed[label] = error  # the other evaluations still have their results
                say(f"  failed {label}: {error}")
                continue
            say(f"  {one.how:6} {label} {stage.key[:8]}" + ("" if one.how == "hit" else f" ({one.seconds:.1f} s)"))
            _track(session, label, made[label])
        if failed:
            label, why = next(iter(failed.items()))
            raise UserError(f"{', '.join(failed)} failed, the rest is made; {label}: {why}")
        if experiment.until:
            folder = made[experiment.until].artifact.folder
            say(f"{experiment.until}: {', '.join(map(str, sorted(folder.glob('*.parquet')))) or folder}")
        status = "finished"
    except BaseException as error:
        status = "interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"
        reason = f"{type(error).__name__}: {error}"
        raise
    finally:
        described = _described(info, made, status, time.monotonic() - started) | {"reason": reason}
        write_json(info.folder / RUN, described)
        session.finish(status, described["metrics"])
    return info.folder


def _run_info(
    experiment: Experiment, choices: Mapping[str, str], overrides: list[str], plan: Mapping[str, Stage], store: Store
) -> RunInfo:
    moment = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")[:-3]  # to the millisecond, so that ids sort by time
    name = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in experiment.name)
    identifier = f"{moment}-{name[:60]}-{secrets.token_hex(2)}"
    folder = store.root / "runs" / identifier
    folder.mkdir()
    return RunInfo(
        id=identifier,
        name=experiment.name,
        group=experiment.group,
        folder=folder,
        choices=choices,
        overrides=tuple(overrides),
        config=identity(experiment),
        keys={label: stage.key for label, stage in plan.items()},
    )


def _track(session: Session, label: str, made: Made) -> None:
    session.stage(label, made)
    if (made.artifact.folder / "curve.parquet").is_file():
        session.curve(label, made.artifact.table("curve"))


def _cost(made: Mapping[str, Made]) -> dict[str, float]:
    """Return what the teacher's replies cost (dollars): all that this run rests on, and those paid for in its stages.

    Stages that were found cost this run nothing. `usd_judged` is what judges' replies cost, `usd_per_taken` the rest
    for each rewrite that the student took. No figure where no reply is told of.
    """
    calls = {
        label: dict(one.artifact.provenance["notes"]["calls"])
        for label, one in made.items()
        if "calls" in one.artifact.provenance.get("notes", {})
    }
    if not calls:
        return {}
    usd = sum(one.get("usd", 0.0) for one in calls.values())
    paid = [one for label, one in calls.items() if made[label].how != "hit"]
    cost = {
        "cost/usd": usd,
        "cost/usd_paid": sum(one.get("usd_paid", 0.0) for one in paid),
        "cost/calls_paid": sum(one.get("paid", 0) for one in paid),
    }
    judged = sum(one.get("usd", 0.0) for label, one in calls.items() if label.startswith("evaluate/"))
    if any(label.startswith("evaluate/") for label in calls):
        cost["cost/usd_judged"] = judged
    taken = sum(one.artifact.metrics.get("taken", 0) for label, one in made.items() if label.startswith("select_"))
    return cost | ({"cost/usd_per_taken": (usd - judged) / taken} if taken else {})


def _described(info: RunInfo, made: Mapping[str, Made], status: str, seconds: float) -> dict[str, Any]:
    stages = [
        {
            "label": label,
            "stage": one.stage.name,
            "key": one.artifact.key,
            "how": one.how,
            "seconds": round(one.seconds, 3),
        }
        for label, one in made.items()
    ]
    metrics: dict[str, Canonical] = {
        f"{label}/{name}": value for label, one in made.items() for name, value in one.artifact.metrics.items()
    }
    metrics |= _cost(made)
    about = {name: value for name, value in asdict(info).items() if name not in ("folder", "keys")}
    return {
        **about,
        "choices": dict(info.choices),
        "overrides": list(info.overrides),
        "status": status,
        "started": info.id[:15],
        "seconds": round(seconds, 3),
        "stages": stages,
        "metrics": metrics,
    }
