"""The Batch API as calls that are tried again: passing trouble is waited out, everything else ends the run."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from srecycle.errors import UserError
from srecycle.teacher.pace import LONGEST_PAUSE, backoff
from srecycle.teacher.refusal import Trouble, advice, trouble_of

if TYPE_CHECKING:
    from srecycle.teacher.batch import OpenAIBatchTeacher

T = TypeVar("T")
TOKEN: Final = "srecycle"
"""The metadata field that holds a batch's token."""

PATIENCE: Final = 20
"""So many failed looks after a batch in a row end the run: batches have time."""

_CLOCKS_APART = 3600.0


class BatchServer:
    """A client. `beat` is called at least every `interval` seconds while this waits."""

    def __init__(self, teacher: "OpenAIBatchTeacher", secret: str, beat: Callable[[], None], interval: float) -> None:
        """Connects to nothing yet."""
        from openai import OpenAI

        self._teacher, self._secret, self._beat, self._interval = teacher, secret, beat, interval
        self._client = OpenAI(api_key=secret, base_url=teacher.base_url, timeout=teacher.timeout, max_retries=0)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def upload(self, token: str, content: bytes) -> str:
        """Upload a file of requests; return its id."""
        create: Any = self._client.files.create
        return str(self._call(partial(create, file=(f"{TOKEN}-{token}.jsonl", content), purpose="batch")).id)

    def create(self, file: str, token: str) -> str | Trouble:
        """Hand a file over as a batch, once; return its id, or the trouble after which it may be there or not."""
        create: Any = self._client.batches.create
        batch = self._tried(
            partial(
                create,
                input_file_id=file,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={TOKEN: token},
            )
        )
        return batch if isinstance(batch, Trouble) else str(batch.id)

    def find(self, token: str, moment: float) -> str | None:
        """Return the id of the batch with this token that was created about `moment` (seconds since 1970), or None.

        Where there are two, handed over once more while the server was slow to list the first, the second is cancelled.
        """
        found = sorted(self._call(lambda: list(self._listed(token, moment))), key=lambda batch: batch.created_at)
        for twin in found[1:]:
            self._call(partial(self._client.batches.cancel, twin.id))
        return str(found[0].id) if found else None

    def batch(self, identifier: str) -> Any:
        """Return a batch as it stands."""
        return self._call(partial(self._client.batches.retrieve, identifier), PATIENCE, wanted=f"batch {identifier}")

    def content(self, file: str) -> bytes:
        """Return a file's bytes."""
        return bytes(self._call(lambda: self._client.files.content(file).content, PATIENCE, wanted=f"file {file}"))

    def sleep(self, seconds: float) -> None:
        """Wait."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, self._interval))
            self._beat()

    def pause(self, trouble: Trouble, attempt: int) -> None:
        """Wait before another attempt."""
        self.sleep(min(max(self._teacher.poll_seconds, backoff(attempt), trouble.asked or 0.0), LONGEST_PAUSE))

    def stays_away(self, trouble: Trouble) -> UserError:
        """Word the end of the patience."""
        return UserError(
            f"{self._teacher.served_by} can't be asked ({trouble.name}: {trouble.told}); batches that it has go on "
            "there: see whether it is up and teacher.base_url is right, then run again to collect them"
        )

    def _listed(self, token: str, moment: float) -> Iterator[Any]:
        for batch in self._client.batches.list(limit=100):  # newest first
            if (batch.metadata or {}).get(TOKEN) == token:
                yield batch
            if batch.created_at < moment - _CLOCKS_APART:
                return

    def _call(self, request: Callable[[], T], attempts: int = 0, wanted: str = "") -> T:
        """Ask, again after passing trouble. Raises UserError where the server refuses or stays away."""
        attempt = 0
        while isinstance(done := self._tried(request, wanted), Trouble):
            attempt += 1
            if attempt >= (attempts or self._teacher.attempts):
                raise self.stays_away(done)
            self.pause(done, attempt)
        return done

    def _tried(self, request: Callable[[], T], wanted: str = "") -> T | Trouble:
        """Ask once. Passing trouble is returned; anything else raises UserError."""
        from openai import OpenAIError

        try:
            return request()
        except (OpenAIError, OSError, ValueError) as error:
            trouble = trouble_of(error, self._secret)
        if trouble.follows in ("again", "pause"):
            return trouble
        teacher = self._teacher
        if wanted and trouble.status == 404:
            raise UserError(
                f"{teacher.served_by} knows no {wanted}: use the key that it was handed over with; or, where it is "
                f"gone for good, delete {teacher.journal} to hand its requests over anew (and pay for them again)"
            )
        if trouble.follows == "row":
            raise UserError(
                f"{teacher.served_by} takes no such batch ({trouble.status}): {trouble.told}; does it have the Batch "
                "API? (replies so far are kept)"
            )
        raise UserError(
            advice(
                trouble,
                provider=teacher.served_by,
                model=teacher.model,
                key_variable=teacher.key_variable,
                row="a batch",
            )
        )
