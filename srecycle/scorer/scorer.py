"""What is scored, and how likelihoods become scores.

IFD(y|x) = exp(L(y|x) - L(y)), the paper's section 3.1: how much the instruction helps to predict the response; higher
is harder. r-IFD(x|y) = exp(L(x|y') - L(x)), section 3.2: the same, sides changed, y' being the response inside a
request to guess its instruction; lower means that the instruction follows from the response.
"""

from collections.abc import Mapping
from typing import Annotated, Final

import numpy as np
import numpy.typing as npt
from pydantic import Field

from srecycle.config import Component, component, runtime
from srecycle.placeholders import fill, showing

Column = npt.NDArray[np.float64]

SCORES: Final = ("ifd", "r_ifd", "ifd_loss_ratio", "r_ifd_loss_ratio", "perplexity")
"""The columns that `scores` computes. Selectors and keep filters name the ones they need."""


@component
class Scorer(Component):
    """What the student is asked to score.

    `reversed_request` (with `{response}`) is y'. `score_eos` counts the end of the sequence as the target's last token.
    `batch_tokens` is the token budget of a batch, padding included.
    """

    reversed_request: Annotated[str, showing("response")]
    score_eos: bool = False
    batch_tokens: Annotated[int, Field(ge=1)] = runtime(4096)

    def request(self, response: str) -> str:
        """Return y': the request to guess the instruction that this response answers."""
        return fill(self.reversed_request, {"response": response})


def scores(losses: Mapping[str, Column]) -> dict[str, Column]:
    """Compute every score from the four likelihoods (nats per token), column by column. NaN stays NaN.

    Returns ratios of perplexities (`ifd`, `r_ifd`), ratios of losses (`..._loss_ratio`) and `perplexity`, ppl(y|x).
    """
    y_given_x, y, x_given_y, x = (losses[name] for name in ("loss_y_given_x", "loss_y", "loss_x_given_y", "loss_x"))
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        computed = {
            "ifd": np.exp(y_given_x - y),
            "r_ifd": np.exp(x_given_y - x),
            "ifd_loss_ratio": y_given_x / y,
            "r_ifd_loss_ratio": x_given_y / x,
            "perplexity": np.exp(y_given_x),
        }
    return {name: np.where(np.isfinite(values), values, np.nan) for name, values in computed.items()}
