"""What a verifier is: it says whether a response is right, from the texts alone, or that it can't tell."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from srecycle.config import Component, component


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a response is right (None: the verifier can't tell), and a sentence that says so, or nothing."""

    ok: bool | None
    told: str = ""


@component
class Verifier(Component, ABC):
    """Judges responses. Pure: the same texts always get the same verdict."""

    @abstractmethod
    def verdict(self, *, instruction: str, input: str, response: str, reference: str) -> Verdict:
        """Return the verdict on a pair. `reference` is an answer known to be right, or empty where there is none."""


@component
class NoVerifier(Verifier):
    """Never tells."""

    def verdict(self, *, instruction: str, input: str, response: str, reference: str) -> Verdict:
        """Return no verdict."""
        return Verdict(ok=None)
