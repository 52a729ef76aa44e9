"""Several samples of each reflection: the incumbent stands against all of them, over a hand-made store."""

import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srecycle.assemble import Assemble, Assembly
from srecycle.data import Source
from srecycle.data.alpaca import Alpaca
from srecycle.engine.local import LocalEngine
from srecycle.keep.limit import IFDMax
from srecycle.keep.reflected import ResponseReflectedOnly
from srecycle.reflection import Reflect, Reflection
from srecycle.rows import CANDIDATE_SCHEMA, LIKELIHOOD_SCHEMA, Candidate, Likelihood, Phase, to_table
from srecycle.scorer import Scorer
from srecycle.selector import Score, Select, Selector
from srecycle.selector.always import Always
from srecycle.selector.base import Contest
from srecycle.selector.ifd import IFD
from srecycle.selector.never import Never
from srecycle.selector.random import Random
from srecycle.selector.reversed_ifd import ReversedIFD
from srecycle.stage import Stage, materialize
from srecycle.store import Artifact, Store, write_table
from srecycle.student import Likelihoods, PromptTemplate, Student
from srecycle.teacher.scripted import ScriptedTeacher

Cell = float | str
"""A loss where the version has one; else "-" and why it is unusable, or why it has no likelihood."""

# L(y|x) of the original and of three new instructions; L(y) is 1, so that a higher loss is a higher IFD.
INSTRUCTION: Mapping[str, tuple[Cell, Cell, Cell, Cell]] = {
    "best": (0.5, 0.6, 0.8, 0.7),
    "only": (0.5, "-unparsed", 0.6, "-not_recorded"),
    "tie": (0.5, 0.5, 0.5, 0.4),
    "none": (0.5, "empty_response", "-unparsed", "too_long"),
    "alone": ("empty_response", 0.5, 0.9, 0.6),
    "lost": (0.9, 0.5, 0.8, 0.6),
    "overflow": (0.5, 2000.0, 0.4, 0.45),
}
DECIDED = {
    #           challenger, how many, chosen, reason
    "best": ("instruction-2", 3, "instruction-2", "challenger_won"),
    "only": ("instruction-2", 1, "instruction-2", "challenger_won"),
    "tie": ("instruction", 3, "original", "tie"),
    "none": ("instruction", 0, "original", "challenger_empty_response"),
    "alone": ("instruction-2", 3, "original", "incumbent_empty_response"),
    "lost": ("instruction-2", 3, "original", "incumbent_won"),
    "overflow": ("instruction-3", 2, "original", "incumbent_won"),
}
# L(x|y') of what was chosen, and of its three better responses; lower is better.
RESPONSE: Mapping[str, tuple[Cell, Cell, Cell, Cell]] = {
    "best": (0.5, 0.4, 0.3, 0.2),
    "only": (0.5, 0.5, 0.6, 0.7),
    "tie": (0.5, "-truncated", 0.1, 0.4),
    "none": (0.5, 0.9, "-truncated", "too_long"),
    "alone": ("empty_response", 0.5, 0.9, 0.6),
    "lost": (0.5, 0.4, 0.4, 0.4),
    "overflow": (0.5, "-truncated", "-unparsed", "-truncated"),
}
DECIDED_AFTER = {
    "best": ("both-3", 3, "both-3", "challenger_won"),
    "only": ("both", 3, "instruction-2", "tie"),
    "tie": ("response-2", 2, "response-2", "challenger_won"),
    "none": ("response", 1, "original", "incumbent_won"),
    "alone": ("response", 3, "original", "incumbent_empty_response"),
    "lost": ("response", 3, "response", "challenger_won"),
    "overflow": ("response", 0, "original", "challenger_truncated"),
}


class Bench:
    """Rows named as above in a given order, with what a teacher of three samples and a student made of them."""

    def __init__(self, root: Path, model: Path, names: Sequence[str]) -> None:
        root.mkdir()
        self.store, self.names = Store(root / "store"), names
        (root / "rows.json").write_text(json.dumps([{"instruction": name, "output": "r"} for name in names]))
        self.source = Source(data=Alpaca(path=root / "rows.json"))
        ids = materialize(self.source, self.store).artifact.table("rows")["id"].to_pylist()
        self.id_of = dict(zip(names, ids, strict=True))
        self.student = Student(path=str(model))
        self.on_instruction = self._reflect("instruction")
        self._put(self.on_instruction, "candidates", self._candidates("instruction", INSTRUCTION, {}))
        self.before = self._likelihoods(self.source, self.on_instruction)
        originals = [self._likelihood(name, "original", cells[0]) for name, cells in INSTRUCTION.items()]
        self._put(self.before, "likelihoods", [*originals, *self._scored("instruction", INSTRUCTION, {})])

    def answer(self, first: Select) -> None:
        """Put the better responses of what was chosen, and their likelihoods."""
        chosen = {name: line["chosen"] for name, line in self.lines(first).items()}
        self.on_response = self._reflect("response", instructions=self.on_instruction, chosen=first)
        self._put(self.on_response, "candidates", self._candidates("response", RESPONSE, chosen))
        self.after = self._likelihoods(None, self.on_response)
        self._put(self.after, "likelihoods", self._scored("response", RESPONSE, chosen))

    def select(self, phase: Phase, selector: Selector, before: Select | None = None) -> Select:
        reflections = (self.on_instruction,) if before is None else (self.on_instruction, self.on_response)
        likelihoods = (self.before,) if before is None else (self.before, self.after)
        stage = Select(
            phase=phase,
            rows=self.source,
            reflections=reflections,
            likelihoods=likelihoods if selector.needs else (),
            before=before,
            selector=selector,
        )
        materialize(stage, self.store)
        return stage

    def lines(self, stage: Select) -> dict[str, dict[str, Any]]:
        lines = {line["id"]: line for line in self.made(stage).table("decisions").to_pylist()}
        assert len(lines) == len(self.names)
        return {name: lines[self.id_of[name]] for name in self.names}

    def decided(self, stage: Select) -> dict[str, tuple[str, int, str, str]]:
        columns = ("challenger", "challengers", "chosen", "reason")
        return {name: tuple(line[column] for column in columns) for name, line in self.lines(stage).items()}  # type: ignore[misc]

    def made(self, stage: Stage) -> Artifact:
        found = self.store.find(stage.name, stage.key)
        assert found is not None
        return found

    def _reflect(self, phase: Phase, **fields: Any) -> Reflect:
        wording = Reflection(
            system="",
            instruction_request="{instruction}{response}",
            response_request="{instruction}{response}",
            input_block="",
            history_block="",
            instruction_criteria=(),
            response_criteria=(),
            scope="chosen",
        )
        teacher = ScriptedTeacher(samples=3)
        return Reflect(
            phase=phase, rows=self.source, teacher=teacher, reflection=wording, engine=LocalEngine(), **fields
        )

    def _likelihoods(self, rows: Source | None, reflection: Reflect) -> Likelihoods:
        return Likelihoods(
            rows=rows,
            reflections=(reflection,),
            student=self.student,
            template=PromptTemplate(user="{instruction}", user_with_input="{instruction}{input}"),
            scorer=Scorer(reversed_request="{response}"),
            engine=LocalEngine(),
        )

    def _versions(self, phase: Phase, cells: Mapping[str, tuple[Cell, ...]], chosen: Mapping[str, str]) -> list[Any]:
        found = []
        for name in self.names:
            kind = "both" if chosen.get(name, "original") != "original" else phase
            for number, cell in enumerate(cells[name][1:], start=1):
                found.append((name, kind if number == 1 else f"{kind}-{number}", cell))
        return found

    def _candidates(
        self, phase: Phase, cells: Mapping[str, tuple[Cell, ...]], chosen: Mapping[str, str]
    ) -> list[Candidate]:
        made = []
        for name, version, cell in self._versions(phase, cells, chosen):
            usable = not str(cell).startswith("-")
            made.append(
                Candidate(
                    id=self.id_of[name],
                    version=version,
                    base=chosen.get(name, "original"),
                    status="ok" if usable else str(cell)[1:],
                    instruction=f"{name} {version}" if usable else "",
                    input="",
                    response=f"answer {version}" if usable else "",
                    critique="",
                    reply="",
                    finish_reason="stop",
                )
            )
        return made

    def _scored(
        self, phase: Phase, cells: Mapping[str, tuple[Cell, ...]], chosen: Mapping[str, str]
    ) -> list[Likelihood]:
        versions = self._versions(phase, cells, chosen)
        return [self._likelihood(*one) for one in versions if not str(one[2]).startswith("-")]

    def _likelihood(self, name: str, version: str, cell: Cell) -> Likelihood:
        """Put the loss on the side that the phase in which this version challenges is decided by."""
        known = not isinstance(cell, str)
        y_given_x, x_given_y = (cell, 0.5) if version.startswith(("original", "instruction")) else (0.5, cell)
        return Likelihood(
            id=self.id_of[name],
            version=version,
            status="ok" if known else str(cell),
            loss_y_given_x=y_given_x if known else None,  # type: ignore[arg-type]
            loss_y=1.0 if known else None,
            loss_x_given_y=x_given_y if known else None,  # type: ignore[arg-type]
            loss_x=1.0 if known else None,
            tokens_y=1,
            tokens_x=1,
            context_truncated=False,
        )

    def _put(self, stage: Stage, name: str, records: Sequence[Any]) -> None:
        folder, _, _ = self.store.begin(stage.name, stage.key)
        schema = CANDIDATE_SCHEMA if name == "candidates" else LIKELIHOOD_SCHEMA
        shuffled = random.Random(3).sample(list(records), len(records))
        write_table(folder / f"{name}.parquet", to_table(shuffled, schema))
        self.store.commit(stage.name, stage.key, stage.payload, {}, {})


@pytest.fixture
def bench(tmp_path: Path, tiny_models: Mapping[str, Path]) -> Bench:
    return Bench(tmp_path / "bench", tiny_models["llama"], list(INSTRUCTION))


def _paper(bench: Bench, **settings: Any) -> tuple[Select, Select]:
    first = bench.select("instruction", IFD(**settings))
    bench.answer(first)
    return first, bench.select("response", ReversedIFD(**settings), first)


def test_select_three_samples_takes_the_best_usable_one_where_it_beats_the_incumbent(bench: Bench) -> None:
    first, second = _paper(bench)
    assert bench.decided(first) == DECIDED
    assert bench.decided(second) == DECIDED_AFTER
    assert {name: line["incumbent"] for name, line in bench.lines(second).items()} == {
        name: chosen for name, (_, _, chosen, _) in DECIDED.items()
    }


def test_select_tie_with_the_best_sample_is_a_setting(bench: Bench) -> None:
    first = bench.select("instruction", IFD(tie="challenger"))
    changed = {name: one for name, one in bench.decided(first).items() if one != DECIDED[name]}
    assert changed == {"tie": ("instruction", 3, "instruction", "tie")}


def test_select_values_and_margin_are_those_of_the_best_sample(bench: Bench) -> None:
    lines = bench.lines(bench.select("instruction", IFD()))
    for name, (incumbent, challenger) in {"best": (0.5, 0.8), "lost": (0.9, 0.8), "overflow": (0.5, 0.45)}.items():
        values = math.exp(incumbent - 1), math.exp(challenger - 1)
        assert (lines[name]["incumbent_value"], lines[name]["challenger_value"]) == pytest.approx(values)
        assert lines[name]["margin"] == pytest.approx(values[1] - values[0])
    assert (lines["none"]["challenger_value"], lines["none"]["margin"]) == (None, None)
    assert lines["alone"]["challenger_value"] == pytest.approx(math.exp(0.9 - 1)) and lines["alone"]["margin"] is None


def test_select_and_assemble_row_order_changes_no_decision(tmp_path: Path, tiny_models: Mapping[str, Path]) -> None:
    selectors: list[tuple[Selector, Selector]] = [(IFD(), ReversedIFD()), (Random(p=0.6), Always()), (Always(), IFD())]
    told = []
    for number in range(3):
        names = random.Random(number).sample(list(INSTRUCTION), len(INSTRUCTION))
        for place, (on_instruction, on_response) in enumerate(selectors):
            bench = Bench(tmp_path / f"{number}-{place}", tiny_models["llama"], names)
            first = bench.select("instruction", on_instruction)
            bench.answer(first)
            told.append((bench.decided(first), bench.decided(bench.select("response", on_response, first))))
    assert told[:3] == told[3:6] == told[6:]
    assert len({str(sorted(one[0].items())) for one in told[:3]}) == 3


def test_select_always_takes_the_last_usable_sample_and_never_none(bench: Bench) -> None:
    taken = {name: one[2] for name, one in bench.decided(bench.select("instruction", Always())).items()}
    assert taken.pop("only") == "instruction-2"
    assert set(taken.values()) == {"instruction-3"}
    assert {one[2] for one in bench.decided(bench.select("instruction", Never())).values()} == {"original"}


def test_assemble_trains_on_the_sample_that_was_taken_and_counts_by_kind(bench: Bench) -> None:
    _, second = _paper(bench)
    stage = Assemble(
        rows=bench.source,
        reflections=(bench.on_instruction, bench.on_response),
        likelihoods=(bench.before, bench.after),
        decisions=second,
        keep={"ifd": IFDMax(), "only": ResponseReflectedOnly()},
        assembly=Assembly(),
    )
    made = materialize(stage, bench.store).artifact
    lines = {line["id"]: line for line in made.table("training").to_pylist()}
    taken = {name: lines[bench.id_of[name]] for name in bench.names}
    assert {name: (line["version"], line["kept"], line["reason"]) for name, line in taken.items()} == {
        "best": ("both-3", True, ""),
        "only": ("instruction-2", False, "response_not_reflected"),
        "tie": ("response-2", True, ""),
        "none": ("original", False, "response_not_reflected"),
        "alone": ("original", False, "ifd_empty_response"),
        "lost": ("response", True, ""),
        "overflow": ("original", False, "response_not_reflected"),
    }
    texts = {name: (line["instruction"], line["response"]) for name, line in taken.items()}
    assert texts["best"] == ("best both-3", "answer both-3") and texts["none"] == ("none", "r")
    assert [made.metrics[f"taken/{kind}"] for kind in ("original", "instruction", "response", "both")] == [3, 1, 2, 1]
    assert [made.metrics[f"kept/{kind}"] for kind in ("original", "instruction", "response", "both")] == [0, 0, 2, 1]


def test_score_lists_every_sample_in_order(bench: Bench) -> None:
    _paper(bench)
    reflections, likelihoods = (bench.on_instruction, bench.on_response), (bench.before, bench.after)
    stage = Score(rows=bench.source, reflections=reflections, likelihoods=likelihoods)
    table = materialize(stage, bench.store).artifact.table("scores")
    of_best = table.filter(pa.compute.equal(table["id"], bench.id_of["best"]))
    new = ["instruction", "instruction-2", "instruction-3"]
    assert of_best["version"].to_pylist() == ["original", *new, "both", "both-2", "both-3"]
    assert len(table) == 7 * len(bench.names)


@given(st.data())
def test_choose_any_preferences_takes_the_first_of_the_best(data: Any) -> None:
    """Against the plainest oracle: a row at a time, in words. Minus infinity is a verdict, NaN is none."""
    values = st.sampled_from([math.nan, -math.inf, -1.0, 0.0, 1.0])
    rows = data.draw(st.lists(st.lists(values, min_size=4, max_size=4), min_size=1, max_size=5))
    usable = [data.draw(st.lists(st.booleans(), min_size=4, max_size=4)) for _ in rows]
    tie: Any = data.draw(st.sampled_from(["incumbent", "challenger"]))
    contest = Contest(
        phase="response",
        ids=np.array([str(n) for n in range(len(rows))]),
        usable=np.array(usable),
        columns={"ifd": np.array(rows)},
    )
    choice = IFD(tie=tie).choose(contest)
    for row, (preferences, stands) in enumerate(zip(rows, usable, strict=True)):
        judged = [n for n in (1, 2, 3) if stands[n] and not math.isnan(preferences[n])]
        best = max(judged, key=lambda n: (preferences[n], -n)) if judged else 1
        incumbent = preferences[0] if stands[0] else math.nan
        ahead = preferences[best] > incumbent
        wins = bool(judged) and (ahead or (tie == "challenger" and preferences[best] == incumbent))
        assert (choice.best[row], choice.winner[row]) == (best, best if wins else 0)
