"""A hand-made store of five rows: real source and reflections, and likelihoods as written here."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from srecycle.assemble import Assemble, Assembly
from srecycle.data import Source
from srecycle.data.alpaca import Alpaca
from srecycle.engine.local import LocalEngine
from srecycle.keep import Keep
from srecycle.reflection import Reflect, Reflection
from srecycle.rows import LIKELIHOOD_SCHEMA
from srecycle.scorer import Scorer
from srecycle.selector import Select, Selector
from srecycle.stage import materialize
from srecycle.store import Artifact, Store
from srecycle.student import Likelihoods, PromptTemplate, Student
from srecycle.teacher.replay import ReplayTeacher

ROWS = 5
# (loss_y_given_x, loss_x_given_y) of each version; L(y) and L(x) are 1, so IFD < 1 means below 1. Row 2's teacher
# wrote no new instruction, row 3's no better response, and row 4's original has no likelihood.
Losses = Mapping[tuple[int, str], tuple[float, float] | str]
LOSSES: Losses = {
    (0, "original"): (0.5, 0.5),
    (0, "instruction"): (0.6, 0.5),
    (0, "response"): (0.5, 0.1),
    (0, "both"): (0.4, 0.4),
    (1, "original"): (0.5, 0.5),
    (1, "instruction"): (0.4, 0.5),
    (1, "response"): (1.5, 0.1),
    (1, "both"): (0.5, 0.5),
    (2, "original"): (0.5, 0.5),
    (2, "response"): (0.5, 0.5),
    (3, "original"): (0.5, 0.5),
    (3, "instruction"): (0.9, 0.5),
    (4, "original"): "empty_response",
    (4, "instruction"): (0.9, 0.5),
    (4, "response"): (0.5, 0.2),
    (4, "both"): (0.5, 0.2),
}


class Bench:
    """Real source and reflections of five rows, and the likelihoods above."""

    def __init__(self, root: Path, model: Path, losses: Losses = LOSSES) -> None:
        self.losses = losses
        self.store = Store(root / "store")
        rows = [{"instruction": f"i{n}", "output": f"r{n}" if n != 4 else ""} for n in range(ROWS)]
        (root / "rows.json").write_text(json.dumps(rows))
        pair = "[New Instruction]\nI{n}\n[End]\n[New Answer]\nA{n}\n[End]"
        kinds = {
            "instruction": pair,
            "response_original": "Weak.\n[Better Answer]\nB{n}",
            "response_reflected": "[Better Answer]\nBB{n}",
        }
        left_out = {(2, "instruction"), (2, "response_reflected"), (3, "response_original"), (3, "response_reflected")}
        replies = [
            {"index": n, "kind": kind, "reply": reply.replace("{n}", str(n))}
            for n in range(ROWS)
            for kind, reply in kinds.items()
            if (n, kind) not in left_out
        ]
        (root / "replies.jsonl").write_text("\n".join(map(json.dumps, replies)))
        wording = Reflection(
            system="",
            instruction_request="{instruction}{response}",
            response_request="{instruction}{response}",
            input_block="",
            history_block="",
            instruction_criteria=(),
            response_criteria=(),
        )
        parts: dict[str, Any] = {
            "teacher": ReplayTeacher(path=root / "replies.jsonl"),
            "reflection": wording,
            "engine": LocalEngine(),
        }
        self.source = Source(data=Alpaca(path=root / "rows.json"))
        first = Reflect(phase="instruction", rows=self.source, **parts)
        self.reflections = (first, Reflect(phase="response", rows=self.source, instructions=first, **parts))
        for stage in (self.source, *self.reflections):
            materialize(stage, self.store)
        self.ids = self.store_of(self.source).table("rows")["id"].to_pylist()
        self.likelihoods = Likelihoods(
            rows=self.source,
            reflections=self.reflections,
            student=Student(path=str(model)),
            template=PromptTemplate(user="{instruction}", user_with_input="{instruction}{input}"),
            scorer=Scorer(reversed_request="{response}"),
            engine=LocalEngine(),
        )
        self._put_likelihoods()

    def store_of(self, stage: Any) -> Artifact:
        found = self.store.find(stage.name, stage.key)
        assert found is not None
        return found

    def _put_likelihoods(self) -> None:
        names = ("loss_y_given_x", "loss_y", "loss_x_given_y", "loss_x")
        lines = []
        for (row, version), losses in self.losses.items():
            known = not isinstance(losses, str)
            values = (losses[0], 1.0, losses[1], 1.0) if known else (None,) * 4
            status = "ok" if known else losses
            counts = {"tokens_y": 1, "tokens_x": 1, "context_truncated": False, "target_truncated": False}
            line = {"id": self.ids[row], "version": version, "status": status, **counts}
            lines.append(line | dict(zip(names, values, strict=True)))
        stage = self.likelihoods
        folder, _, _ = self.store.begin(stage.name, stage.key)
        from srecycle.store import write_table

        write_table(folder / "likelihoods.parquet", pa.Table.from_pylist(lines[::-1], schema=LIKELIHOOD_SCHEMA))
        self.store.commit(stage.name, stage.key, stage.payload, {}, {})

    def select(self, phase: Any, selector: Selector, before: Select | None = None) -> Select:
        stage = Select(
            phase=phase,
            rows=self.source,
            reflections=self.reflections,
            likelihoods=(self.likelihoods,) if selector.needs else (),
            before=before,
            selector=selector,
        )
        materialize(stage, self.store)
        return stage

    def decided(self, stage: Select) -> list[tuple[str, str, str]]:
        lines = self.store_of(stage).table("decisions").to_pylist()
        assert [line["id"] for line in lines] == self.ids
        return [(line["challenger"], line["chosen"], line["reason"]) for line in lines]

    def assemble(
        self, decisions: Select, keep: dict[str, Keep], assembly: Assembly | None = None, extra: Source | None = None
    ) -> Artifact:
        stage = Assemble(
            rows=self.source,
            reflections=self.reflections,
            likelihoods=(self.likelihoods,),
            decisions=decisions,
            keep=keep,
            assembly=assembly or Assembly(),
            extra=extra,
        )
        return materialize(stage, self.store).artifact
