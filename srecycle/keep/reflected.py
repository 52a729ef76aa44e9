"""Only reflected responses: the paper discards the others (section 3.2)."""

import numpy as np

from srecycle.config import component
from srecycle.keep.base import Chosen, Keep, Reasons
from srecycle.rows import kind_of


@component
class ResponseReflectedOnly(Keep):
    """Keeps rows whose response was reflected on and taken."""

    def reasons(self, chosen: Chosen) -> Reasons:
        """Refuse the original response and that of the instruction phase."""
        reflected = np.array([kind_of(version) in ("response", "both") for version in chosen.version], dtype=bool)
        return np.where(reflected, "", "response_not_reflected").astype(object)
