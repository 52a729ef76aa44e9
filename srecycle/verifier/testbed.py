"""The micro-world's verifier: its judge, which knows what every list and chain of operations comes to."""

from collections.abc import Mapping
from typing import Final

from srecycle.config import component
from srecycle.testbed.judgement import Verdict as Judgement
from srecycle.testbed.judgement import judge
from srecycle.verifier.base import Verdict, Verifier

_VERDICTS: Final[Mapping[Judgement, Verdict]] = {
    "ok": Verdict(ok=True, told="The answer is right."),
    "noisy": Verdict(ok=True, told="The answer is right, but a text holds filler words."),
    "ambiguous": Verdict(ok=None, told="The instruction asks for no definite task."),
    "refusal": Verdict(ok=False, told="The answer refuses a task that can be done."),
    "off_topic": Verdict(ok=False, told="The answer holds no result."),
    "mismatched": Verdict(ok=False, told="The answer belongs to another task."),
    "drifted": Verdict(ok=False, told="The answer carries out other operations than it was asked to."),
    "wrong_step": Verdict(ok=False, told="A step of the answer does not follow from the one before it."),
    "wrong_answer": Verdict(ok=False, told="The answer is wrong."),
}


@component
class TestbedVerifier(Verifier):
    """Judges a pair of the micro-world; needs no reference."""

    def verdict(self, *, instruction: str, input: str, response: str, reference: str) -> Verdict:
        """Return the judge's verdict. Cluttered but right answers are right; an ambiguous task has no right answer."""
        return _VERDICTS[judge(instruction, response)]
