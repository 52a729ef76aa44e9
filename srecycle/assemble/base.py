"""What the training set is made of, beside the rows that were kept."""

from typing import Annotated, Any, Literal

from pydantic import Field

from srecycle.config import Component, component
from srecycle.data import Data


@component
class Assembly(Component):
    """What the student is trained to answer, and what is mixed in.

    `target`: the `answer` alone, or `critique_and_answer`, in which the teacher's critique stands before the answer
    that it led to (rows without one keep their answer). `originals` is how many of the original pairs are mixed in for
    each kept row (0.5: one for two), drawn with `seed` from all rows whose original was not kept. `extra` is another
    data set, of which `extra_share` rows for each kept row are mixed in (null: all of it).
    """

    target: Literal["answer", "critique_and_answer"] = "answer"
    originals: Annotated[float, Field(ge=0)] = 0.0
    extra: Data | None = None
    extra_share: Annotated[float, Field(ge=0)] | None = None
    seed: int = 0

    def response(self, line: dict[str, Any]) -> str:
        """Return what a version (with its critique) is learnt as."""
        answer = str(line["response"])
        if self.target == "answer" or not line["critique"].strip():
            return answer
        return f"{line['critique'].strip()}\n\n{answer}"
