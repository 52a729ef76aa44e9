"""A small store on disk, written with the real schemas: three rows, whose scores are chosen by hand."""

import json
import math
from dataclasses import dataclass, field
from html.parser import HTMLParser

import pyarrow as pa
import pytest

from srecycle.report.runs import Run, read_run
from srecycle.rows import (
    CANDIDATE_SCHEMA,
    DECISION_SCHEMA,
    KINDS,
    LIKELIHOOD_SCHEMA,
    ROW_SCHEMA,
    TRAINING_SCHEMA,
    Candidate,
    Likelihood,
    Row,
    to_table,
)
from srecycle.store import Store, write_table
from srecycle.trainer.base import CURVE_SCHEMA
from tests.chromium import chromium

STAGES = (
    *("source", "reflect_instruction", "reflect_response", "likelihoods"),
    *("select_instruction", "select_response", "assemble", "train", "evaluate/testbed"),
)
TAKEN = {"a": ("both", ""), "b": ("response", ""), "c": ("original", "response_not_reflected")}
"""What became of each row: the version taken, and why it is refused."""

IFD = {
    ("a", "original"): 0.5,
    ("a", "both"): 0.8,
    ("b", "original"): 2.0,
    ("b", "response"): 0.9,
    ("c", "original"): 0.25,
}
METRICS = {
    "reflect_instruction/requests": 3,
    "reflect_instruction/instruction/ok": 2,
    "reflect_instruction/instruction/unparsed": 1,
    "select_instruction/reason/challenger_won": 1,
    "select_instruction/reason/incumbent_won": 2,
    "assemble/rows": 3,
    "assemble/kept": 2,
    "assemble/kept_share": 2 / 3,
    **{f"assemble/taken/{name}": int(name != "instruction") for name in KINDS},
    **{f"assemble/kept/{name}": int(name in ("response", "both")) for name in KINDS},
    "assemble/refused/response_not_reflected": 1,
    "train/rows": 2,
}


@dataclass
class Builder:
    """Writes artifacts once a key, and any number of runs that point at them."""

    store: Store
    text: str = "say it"
    runs: list[Run] = field(default_factory=list)

    def run(self, name, *, accuracy=None, upto=None, without=(), key="k0", at="101112", config=None, **changes):
        """Write a run; `accuracy` gives the testbed's figures by split as (value, standard error)."""
        labels = [label for label in STAGES[:upto] if label not in without]
        self._artifacts(key)
        metrics = {one: value for one, value in METRICS.items() if one.partition("/")[0] in labels}
        for split, (value, stderr) in (accuracy or {}).items():
            metrics[f"evaluate/testbed/accuracy/{split}"] = value
            metrics[f"evaluate/testbed/accuracy_stderr/{split}"] = stderr
        identifier = f"20260214-{at}-run-{len(self.runs):04d}"
        content = {
            "id": identifier,
            "name": name,
            "group": "sweep",
            "status": "finished",
            "seconds": 12.5,
            "overrides": [],
            "choices": {},
            "config": config or {"seed": 0},
            "stages": [
                {"label": one, "stage": one.partition("/")[0], "key": key, "how": "run", "seconds": 1.0}
                for one in labels
            ],
            "metrics": metrics,
        }
        changed = {**content, **changes, "metrics": {**metrics, **changes.get("metrics", {})}}
        folder = self.store.root / "runs" / identifier
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps(changed, sort_keys=True))
        self.runs.append(read_run(folder))
        return self.runs[-1]

    def put(self, stage, key, name, table):
        """Write one table of an artifact."""
        folder = self.store.folder(stage, key)
        folder.mkdir(parents=True, exist_ok=True)
        write_table(folder / f"{name}.parquet", table)

    def _artifacts(self, key):
        if self.store.folder("source", key).exists():
            return
        self.put("source", key, "rows", to_table([self._row(one) for one in TAKEN], ROW_SCHEMA))
        for phase, version, base in (("instruction", "instruction", "original"), ("response", "both", "instruction")):
            candidates = [self._candidate(one, version, base) for one in TAKEN]
            self.put(f"reflect_{phase}", key, "candidates", to_table(candidates, CANDIDATE_SCHEMA))
            self.put(f"select_{phase}", key, "decisions", self._decisions(phase))
        self.put("likelihoods", key, "likelihoods", to_table([_likelihood(*one) for one in IFD], LIKELIHOOD_SCHEMA))
        self.put("assemble", key, "training", self._training())
        curve = {"step": [1, 2, 3], "epoch": [0.1, 0.2, 0.3], "loss": [3.0, 2.0, 1.0]}
        rates = {"learning_rate": [0.1] * 3, "grad_norm": [1.0] * 3, "tokens": [90] * 3, "target_tokens": [50] * 3}
        self.put("train", key, "curve", pa.table({**curve, **rates}, schema=CURVE_SCHEMA))

    def _row(self, one):
        return Row(
            id=one, position=ord(one) - 97, instruction=f"{self.text} {one}0", input="", response=f"{self.text} y0"
        )

    def _candidate(self, one, version, base):
        usable = one != "c"
        texts = {"instruction": f"{self.text} {version}", "response": f"{self.text} better"} if usable else {}
        return Candidate(
            **{"id": one, "version": version, "base": base, "status": "ok" if usable else "unparsed", "input": ""},
            **{"instruction": "", "response": "", "reply": "", "finish_reason": "stop", **texts},
            critique=f"{self.text} critique",
        )

    def _decisions(self, phase):
        line = {"incumbent": "original", "challenger": phase, "challengers": 1, "chosen": "original", "margin": 0.3}
        values = {"incumbent_value": 0.111, "challenger_value": 0.411, "reason": "incumbent_won"}
        return pa.Table.from_pylist([{"id": one, **line, **values} for one in TAKEN], schema=DECISION_SCHEMA)

    def _training(self):
        lines = [
            {
                **{"id": one, "position": place, "version": version, "instruction": self.text, "input": ""},
                **{"response": self.text, "history": [], "label": self.text, "ifd": IFD[one, version], "r_ifd": 0.6},
                **{"kept": not reason, "reason": reason, "source": "", "flip_of": ""},
            }
            for place, (one, (version, reason)) in enumerate(TAKEN.items())
        ]
        return pa.Table.from_pylist(lines, schema=TRAINING_SCHEMA)


def _likelihood(one, version):
    losses = {"loss_y_given_x": 1.0 + math.log(IFD[one, version]), "loss_y": 1.0, "loss_x_given_y": 1.0, "loss_x": 2.0}
    return Likelihood(id=one, version=version, status="ok", tokens_y=5, tokens_x=5, context_truncated=False, **losses)


@pytest.fixture
def built(tmp_path):
    return Builder(store=Store(tmp_path / "store"))


class Page(HTMLParser):
    """What a browser would make of a report: its elements, its visible text, the comparison's rows."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts, self.rows, self.scripts = [], [], [], []
        self._open = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag not in ("meta", "input", "wbr"):
            self._open.append((tag, attributes))
        if tag == "tr" and self._inside("compared"):
            self.rows.append([])
        if tag in ("td", "th") and self._inside("compared"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        inside = [tag for tag, _ in self._open]
        if "script" in inside:
            self.scripts.append(data)
        elif "style" not in inside:
            self.texts.append(data)
            if {"td", "th"} & set(inside) and self._inside("compared"):
                self.rows[-1][-1] += data.strip()

    def _inside(self, style):
        return any(attributes.get("class") == style for _, attributes in self._open)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def all(self, tag, **attributes):
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [one for name, one in self.elements if name == tag and wanted.items() <= one.items()]


@pytest.fixture
def page(tmp_path):
    from srecycle.report.html import write_report

    def written(runs) -> Page:
        return Page(write_report(runs, tmp_path / "out" / "report.html").read_text(encoding="utf-8"))

    return written


@pytest.fixture(scope="module")
def browser():
    """Start Chromium once a file: while its driver is there, this thread has an event loop that no other can share."""
    with chromium() as started:
        yield started
