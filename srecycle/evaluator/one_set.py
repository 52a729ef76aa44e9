"""Evaluations of one fixed set: its file is named alone, where others take files by name."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from srecycle.config import InputPath

_NAME = "prompts"


def _named(value: Any) -> Any:
    return {_NAME: value} if isinstance(value, str | Path) else value


OneSet = Annotated[dict[str, InputPath], Field(min_length=1, max_length=1), BeforeValidator(_named)]
"""One file of prompts: a path, or a path by any name."""
