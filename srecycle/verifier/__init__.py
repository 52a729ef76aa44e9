"""Checks of a response that ask no model. `verifier@PLACE=NAME` picks one."""

from srecycle.verifier.base import NoVerifier as NoVerifier
from srecycle.verifier.base import Verdict as Verdict
from srecycle.verifier.base import Verifier as Verifier
