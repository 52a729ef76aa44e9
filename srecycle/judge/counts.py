"""How much was judged, and why the rest was not: in numbers, and in words. Pure."""

from collections import Counter
from collections.abc import Iterable

from srecycle.rows import OK
from srecycle.stage import Metrics

_UNJUDGED = "unjudged/"


def counted(reasons: Iterable[str]) -> Metrics:
    """Return the counts of what was `asked`: `judged` where the reason is "ok", else `unjudged/REASON`."""
    found = Counter(reasons)
    left = {f"{_UNJUDGED}{reason}": count for reason, count in sorted(found.items()) if reason != OK}
    return {"asked": found.total(), "judged": found[OK], **left}


def unjudged(metrics: Metrics) -> str:
    """Return in words what has no verdict, "2 refused, 1 cut" for example; "" where everything has one."""
    left = {name.removeprefix(_UNJUDGED): count for name, count in metrics.items() if name.startswith(_UNJUDGED)}
    return ", ".join(f"{count} {reason}" for reason, count in left.items())
