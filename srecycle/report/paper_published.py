"""The paper's figures and setting, as `paper.json` has them: what runs are matched with, and deviate from."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("paper.json")

Table = Mapping[str, Any]
Line = Mapping[str, Any]


@cache
def published() -> Mapping[str, Any]:
    """Return the paper's figures and setting: their `source`, `setting`, the `arms` of its ablation, the `tables`.

    A table has `columns` and `rows`. A row that a study of ours makes says which: `arm`, `data`, `size` of the student,
    and where it differs `fraction` and `subset`, `against`, `mixed`, or `version`; `student` is a published model's id.
    """
    found: Mapping[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
    return found


def setting() -> Mapping[str, Any]:
    """Return what the paper's runs have in common."""
    found: Mapping[str, Any] = published()["setting"]
    return found
