"""Filters whose say is known already decide as if they were asked, also beside filters that compare rows."""

import numpy as np
import pytest

from srecycle.config import component
from srecycle.keep import Chosen, Keep, filtered
from srecycle.keep.base import told_by
from srecycle.keep.limit import IFDMax, ReversedIFDMax


@component
class Fewest(Keep):
    """Keeps the two lowest of those that it sees."""

    compares = True
    needs = ("ifd",)

    def reasons(self, chosen):
        ranks = chosen.columns["ifd"].argsort().argsort()
        return np.where(ranks < 2, "", "ifd_too_high").astype(object)


CHOSEN = Chosen(
    id=np.array(list("abcdef"), dtype=object),
    version=np.array(["both"] * 6, dtype=object),
    score_status=np.array(["ok"] * 5 + ["failed"], dtype=object),
    columns={
        "ifd": np.array([0.9, 0.2, 0.3, 0.4, 1.0, np.nan]),
        "r_ifd": np.array([0.5, 1.5, 0.5, 0.5, 1.5, 0.5]),
    },
)
KEEP = {"ifd_max": IFDMax(), "rifd_max": ReversedIFDMax(), "fewest": Fewest()}
REASONS = ["ifd_too_high", "r_ifd_too_high", "", "", "ifd_too_high", "ifd_failed"]


@pytest.mark.parametrize("known", [(), ("ifd_max",), ("ifd_max", "rifd_max")])
def test_filtered_with_known_filters_gives_the_same(known):
    kept = filtered(KEEP, CHOSEN, {name: told_by(KEEP[name], CHOSEN) for name in known})
    assert kept.reason.tolist() == REASONS
    assert kept.refused == {"ifd_failed": 1, "ifd_too_high": 2, "r_ifd_too_high": 1}
    assert kept.refusals.tolist() == [1, 1, 0, 0, 2, 1]
    assert kept.flip_of.tolist() == ["", "", "rifd_max", "rifd_max", "", ""]


def test_filtered_does_not_ask_a_known_filter_again():
    silent = told_by(IFDMax(below=9.0), CHOSEN)
    assert filtered({"ifd_max": IFDMax()}, CHOSEN, {"ifd_max": silent}).reason.tolist() == [
        "",
        "",
        "",
        "",
        "",
        "ifd_failed",
    ]
