"""The stage that writes scores down: every version with its texts, likelihoods and scores, for people and their tools.

In: versions and their likelihoods. Out: `scores.parquet`, one line a version, in version order: the row's id and
position, the version, `status` ("ok", or why it has no scores), its texts, token counts, and as columns what
`LIKELIHOODS` and `SCORES` name (null where there is none). Selection doesn't read it.
"""

import pyarrow as pa
import pyarrow.compute as pc

from srecycle.config import component
from srecycle.data import Source
from srecycle.reflection import Reflect
from srecycle.reflection.versions import Versions
from srecycle.rows import OK, counted
from srecycle.scorer import LIKELIHOODS, scores
from srecycle.stage import Metrics, Stage, Work
from srecycle.store import ByRow
from srecycle.student import Likelihoods

_VERSION = ("id", "version", "position", "instruction", "input", "response", "history")
_COUNTS = ("tokens_y", "tokens_x", "context_truncated", "target_truncated")


@component
class Score(Stage):
    """Computes every score of every version."""

    rows: Source
    reflections: tuple[Reflect, ...] = ()
    likelihoods: tuple[Likelihoods, ...]

    @property
    def name(self) -> str:
        """The stage's name."""
        return "scores"

    def run(self, work: Work) -> Metrics:
        """Join versions and likelihoods by (row id, version), and compute, so many rows after the other."""
        versions = Versions(work, self.rows, self.reflections)
        scored = [
            ByRow(
                work.read(stage).file("likelihoods"), versions.ids, ("id", "version", "status", *_COUNTS, *LIKELIHOODS)
            )
            for stage in self.likelihoods
        ]
        parts = (
            _scored(table, pa.concat_tables(one.read(rows.start, rows.stop) for one in scored))
            for rows, table in versions.parts()
        )
        work.write("scores", parts)
        counts = counted(work.written("scores", ["status"])["status"])
        return {
            "scored": counts.get(OK, 0),
            **{f"status/{reason}": count for reason, count in counts.items() if reason != OK},
        }


def _scored(versions: pa.Table, found: pa.Table) -> pa.Table:
    likelihoods = found.take(pc.index_in(_names(versions), value_set=_names(found)))
    values = {name: likelihoods[name].to_numpy(zero_copy_only=False) for name in LIKELIHOODS}
    columns = {name: versions[name] for name in _VERSION}
    columns |= {"status": pc.coalesce(likelihoods["status"], versions["status"])}
    columns |= {name: likelihoods[name] for name in (*_COUNTS, *LIKELIHOODS)}
    columns |= {name: pa.array(column, from_pandas=True) for name, column in scores(values).items()}
    return pa.table(columns).combine_chunks()


def _names(table: pa.Table) -> pa.Array:
    """Return one name a line, `id version`, to join by."""
    return pc.binary_join_element_wise(table["id"], table["version"], " ").combine_chunks()
