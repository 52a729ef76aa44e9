"""The statistics of a data set that the paper's table 6 tells: lengths, perplexities, coherence and IFD by the student.

In: a run of the selective arm, which has every version scored. Out: means over rows, of the originals, of what both
reflections made of them, and of what the student took and the filters kept. A value that isn't there, or not finite,
doesn't count: perplexities are means of exp(loss), as single rows have them.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from srecycle.report.runs import Run
from srecycle.report.tables import Values, finite, floats, table

_PERPLEXITIES: Final = {"ppl_x": "loss_x", "ppl_y": "loss_y", "ppl_y_given_x": "loss_y_given_x"}
_PLAIN: Final = ("tokens_x", "tokens_y", "ifd")
_KEY: Final = ("id", "version")


def statistics(run: Run, version: str) -> Mapping[str, float]:
    """Return the means over the rows of a version (`original`, `both`), or of those `kept`; nothing where unknown.

    `tokens_x` and `tokens_y` are tokens of instruction and response, `ppl_*` perplexities, `ifd` ratios, and
    `coherence` a cosine, where the run has embeddings.
    """
    scores = table(run, "scores", "scores", (*_KEY, *_PLAIN, *_PERPLEXITIES.values()))
    if scores is None or (scores := _of(run, scores, version)) is None:
        return {}
    values = {name: floats(scores[name]) for name in _PLAIN}
    values |= {name: np.exp(floats(scores[loss])) for name, loss in _PERPLEXITIES.items()}
    embeddings = table(run, "embeddings", "embeddings", (*_KEY, "coherence"))
    if embeddings is not None and (embeddings := _of(run, embeddings, version)) is not None:
        values["coherence"] = floats(embeddings["coherence"])
    return {name: mean for name, column in values.items() if (mean := _mean(column)) is not None}


def _of(run: Run, found: pa.Table, version: str) -> pa.Table | None:
    """Return the lines of a version, or of the kept rows in the version that was taken."""
    if version != "kept":
        return found.filter(pc.equal(found["version"], version))
    training = table(run, "assemble", "training", (*_KEY, "kept"))
    if training is None:
        return None
    return found.filter(pc.is_in(_names(found), value_set=_names(training.filter(training["kept"]))))


def _names(found: pa.Table) -> pa.Array:
    return pc.binary_join_element_wise(found["id"], found["version"], " ").combine_chunks()


def _mean(column: Values) -> float | None:
    known = finite(column)
    return float(known.mean()) if len(known) else None
