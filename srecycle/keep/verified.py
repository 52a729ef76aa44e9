"""Keeps what an outside check finds right: the upper bound that a selection can be held against.

The check is a verifier's (srecycle/verifier), which asks no model. In the micro-world, whose truth is known by
construction, this is the oracle.
"""

from typing import Any, ClassVar, Literal

import numpy as np

from srecycle.config import component
from srecycle.keep.base import Chosen, Keep, Reasons
from srecycle.verifier import Verifier

_READ = ("instruction", "input", "response", "reference")


@component
class VerifiedOnly(Keep):
    """Refuses rows whose answer the verifier finds wrong, and (`otherwise`) those of which it can't tell."""

    needs: ClassVar[tuple[str, ...]] = _READ

    verifier: Verifier
    otherwise: Literal["keep", "refuse"] = "refuse"

    def reasons(self, chosen: Chosen) -> Reasons:
        """Refuse by the verifier's verdict."""
        told: list[Any] = []
        for row in range(len(chosen.version)):
            verdict = self.verifier.verdict(**{name: chosen.texts[name][row] for name in _READ}).ok
            if verdict is None:
                told.append("" if self.otherwise == "keep" else "unverified")
            else:
                told.append("" if verdict else "verified_wrong")
        return np.array(told, dtype=object)
