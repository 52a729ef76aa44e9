"""The comparison of runs: one entry a run, the figures that they share, and which values are best.

In: runs as read from the store. Out: plain values in the order in which people read them. Figures of a failed run are
missing, never zero.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from srecycle.config import flattened
from srecycle.report.runs import USD, Figure, Run, evaluations, labels, teacher_requests
from srecycle.rows import KINDS
from srecycle.testbed.heldout import SPLITS

_FIRST = ("mean", *SPLITS)
"""The order of figures that share a prefix; run.json holds them sorted by name."""

_LOWER_IS_BETTER = (
    "perplexity",
    "bits_per_byte",
    "loss",
    "gap",
    "brier_score",
    "divergence",
    "flips",
    "changes",
    "ter",
    "wer",
    "mae",
    "mse",
)
_NOISE = 2.0
"""Differences below this many standard errors are called noise."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A run with its label and its evaluation figures, named `evaluator/metric`."""

    run: Run
    label: str
    figures: Mapping[str, Figure]

    @property
    def failed(self) -> bool:
        """Whether the run stopped before its end."""
        return self.run.status != "finished"

    def count(self, name: str) -> int | None:
        """Return a metric that counts something, or None where the run doesn't have it."""
        value = self.run.metrics.get(name)
        return int(value) if isinstance(value, int | float) else None

    @property
    def kept(self) -> int | None:
        """How many rows the run trains on; None where it didn't come so far, or trains nothing."""
        return self.count("assemble/kept") if self.tuned else None

    @property
    def kept_share(self) -> float | None:
        """The share of rows that the run trains on; None as with `kept`."""
        value = self.run.metrics.get("assemble/kept_share")
        return float(value) if isinstance(value, int | float) and self.tuned else None

    @property
    def requests(self) -> int | None:
        """Requests to the teacher; None where a failed run had counted none yet."""
        return teacher_requests(self.run) or (None if self.failed else 0)

    @property
    def dollars(self) -> float | None:
        """What the replies cost that the run rests on; None where it doesn't say."""
        value = self.run.metrics.get(USD)
        return float(value) if isinstance(value, int | float) else None

    @property
    def tuned(self) -> bool:
        """Whether the run trained anything; the student as it is stands as a baseline."""
        return self.count("train/rows") != 0

    def versions(self, stage: str) -> dict[str, int]:
        """Count the rows by version: `taken` by the student, or `kept` to train on. Empty where there are none."""
        if not self.tuned:
            return {}
        found = {name: self.count(f"assemble/{stage}/{name}") for name in KINDS}
        return {name: count for name, count in found.items() if count is not None}

    @property
    def verdicts(self) -> dict[str, int]:
        """Count the kept pairs by what they are worth, where an evaluator knows the truth."""
        return {
            name.rpartition("/")[2]: round(figure.value) for name, figure in self.figures.items() if _is_verdict(name)
        }


def entries(runs: Sequence[Run]) -> list[Entry]:
    """Label the runs and gather their figures, in the order of the runs."""
    named = labels(runs)
    return [Entry(run=run, label=named[run.id], figures=evaluations(run)) for run in runs]


def compared(found: Sequence[Entry]) -> list[str]:
    """Return the names of the figures worth a column: an evaluator's metrics, its mean first, shares last."""
    names = {name for entry in found for name in entry.figures if not _is_verdict(name)}
    return sorted(names, key=_place)


def group(name: str) -> str:
    """Return what a figure's name has before its last part."""
    return name.rpartition("/")[0]


def _place(name: str) -> tuple[str, bool, str, int, str]:
    last = name.rpartition("/")[2]
    rank = _FIRST.index(last) if last in _FIRST else len(_FIRST)
    return name.partition("/")[0], last.endswith("_share"), group(name), rank, last


def _is_verdict(name: str) -> bool:
    return group(name).rpartition("/")[2] == "kept"


def lower_is_better(name: str) -> bool:
    """Whether smaller values of a metric are better, judged by its name."""
    words = name.lower().replace("/", "_").replace(",", "_")
    return any(f"_{word}_" in f"_{words}_" for word in _LOWER_IS_BETTER)


def best(found: Sequence[Entry], name: str) -> float | None:
    """Return the best value of a figure over the finished runs, or None where it is the same in all that have it."""
    values = [entry.figures[name].value for entry in found if name in entry.figures and not entry.failed]
    if len(set(values)) < 2 or not all(math.isfinite(value) for value in values):
        return None
    return min(values) if lower_is_better(name) else max(values)


def finding(found: Sequence[Entry]) -> str:
    """Say in a sentence which run is ahead by the first figure, and whether by more than noise; "" where none is."""
    for name in compared(found):
        measured = [entry for entry in found if name in entry.figures and not entry.failed]
        if len(measured) >= 2 and all(entry.figures[name].stderr is not None for entry in measured):
            ranked = sorted(measured, key=lambda entry: entry.figures[name].value, reverse=not lower_is_better(name))
            others = [entry for entry in ranked if not _share_result(entry, ranked[0], name)]
            return _finding(name, ranked[0], others[0]) if others else ""
    return ""


def _share_result(one: Entry, other: Entry, name: str) -> bool:
    """Whether two runs read this figure from the same result in the store, as a repeated run does."""
    stage = f"evaluate/{name.partition('/')[0]}"
    return one.run.artifact(stage) == other.run.artifact(stage)


def _finding(name: str, first: Entry, second: Entry) -> str:
    ahead, next_one = first.figures[name], second.figures[name]
    gap = abs(ahead.value - next_one.value)
    error = math.hypot(ahead.stderr or 0.0, next_one.stderr or 0.0)
    said = f"Best {spoken(name)}: {first.label}, {plain(ahead)}; next is {second.label}, {plain(next_one)}."
    if gap == 0:
        return f"{said} The two are equal."
    if error == 0:
        return said
    judged = "within noise" if gap < _NOISE * error else "more than noise"
    return f"{said} The gap is {gap / error:.1f} standard errors: {judged}."


def plain(figure: Figure) -> str:
    """Write a figure with its standard error."""
    return number(figure.value) + ("" if figure.stderr is None else f" ± {number(figure.stderr)}")


def number(value: float) -> str:
    """Write a value with three decimals, large ones with fewer."""
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.1f}"


def spoken(name: str) -> str:
    """Write the name of a metric, a reason or a status in words."""
    named = re.sub(r"(?<![a-z])(r_)?ifd(?![a-z])", lambda match: "r-IFD" if match[1] else "IFD", name)
    return named.replace("/", " ").replace("_", " ").replace(",", ", ")


def cut(text: str, longest: int) -> str:
    """Return the beginning of a text, and how much more there is."""
    left = len(text) - longest
    return text if left <= 0 else f"{text[:longest]}… ({left:,} more characters)"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A field of the configuration in which the runs differ, with its value in each run, in their order.

    `usual` is the value that more than half of the runs share; "" where there is none.
    """

    field: str
    values: Sequence[str]
    usual: str


def differences(runs: Sequence[Run]) -> list[Difference]:
    """Return the fields of the configuration in which runs differ, sorted by name.

    Left out are settings that come and go with a component and are the same wherever it is.
    """
    flat = [flattened(dict(run.config)) for run in runs]
    names = sorted({name for one in flat for name in one})
    written = {name: [_written(one, name) for one in flat] for name in names}
    return [
        Difference(field=name, values=_shortened(name, values), usual=_usual(_shortened(name, values)))
        for name, values in written.items()
        if len(set(values)) > 1 and not _follows(name, written)
    ]


def _follows(name: str, written: Mapping[str, Sequence[str]]) -> bool:
    """Whether a setting comes and goes with the component that it belongs to, and is the same wherever it is."""
    parts = name.split(".")
    owners = (".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1))
    owner = next((owner for owner in owners if f"{owner}.class" in written), "")
    classes = set(written.get(f"{owner}.class", ()))
    present = {value for value in written[name] if value}
    return len(classes) > 1 and name != f"{owner}.class" and (parts[-1] == "revision" or len(present) == 1)


def _shortened(name: str, values: Sequence[str]) -> list[str]:
    """Write classes without their modules, as long as that keeps them apart."""
    short = [value.rpartition(".")[2] for value in values]
    return short if name.endswith(".class") and len(set(short)) == len(set(values)) else list(values)


def _usual(values: Sequence[str]) -> str:
    value, count = Counter(values).most_common(1)[0]
    return value if 2 * count > len(values) else ""


def _written(flat: Mapping[str, object], name: str) -> str:
    if name not in flat:
        return ""
    value = flat[name]
    return value if isinstance(value, str) and value else json.dumps(value)
