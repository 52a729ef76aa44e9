"""Coverage: rows from all kinds of instructions, instead of the top of one score.

The instructions' embeddings are clustered (k-means on vectors of unit length), and rows are taken from the clusters in
turn: the first of each, the second of each, until there are enough. Every cluster is represented then, and a large one
no more than a small one for as long as that lasts.
"""

from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from srecycle.config import component
from srecycle.keep.base import EMBEDDING, Chosen, Column, Reasons
from srecycle.keep.preference import preferences, unscored
from srecycle.keep.share import ScoreName, Share, draws
from srecycle.selector.base import missing


@component
class Coverage(Share):
    """Keeps a share of the rows, spread over `clusters` of instructions.

    Within a cluster come first the rows with the highest (or lowest) values of the score `by`, or where that is null
    those that a draw out of a hash of their id and `seed` puts first. Of equal ones, those whose id comes first. Rows
    without embedding are refused, and so are those without the score.
    """

    clusters: Annotated[int, Field(ge=1)] = 100
    by: ScoreName | None = None
    highest: bool = True
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    @property
    def needed(self) -> tuple[str, ...]:
        """Embeddings, and the score."""
        return (EMBEDDING, self.by) if self.by else (EMBEDDING,)

    def reasons(self, chosen: Chosen) -> Reasons:
        """Refuse rows without embedding or score, and those of clusters from which enough were taken."""
        vectors, told = chosen.vectors[EMBEDDING], unscored(chosen, self.by)
        absent = np.isnan(vectors).any(axis=1)
        told[absent] = [f"embedding_{missing(status)}" for status in chosen.score_status[absent]]
        drawn = draws(chosen.id, f"keep.coverage|{self.seed}")
        preference = preferences(chosen, self.by, self.highest, drawn)
        standing = np.flatnonzero(told == "")
        # By id: k-means depends on the order, and so does who comes first between equals.
        standing = standing[np.argsort(chosen.id[standing].astype(str))]
        told[standing] = "already_covered"
        told[standing[self._taken(vectors[standing], preference[standing], self.count(chosen))]] = ""
        return told

    def _taken(self, vectors: npt.NDArray[np.float32], preference: Column, count: int) -> npt.NDArray[np.int64]:
        """Return the places of at most `count` rows, taken from the clusters in turn, the preferred ones first."""
        if len(vectors) <= count:
            return np.arange(len(vectors))
        cluster = self._clustered(vectors)
        ranked = np.lexsort((-preference, cluster))
        sizes = np.bincount(cluster)
        turn = np.empty(len(ranked), dtype=np.int64)
        turn[ranked] = np.arange(len(ranked)) - (np.cumsum(sizes) - sizes)[cluster[ranked]]
        taken: npt.NDArray[np.int64] = np.lexsort((-preference, turn))[:count]
        return taken

    def _clustered(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Return each row's cluster, from 0. One thread: the order in which several add up would tell in the result."""
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits

        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        number = min(self.clusters, len(np.unique(unit, axis=0)))
        with threadpool_limits(limits=1):
            found = KMeans(n_clusters=number, n_init=1, max_iter=100, random_state=self.seed).fit(unit)
        labels: npt.NDArray[np.int64] = found.labels_.astype(np.int64)
        return labels
