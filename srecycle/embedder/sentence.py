"""Embeddings of a sentence-transformers model (arXiv:1908.10084), which was trained for their cosine.

Identity: the content of all files of a local folder, or a hub id's resolved commit, and the maximal length. The library
is optional. Code that comes with a model is never run, and weights are read from safetensors.
"""

import importlib.metadata
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from srecycle.config import component, runtime
from srecycle.digest import folder_digest
from srecycle.embedder.base import Embedder, TextEncoder, Tokenized, Vectors
from srecycle.errors import UserError
from srecycle.progress import quiet_libraries
from srecycle.student import Student
from srecycle.student.pinned import Pinned

_PACKAGE, _OLDEST = "sentence-transformers", (6, 2)
"""Older ones run the code that a local folder brings, asked or not."""

_CPU_BUDGET, _GPU_BUDGET = 2048, 16384
_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
_DOCUMENTS = (".md", "LICENSE", "LICENSE.txt")


@component
class SentenceEmbedder(Embedder):
    """Embeds by the sentence-transformers model at `path`: a folder, or a hub id at a revision (`hub_revision`).

    Texts are cut to `max_length` tokens, where that is below the model's own limit. `device` is "auto",
    "cpu", "cuda", ...
    """

    uses_student: ClassVar[bool] = False

    path: str
    hub_revision: str = "main"
    max_length: Annotated[int, Field(ge=8)] | None = None
    device: str = runtime("auto")

    def resolved(self) -> Mapping[str, Any]:
        """A folder stands as the digest of its files, a hub id as its commit."""
        return {"path": self._model.content, "hub_revision": self._model.commit}

    def check(self, student: Student | None) -> None:
        """Raise UserError where the library is missing or too old."""
        try:
            version = importlib.metadata.version(_PACKAGE)
        except importlib.metadata.PackageNotFoundError:
            version = ""
        if tuple(map(int, re.findall(r"\d+", version)[:2])) < _OLDEST:
            seen = f"this is {version}" if version else "it isn't installed"
            oldest = ".".join(map(str, _OLDEST))
            raise UserError(
                f"embedder=sentence_transformers needs {_PACKAGE} {oldest} or later, and {seen}: "
                f'pip install "{_PACKAGE}>={oldest}", or use embedder=student'
            )

    def load(self, student: Student | None) -> TextEncoder:
        """Load the model. Raises UserError where it can't be loaded."""
        self.check(student)
        folder = self._model.local()
        with quiet_libraries():
            from sentence_transformers import SentenceTransformer
            from transformers.utils import logging

            logging.disable_progress_bar()
            try:
                model = SentenceTransformer(
                    str(folder),
                    device=None if self.device == "auto" else self.device,
                    trust_remote_code=False,
                    local_files_only=True,
                    model_kwargs={"use_safetensors": True, "dtype": "float32"},
                )
            except Exception as error:  # a model is many libraries' files, and each has errors of its own
                reason = " ".join(str(error).split())[:300]
                raise UserError(f"the embedder {self.path} can't be loaded: {reason}") from error
        return _Sentences(model, self._model.named, self.max_length)

    @cached_property
    def _model(self) -> Pinned:
        return _Pinned(
            field="embedder.path",
            path=self.path,
            revision=self.hub_revision,
            config="modules.json",
            files=_FILES,
        )


@dataclass(frozen=True, kw_only=True)
class _Pinned(Pinned):
    """A sentence-transformers model, whose parts stand in folders of their own."""

    @cached_property
    def content(self) -> str:
        """What stands for the path in an identity: the digest of all of a folder's files, or the hub id."""
        if self.folder is None:
            return self.path
        names = [path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()]
        return f"sha256:{folder_digest(self.folder, [name for name in names if not name.endswith(_DOCUMENTS)])}"

    @property
    def _what(self) -> str:
        return "a sentence-transformers model"


class _Sentences(TextEncoder):
    """A loaded sentence-transformers model. The library does the padding, and masks it."""

    def __init__(self, model: Any, name: str, max_length: int | None) -> None:
        super().__init__()
        self._model, self.model = model.eval(), name
        own = model.max_seq_length or math.inf  # static models have no limit, and take none
        if max_length is not None and max_length < own < math.inf:
            own = model.max_seq_length = max_length
        self._limit = int(min(own, sys.maxsize))
        self.window = self._limit
        self.batch_tokens = _CPU_BUDGET if model.device.type == "cpu" else _GPU_BUDGET
        self.dimensions = self.vectors([Tokenized(content="a", tokens=1, truncated=False)]).shape[1]

    def tokenized(self, texts: Sequence[str]) -> list[Tokenized]:
        """Count tokens, special ones included; the library itself cuts at its limit."""
        if not texts:
            return []
        return [
            Tokenized(content=text, tokens=min(count, self._limit), truncated=count > self._limit)
            for text, count in zip(texts, self._counts(list(texts)), strict=True)
        ]

    def vectors(self, batch: Sequence[Tokenized]) -> Vectors:
        """Return what the library makes of the texts, in fp32."""
        texts = [one.content for one in batch]
        found: Vectors = self._model.encode(texts, batch_size=len(texts), show_progress_bar=False)
        return found.astype(np.float32, copy=False)

    def _counts(self, texts: list[str]) -> list[int]:
        tokenizer = self._model.tokenizer
        if callable(tokenizer):
            return [len(ids) for ids in tokenizer(texts, truncation=False, verbose=False)["input_ids"]]
        return [len(one.ids) for one in tokenizer.encode_batch(texts)]
