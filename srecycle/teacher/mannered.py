"""The micro-world's teacher with manners: what the scripted teacher says, hedged or with a favourite filler.

Its replies are those of the scripted teacher with the same knobs and seed, word for word, but for the lead-ins
(srecycle/testbed/manner.py): two teachers that differ in their manners alone make the same faults in the same rows.
"""

import random
from collections.abc import Sequence
from dataclasses import fields, replace

from srecycle.config import component
from srecycle.teacher.base import Reply, Request
from srecycle.teacher.ledger import Ledger
from srecycle.teacher.scripted import Chance, ScriptedTeacher
from srecycle.testbed.manner import Manner, mannered


@component
class ManneredTeacher(ScriptedTeacher):
    """The scripted teacher, which hedges faulty and sound answers so often, and so often begins with its filler."""

    hedges_faults: Chance = 0.0
    hedges_sound: Chance = 0.0
    filler: Chance = 0.0

    def replies(self, requests: Sequence[Request], ledger: Ledger) -> list[Reply]:
        """Write one reply a request."""
        manner = Manner(**{field.name: getattr(self, field.name) for field in fields(Manner)})
        return [
            replace(plain, text=mannered(plain.text, one.instruction, manner, self._manners(one)))
            for one, plain in zip(requests, super().replies(requests, ledger), strict=True)
        ]

    def _manners(self, request: Request) -> random.Random:
        """Return chance of its own, so that what is said does not depend on how."""
        return random.Random(f"manner|{self.seed}|{request.row_id}|{request.phase}|{request.base}|{request.sample}")
