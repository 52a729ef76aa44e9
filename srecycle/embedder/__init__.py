"""Embeddings of instructions and responses, for selection by coherence and coverage. `embedder=NAME` picks how."""

from srecycle.embedder.base import Embedder as Embedder
from srecycle.embedder.stage import Embeddings as Embeddings
