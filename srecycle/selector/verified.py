"""Selection by an external check: a rewrite wins where it is right and what it would replace is not known to be.

The check is a verifier's, which asks no model: neither teacher nor student validates itself. It needs data that can be
checked: a row's reference, which only versions that answer the row's own question have (a new instruction has none),
or a checker that knows the task.
"""

from typing import ClassVar, Literal

import numpy as np

from srecycle.config import component
from srecycle.selector.base import Contest, Matrix, Selector
from srecycle.verifier import Verifier

_READ = ("instruction", "input", "response", "reference")
_RIGHT, _WRONG = 1.0, 0.0


@component
class Verified(Selector):
    """Takes a challenger that is verified right where the incumbent isn't.

    `otherwise` says what becomes of a challenger of which the verifier can't tell: `keep` leaves the incumbent, `take`
    takes it, unless the incumbent is verified right. One that is verified wrong never replaces one that might be right.
    """

    needs: ClassVar[tuple[str, ...]] = _READ
    unjudged: ClassVar[str] = "unverified"

    verifier: Verifier
    otherwise: Literal["keep", "take"] = "keep"

    def preference(self, contest: Contest) -> Matrix:
        """Prefer right (1) to wrong (0), what can't be told is between: a challenger only if `otherwise` says so."""
        preference = np.full(contest.usable.shape, np.nan)
        for row, version in np.argwhere(contest.usable):
            texts = {name: contest.texts[name][row, version] for name in _READ}
            verdict = self.verifier.verdict(**texts).ok
            if verdict is not None:
                preference[row, version] = _RIGHT if verdict else _WRONG
            elif version == 0:
                preference[row, version] = 0.25
            elif self.otherwise == "take":
                preference[row, version] = 0.5
        return preference
