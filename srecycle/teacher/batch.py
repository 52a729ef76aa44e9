"""OpenAI's Batch API: the chat teacher at half the price, within a day.

In: requests. Out: the replies that the chat teacher would have got, in the same ledger under the same keys. What the
ledger lacks is handed over as files of requests, polled for, and collected. Batches are journalled beside the ledger
before and after they are handed over, so a killed run finds and collects what it paid for: one whose handing over is in
doubt is looked up at the server by the token in its metadata. Requests that a batch leaves without a reply (it expired,
failed or was cancelled, or the server was overloaded) are handed over again; those that the server refuses are not.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import Field

from srecycle.config import InputPath, component, runtime
from srecycle.teacher.base import Rates, Reply
from srecycle.teacher.inquiry import Question
from srecycle.teacher.ledger import Ledger
from srecycle.teacher.openai import OpenAITeacher


@component
class OpenAIBatchTeacher(OpenAITeacher):
    """A chat model behind a server with OpenAI's Batch API.

    `attempts` is how often a request is handed over, `batch_discount` the share taken off the prices. `journal` is the
    file of batches under way. The first look after a batch comes after `poll_seconds`, further ones ever later. The
    rate limits and concurrency of the chat teacher have no meaning here.
    """

    revision: ClassVar[int] = 1

    journal: InputPath = runtime()
    batch_discount: Annotated[float, Field(ge=0, le=1)] = runtime(0.5)
    batch_requests: Annotated[int, Field(ge=1, le=50_000)] = runtime(50_000)
    batch_megabytes: Annotated[float, Field(gt=0, le=200)] = runtime(200.0)
    poll_seconds: Annotated[float, Field(gt=0)] = runtime(20.0)

    @property
    def whole(self) -> bool:
        """All of a stage's requests are wanted at once: each call hands over batches of its own."""
        return True

    def price(self, input_tokens: int, output_tokens: int) -> float:
        """Return what so many tokens cost, in dollars, at the configured prices less the discount."""
        return super().price(input_tokens, output_tokens) * (1 - self.batch_discount)

    def rates(self, ledger: Ledger) -> Rates | None:
        """Return what the ledger says about this model; how long a batch takes it can't say."""
        rates = super().rates(ledger)
        return rates and replace(rates, calls_per_second=0.0)

    def _ask(self, questions: Sequence[Question], ledger: Ledger, *, proven: bool) -> dict[str, Reply]:
        """Hand the requests over, and wait until they are answered, for a day if need be."""
        from srecycle.teacher.batch_run import BatchRun

        return BatchRun(self, os.environ[self.key_variable], questions, ledger).run()
