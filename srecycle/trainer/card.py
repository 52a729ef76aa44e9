"""The model card of a training: what was trained on what, by which settings, with which figures.

Deterministic: two equal trainings write the same card, in whatever folders. A local base stands as its folder's name
and content, and what was done before as its stages' identities. Texts that come from outside (paths, names) stand in
JSON blocks only, with what could end such a block escaped, so a card never renders them.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from srecycle.config import Canonical
from srecycle.stage import Metrics, Stage
from srecycle.student import Student


def lineage(stage: Stage) -> list[Canonical]:
    """Return the name, key and identity of a stage and of all that it rests on, nearest first."""
    found: dict[str, Stage] = {}
    waiting = [stage]
    while waiting:
        one = waiting.pop(0)
        if one.key not in found:
            found[one.key] = one
            waiting += one.inputs
    return [{"stage": one.name, "key": key, **one.payload} for key, one in found.items()]


_LOSS = {"sft": "nats per target token", "dpo": "of the preference loss, per pair"}


def write_card(
    folder: Path,
    student: Student,
    settings: Canonical,
    lineage: Sequence[Canonical],
    metrics: Metrics,
    *,
    methods: Sequence[str] = ("sft",),
) -> None:
    """Write `README.md` into what was trained, `adapter/` or `model/`; the figures' loss is that of the last method."""
    for name, library in (("adapter", "peft"), ("model", "transformers")):
        if (folder / name).is_dir():
            text = _card(student, settings, lineage, metrics, library=library, methods=methods)
            (folder / name / "README.md").write_text(text, encoding="utf-8")


def _card(
    student: Student,
    settings: Canonical,
    lineage: Sequence[Canonical],
    metrics: Metrics,
    *,
    library: str,
    methods: Sequence[str],
) -> str:
    base = student.base
    header = {"library_name": library, "tags": ["srecycle", "selective-reflection-tuning", *methods]}
    if base.get("revision"):  # a hub id: a local path is no place that the hub could link to
        header["base_model"] = str(base["base_model_name_or_path"])
    front = "\n".join(f"{name}: {json.dumps(value)}" for name, value in sorted(header.items()))
    loss = metrics.get("loss/last_tenth")
    parts = (
        ("Base model", _named(student)),
        ("Settings", settings),
        ("Lineage: the stages that this rests on, nearest first", list(lineage)),
        ("Training figures", metrics),
    )
    blocks = "\n".join(f"## {title}\n\n{_block(content)}\n" for title, content in parts)
    return (
        f"---\n{front}\n---\n\n# A student fine-tuned by srecycle\n\n"
        "Trained on what it selected itself from a teacher's reflections "
        "(Selective Reflection-Tuning, [arXiv:2402.10110](https://arxiv.org/abs/2402.10110)). "
        f"Mean loss over the last tenth of the steps: {loss:.6g} {_LOSS[methods[-1]]}.\n\n{blocks}"
    )


def _named(student: Student) -> dict[str, Any]:
    """Name the base model, and what is merged into it, without saying where it lies here."""
    base = student.base
    if base.get("revision"):
        return dict(base)
    name = Path(student.path).expanduser().resolve().name
    return {**base, "base_model_name_or_path": name, "content": student.resolved()["path"]}


def _block(content: Any) -> str:
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False)
    for letter in "`<>":  # in JSON they can only stand inside strings
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return f"```json\n{text}\n```"
