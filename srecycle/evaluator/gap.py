"""How much lower a judged win rate is out of distribution than in domain: two groups of sets of prompts. Pure.

In: which sets are in which group, and the outcomes of their pairs. Out: each group's figures, pooled over its sets, and
their difference.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from srecycle.judge.pairs import Outcome, figures
from srecycle.stage import Metrics

GAP: Final = "gap"
"""What the figures' names begin with."""

Group = Literal["in_domain", "out_of_distribution"]
Gap = dict[Group, tuple[str, ...]]
"""Names of sets of prompts in each of both groups."""

_GROUPS: Final[tuple[Group, Group]] = ("in_domain", "out_of_distribution")


def check_gap(gap: Gap, prompts: Mapping[str, Any]) -> None:
    """Raise ValueError where the groups aren't two, of different sets that there are."""
    if missing := [group for group in _GROUPS if not gap.get(group)]:
        raise ValueError(f"gap has no sets {missing[0]}: name some of {', '.join(prompts)}, or set gap=null")
    named = Counter(name for some in gap.values() for name in some)
    if unknown := [name for name in named if name not in prompts]:
        raise ValueError(f"gap names {unknown[0]!r}, which is no set of prompts: there are {', '.join(prompts)}")
    if twice := [name for name, count in named.items() if count > 1]:
        raise ValueError(f"gap: {twice[0]} stands twice: name each set once")
    if GAP in prompts:
        raise ValueError(f"prompts has a set named {GAP!r}, as the gap's figures are: give it another name")


def gap_figures(groups: Mapping[Group, Sequence[Outcome]], seed: int) -> Metrics:
    """Return each group's figures, and `win_rate`, in domain less out of distribution, with its standard error.

    The standard error takes both groups for independent. The difference is absent where a group has no verdict.
    """
    near, far = (figures(groups[group], seed) for group in _GROUPS)
    metrics = {
        f"{group}/{name}": value
        for group, told in zip(_GROUPS, (near, far), strict=True)
        for name, value in told.items()
    }
    if near["judged"] and far["judged"]:
        metrics["win_rate"] = near["win_rate"] - far["win_rate"]
        metrics["win_rate_stderr"] = math.hypot(near["win_rate_stderr"], far["win_rate_stderr"])
    return metrics
