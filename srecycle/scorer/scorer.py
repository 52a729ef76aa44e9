"""What is scored, and how likelihoods become scores.

IFD(y|x) = exp(L(y|x) - L(y)), the paper's section 3.1: how much the instruction helps to predict the response; higher
is harder. r-IFD(x|y) = exp(L(x|y') - L(x)), section 3.2: the same, sides changed, y' being the response inside a
request to guess its instruction; lower means that the instruction follows from the response.

Relatives that the same forward passes give: S-IFD (arXiv:2506.01317), IFD over those response tokens alone whose
likelihood the instruction moves most; GRAPE's length-normalised log-probability (arXiv:2502.04194), -L(y|x), higher
meaning that the response fits the student; the rank-surprisal ratio (arXiv:2601.14249), the mean clipped rank of the
response's tokens over their mean surprisal, lower meaning unlikely tokens that still rank high; confidence, the
likelihood (geometric mean over tokens) of the response's final answer after everything before it.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from srecycle.answers import AnswerPattern
from srecycle.config import Component, component, runtime
from srecycle.placeholders import fill, showing

Column = npt.NDArray[np.float64]

SCORES: Final = (
    "ifd",
    "r_ifd",
    "ifd_loss_ratio",
    "r_ifd_loss_ratio",
    "perplexity",
    "s_ifd",
    "grape",
    "rank_surprisal",
    "confidence",
)
"""The columns that `scores` computes. Selectors and keep filters name the ones they need."""

LIKELIHOODS: Final = (
    "loss_y_given_x",
    "loss_y",
    "loss_x_given_y",
    "loss_x",
    "shift_y",
    "rank_y_given_x",
    "loss_answer",
)
"""The columns that it computes them from."""


@component
class Scorer(Component):
    """What the student is asked to score.

    `reversed_request` (with `{response}`) is y'. `score_eos` counts the end of the sequence among the target's tokens.
    `compat: reference` reads a pair as the authors' released code does. `s_ifd_share` is the share of response tokens
    that S-IFD looks at, `rank_clip` the highest rank that the rank-surprisal ratio counts. `token_losses` keeps every
    target token's losses beside their means. `answer_pattern` finds in a response (srecycle/answers.py) the final
    answer whose likelihood confidence is; null looks for none.

    `batch_tokens` is the token budget of a batch, padding included (default: found by the device); `share_prefixes`
    computes what sequences have in common once; `compile` fuses the model's norms and MLPs, which takes half a minute
    at the start and makes bf16 on one CPU thread a fifth faster (on two it gains nothing).
    """

    revision: ClassVar[int] = 2

    reversed_request: Annotated[str, showing("response")]
    score_eos: bool = False
    compat: Literal["none", "reference"] = "none"
    s_ifd_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    rank_clip: Annotated[int, Field(ge=1)] = 100
    token_losses: bool = False
    answer_pattern: AnswerPattern | None = None
    batch_tokens: Annotated[int, Field(ge=1)] | None = runtime(None)
    share_prefixes: bool = runtime(True)
    compile: bool = runtime(False)

    def request(self, response: str) -> str:
        """Return y': the request to guess the instruction that this response answers."""
        return fill(self.reversed_request, {"response": response})


def scores(losses: Mapping[str, Column]) -> dict[str, Column]:
    """Compute every score from the columns that `LIKELIHOODS` names, column by column. NaN stays NaN.

    Returns ratios of perplexities (`ifd`, `r_ifd`), ratios of losses (`..._loss_ratio`), `perplexity`, ppl(y|x), and
    the relatives that this module names.
    """
    y_given_x, y, x_given_y, x, shift, rank, answer = (losses[name] for name in LIKELIHOODS)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        computed = {
            "ifd": np.exp(y_given_x - y),
            "r_ifd": np.exp(x_given_y - x),
            "ifd_loss_ratio": y_given_x / y,
            "r_ifd_loss_ratio": x_given_y / x,
            "perplexity": np.exp(y_given_x),
            "s_ifd": np.exp(shift),
            "grape": -y_given_x,
            "rank_surprisal": rank / y_given_x,
            "confidence": np.exp(-answer),
        }
    return {name: np.where(np.isfinite(values), values, np.nan) for name, values in computed.items()}
