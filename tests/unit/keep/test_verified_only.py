"""What an outside check finds right is kept, and what it can't tell as it is asked to be."""

import pytest

from srecycle.keep.base import filtered
from srecycle.keep.verified import VerifiedOnly
from srecycle.testbed.judgement import judge
from srecycle.testbed.originals import originals
from srecycle.verifier.exact import ExactVerifier
from srecycle.verifier.testbed import TestbedVerifier as WorldVerifier
from tests.unit.keep.taken import taken


def test_verified_only_keeps_what_is_right() -> None:
    chosen = taken(
        3,
        instruction=["six times seven?"] * 3,
        input=[""] * 3,
        response=["It is 42.", "It is 41.", "It is 42."],
        reference=["42", "42", ""],
    )
    assert VerifiedOnly(verifier=ExactVerifier()).reasons(chosen).tolist() == ["", "verified_wrong", "unverified"]
    kept = VerifiedOnly(verifier=ExactVerifier(), otherwise="keep")
    assert kept.reasons(chosen).tolist() == ["", "verified_wrong", ""]


@pytest.mark.parametrize("otherwise", ["keep", "refuse"])
def test_verified_only_agrees_with_the_worlds_judge(otherwise: str) -> None:
    rows = originals(120, 7)
    chosen = taken(
        len(rows),
        instruction=[row.instruction for row in rows],
        input=[""] * len(rows),
        response=[row.response for row in rows],
        reference=[""] * len(rows),
    )
    one = VerifiedOnly(verifier=WorldVerifier(), otherwise=otherwise)  # type: ignore[arg-type]
    kept = filtered({"verified": one}, chosen).reason == ""
    wanted = {"ok", "noisy"} | ({"ambiguous"} if otherwise == "keep" else set())
    assert kept.tolist() == [judge(row.instruction, row.response) in wanted for row in rows]
    assert 0 < kept.sum() < len(rows)
