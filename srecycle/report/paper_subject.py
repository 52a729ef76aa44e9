"""What a run is, in the paper's terms: which arm, data set, student and share of the rows.

In: runs. Out: subjects, one a run that can be set beside the paper at all. What counts is what a run was made of (its
configuration and the content of its data file), not what it is called. A run on the micro-world is no subject: its
figures measure something else.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srecycle.digest import file_digest
from srecycle.errors import UserError
from srecycle.report.comparison import Entry
from srecycle.report.paper_published import Line, published, setting
from srecycle.report.runs import Run
from srecycle.rows import PHASES

_SUBSETS = ("Top", "RandomShare")
_MICRO_WORLD, _BASES = "testbed", "testbed/bases"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A run beside the paper. `arm` and `data` are "" where they are none of the paper's.

    `student` is how the student is called, `subset` the filter and share that keep fewer rows than the arm does.
    """

    entry: Entry
    arm: str
    data: str
    student: str
    subset: tuple[str, float] | None

    @property
    def run(self) -> Run:
        """The run itself."""
        return self.entry.run

    @property
    def size(self) -> str:
        """Which of the paper's students this one stands for, by its name."""
        return "13b" if "13b" in self.student.lower() else "7b"

    def is_papers(self, line: Line) -> bool:
        """Say whether the student is the line's own, by its name."""
        return line.get("student", setting()["students"].get(line.get("size"), "")).lower() in self.student.lower()

    @property
    def trained(self) -> bool:
        """Whether the student was trained."""
        return class_of(self.run, "trainer") != "NoTrainer"

    @property
    def mixed(self) -> bool:
        """Whether other data was mixed into the training set."""
        assembly = part(self.run, "assemble")
        return bool(assembly.get("extra") or assembly.get("originals"))

    def belongs(self, line: Line) -> bool:
        """Say whether the run is one of this line of a table."""
        if "student" in line:
            return not self.trained and line["student"].lower() in self.student.lower()
        if self.arm != line.get("arm") or self.size != line["size"] or self.mixed != line.get("mixed", False):
            return False
        if "version" not in line and not self.trained:
            return False
        pairs = "against" in line  # all of one data set: another one can only be a deviation
        whole = line.get("fraction", 1.0) == 1.0
        return (pairs or self.data == line["data"]) and self.subset == (
            None if whole else (line["subset"], line["fraction"])
        )


def subjects(found: Sequence[Entry]) -> list[Subject]:
    """Return the finished runs as subjects, those on the micro-world left out."""
    return [_subject(entry) for entry in found if not entry.failed and not is_micro_world(entry.run)]


def is_micro_world(run: Run) -> bool:
    """Say whether a run has to do with the micro-world: its data, its students, its prompt format or its teacher."""
    classes = [str(part(run, name).get("class", "")) for name in ("data", "teacher")]
    chosen = [run.choices.get(name, "") for name in ("student", "template")]
    return any(_MICRO_WORLD in one or ".scripted." in one for one in (*classes, *chosen)) or _BASES in _student(run)


def answers_of(found: Sequence[Subject]) -> dict[str, Subject]:
    """Return whose every file of answers in the store is, by its digest: that is how an opponent is known."""
    known: dict[str, Subject] = {}
    for one in found:
        for file in _answers(one.run):
            try:
                known.setdefault(file_digest(file), one)
            except UserError:  # unreadable: it is nobody's then
                continue
    return known


def _answers(run: Run) -> Iterator[Path]:
    for label in (str(stage["label"]) for stage in run.stages):
        file = (run.artifact(label) or Path()) / "answers.parquet"
        if label.startswith("evaluate/") and file.is_file():
            yield file


def part(run: Run, *path: str) -> Mapping[str, Any]:
    """Return a component of the run's configuration; empty where there is none."""
    found: Any = run.config
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def class_of(run: Run, *path: str) -> str:
    """Return the class of a component, without its module."""
    return last(part(run, *path))


def last(component: Any) -> str:
    """Return a component's class, without its module; "" where it is none."""
    return str(component.get("class", "")).rpartition(".")[2] if isinstance(component, Mapping) else ""


def override(run: Run, key: str) -> str:
    """Return what the command line set this to; "" where it didn't."""
    told = [one.partition("=")[2] for one in run.overrides if one.lstrip("+").startswith(f"{key}=")]
    return told[-1].strip("'\"") if told else ""


def _subject(entry: Entry) -> Subject:
    run = entry.run
    selectors = [class_of(run, "selector", phase) for phase in PHASES]
    arm = next((name for name, one in published()["arms"].items() if one["selectors"] == selectors), "")
    return Subject(entry=entry, arm=arm, data=_data(run), student=_student(run), subset=_subset(run))


def _subset(run: Run) -> tuple[str, float] | None:
    for one in part(run, "keep").values():
        if last(one) in _SUBSETS and (one.get("fraction") or 1.0) != 1.0:
            return last(one), float(one["fraction"])
    return None


def _data(run: Run) -> str:
    """Return which of the paper's data sets a run has: by the file's content, else by its name, its study, its size."""
    own, known = part(run, "data"), setting()["data"]
    if last(own) not in ("Alpaca", "Chat"):
        return ""
    for name, one in known.items():
        if own.get("path") == one["sha256"]:
            return str(name)
    if told := Path(override(run, "data.path")).name.lower():
        named = "wizardlm" if "wiz" in told or "evol" in told else "alpaca" if "alpaca" in told else ""
    else:
        study = override(run, "experiment") or run.choices.get("experiment", "")  # a list is no choice of Hydra's
        named = "alpaca" if "paper/with/alpaca" in study else "wizardlm" if "paper/" in study else ""
    whole = not own.get("limit") and not own.get("positions")
    sized = [name for name, one in known.items() if whole and run.metrics.get("source/rows") == one["rows"]]
    return named or next(iter(sized), "")


def _student(run: Run) -> str:
    """Return how the student is called: a hub id, the path that was asked for, or the choice."""
    path = str(part(run, "student").get("path", ""))
    named = override(run, "student.path") or ("" if path.startswith("sha256:") else path)
    return named or run.choices.get("student", "another model")
