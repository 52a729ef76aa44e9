"""How fast a training went and how much memory it took: notes, which may differ between equal runs."""

import resource
import time
from collections.abc import Sequence
from typing import Any

from srecycle.trainer.layout import Tokens


class Throughput:
    """Notes the rate of the block that it stands around, over the steps that were trained in it."""

    def __init__(self, notes: dict[str, Any], counted: Sequence[Tokens], begun: int) -> None:
        """Note into `notes` what training takes; of the steps counted in `counted`, `begun` were trained before."""
        self._notes, self._counted, self._now = notes, counted, counted[begun:]

    def __enter__(self) -> None:
        """Start the clock."""
        import torch

        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._started = time.perf_counter()

    def __exit__(self, kind: object, *_: object) -> None:
        """Note tokens, tokens a second with and without padding, and the peak memory (GiB) of device or process."""
        import torch

        if kind is not None or not self._now:
            return
        seconds = time.perf_counter() - self._started
        seen, padded = (sum(getattr(one, name) for one in self._now) for name in ("seen", "padded"))
        on_device = torch.cuda.is_available()
        peak = torch.cuda.max_memory_allocated() if on_device else _resident_peak()
        self._notes |= {
            "tokens_with_padding": sum(one.padded for one in self._counted),
            "tokens_per_second": round(seen / seconds, 1),
            "tokens_per_second_with_padding": round(padded / seconds, 1),
            "peak_memory_gib": round(peak / 2**30, 3),
        }


def _resident_peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
