"""The student's own embeddings: the mean of its last hidden states over a text's tokens.

The anchor token that every sequence begins with stands before the text, as in scoring, and is not averaged: a causal
model's first state says nothing of the text, and is larger than all others.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from srecycle.config import component
from srecycle.embedder.base import Embedder, TextEncoder, Tokenized, Vectors
from srecycle.student import Student
from srecycle.student.encoding import anchor_ids, token_ids
from srecycle.student.model import Loaded


@component
class StudentEmbedder(Embedder):
    """Embeds by the experiment's student, its adapters included. Texts are cut to its `max_length`."""

    uses_student: ClassVar[bool] = True

    def check(self, student: Student | None) -> None:
        """Raise UserError where the student's device isn't there."""
        assert student is not None
        student.check()

    def load(self, student: Student | None) -> TextEncoder:
        """Load the student."""
        assert student is not None
        pinned = student.resolved()
        commit = pinned["hub_revision"]
        return HiddenStates(student.load(), f"{pinned['path']}@{commit}" if commit else pinned["path"])


class HiddenStates(TextEncoder):
    """A causal language model that embeds."""

    def __init__(self, loaded: Loaded, model: str) -> None:
        """Find the model's body and what it can take, by a few tokens."""
        from srecycle.student.inference import found_budget  # imports torch, which planning must not
        from srecycle.student.network import Network

        super().__init__()
        self._loaded, self.model = loaded, model
        self._anchor = anchor_ids(loaded.tokenizer)
        self.window, self.batch_tokens = Network(loaded).window, found_budget(loaded)
        self.dimensions = self.vectors([Tokenized(content=(*self._anchor, 0), tokens=1, truncated=False)]).shape[1]

    def tokenized(self, texts: Sequence[str]) -> list[Tokenized]:
        """Tokenise; a special token's name within a text is text."""
        room = self._loaded.max_length - len(self._anchor)
        return [
            Tokenized(
                content=(*self._anchor, *ids[:room]),
                tokens=len(self._anchor) + len(ids[:room]) if ids else 0,
                truncated=len(ids) > room,
            )
            for ids in token_ids(self._loaded.tokenizer, texts, plain=True)
        ]

    def vectors(self, batch: Sequence[Tokenized]) -> Vectors:
        """Return the means over each text's own tokens, in fp32."""
        import torch

        width = max(len(one.content) for one in batch)
        ids = torch.zeros((len(batch), width), dtype=torch.long)
        own = torch.zeros((len(batch), width, 1), dtype=torch.bool)
        for number, one in enumerate(batch):
            ids[number, : len(one.content)] = torch.tensor(one.content)
            own[number, len(self._anchor) : len(one.content)] = True
        own = own.to(self._loaded.device)
        with torch.inference_mode():
            states = self._states(ids.to(self._loaded.device)).float()
            mean = states.masked_fill(~own, 0).sum(dim=1) / own.sum(dim=1)
        found: Vectors = mean.cpu().numpy().astype(np.float32, copy=False)
        return found

    def _states(self, ids: Any) -> Any:
        """Return the last hidden states, [texts, width, hidden size]. Causal: no token sees what is padded."""
        model = self._loaded.model
        if (body := model.get_decoder()) is not model:
            return body(input_ids=ids, use_cache=False).last_hidden_state
        return model(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states[-1]
