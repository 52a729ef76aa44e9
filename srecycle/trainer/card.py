"""The model card of a training: what was trained on what, by which settings, with which figures.

Deterministic: two equal trainings write the same card. Texts that come from outside (paths, names) stand in JSON blocks
only, with what could end such a block escaped, so a card never renders them.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from srecycle.config import Canonical
from srecycle.stage import Metrics, Stage
from srecycle.student import Student


def lineage(stage: Stage) -> list[str]:
    """Return the name and key of a stage and of all that it rests on, nearest first."""
    found: dict[str, None] = {}
    waiting = [stage]
    while waiting:
        one = waiting.pop(0)
        if (line := f"{one.name} {one.key}") not in found:
            found[line] = None
            waiting += one.inputs
    return list(found)


def write_card(folder: Path, student: Student, settings: Canonical, lineage: Sequence[str], metrics: Metrics) -> None:
    """Write `README.md` into what was trained, `adapter/` or `model/`."""
    for name, library in (("adapter", "peft"), ("model", "transformers")):
        if (folder / name).is_dir():
            text = _card(student, settings, lineage, metrics, library)
            (folder / name / "README.md").write_text(text, encoding="utf-8")


def _card(student: Student, settings: Canonical, lineage: Sequence[str], metrics: Metrics, library: str) -> str:
    base = student.base
    header = {"library_name": library, "tags": ["srecycle", "selective-reflection-tuning", "sft"]}
    if base.get("revision"):  # a hub id: a local path is no place that the hub could link to
        header["base_model"] = str(base["base_model_name_or_path"])
    front = "\n".join(f"{name}: {json.dumps(value)}" for name, value in sorted(header.items()))
    loss = metrics.get("loss/last_tenth")
    parts = (
        ("Base model", base),
        ("Settings", settings),
        ("Lineage: the keys of the stages that this rests on, nearest first", list(lineage)),
        ("Training figures", metrics),
    )
    blocks = "\n".join(f"## {title}\n\n{_block(content)}\n" for title, content in parts)
    return (
        f"---\n{front}\n---\n\n# A student fine-tuned by srecycle\n\n"
        "Trained on what it selected itself from a teacher's reflections "
        "(Selective Reflection-Tuning, [arXiv:2402.10110](https://arxiv.org/abs/2402.10110)). "
        f"Mean loss over the last tenth of the steps: {loss:.6g} nats per target token.\n\n{blocks}"
    )


def _block(content: Any) -> str:
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False)
    for letter in "`<>":  # in JSON they can only stand inside strings
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return f"```json\n{text}\n```"
