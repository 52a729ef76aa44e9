"""The records that travel between stages, and the schemas of the tables that hold them.

A `Row` is one sample of the source. Reflection makes further *versions* of it; every table below `source` is keyed by
(row id, version) and joined by that key, never by position. A row's id is a hash of its content, so the same sample
keeps its id in another file, order or subset.

Versions of a row (x instruction, y response):

| version       | pair            |
|---------------|-----------------|
| `original`    | (x0, y0)        |
| `instruction` | (x_ins, y_ins)  |
| `response`    | (x0, y_res)     |
| `both`        | (x_ins, y_res') |

These are the *kinds* of versions. Where the teacher is sampled more than once, further samples of a kind are numbered:
`response`, `response-2`, `response-3`.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import pyarrow as pa
import pyarrow.compute as pc

Phase = Literal["instruction", "response"]
Kind = Literal["original", "instruction", "response", "both"]
Version = str
"""A kind, and beyond its first sample a number. Made by `version_of`, read by `kind_of` and `sample_of`."""

PHASES: tuple[Phase, ...] = ("instruction", "response")
KINDS: tuple[Kind, ...] = ("original", "instruction", "response", "both")

OK = "ok"
"""The status of a usable candidate and the reason of a usable likelihood; every other value says what went wrong."""

CHALLENGER: Mapping[tuple[Phase, Kind], Kind] = {
    ("instruction", "original"): "instruction",
    ("response", "original"): "response",
    ("response", "instruction"): "both",
}
"""Which kind of version a phase's reflection makes out of which."""


def version_of(kind: Kind, sample: int = 0) -> Version:
    """Return the name of a kind's sample, counted from 0."""
    return f"{kind}-{sample + 1}" if sample else kind


def kind_of(version: Version) -> Kind:
    """Return how a version was made."""
    return cast(Kind, version.partition("-")[0])


def sample_of(version: Version) -> int:
    """Return which sample of its kind a version is, counted from 0."""
    return int(version.partition("-")[2] or 1) - 1


def version_order(version: Version) -> tuple[int, int]:
    """Return what versions are sorted by: kinds in the order of the method, and their samples."""
    return KINDS.index(kind_of(version)), sample_of(version)


def versions_of(samples: int) -> tuple[Version, ...]:
    """Return all versions that a row can have with so many samples a reflection, in order."""
    return ("original", *(version_of(kind, sample) for kind in KINDS[1:] for sample in range(samples)))


def challenger(phase: Phase, base: Version, sample: int = 0) -> Version:
    """Return the version that a phase's reflection on `base` makes."""
    return version_of(CHALLENGER[phase, kind_of(base)], sample)


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One earlier message of a conversation. `role` is `system`, `user` or `assistant`."""

    role: str
    content: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """One sample of the source: what the student is asked and what it is trained to answer.

    `position` is the sample's 0-based place in its source, `history` the turns before the chosen one, and `label` the
    fault that the source says this sample has (empty where the source doesn't tell; the micro-world does). `reference`
    is an answer that the source knows to be right, and `source` the name of the set that a mixed source had the sample
    from, where it has one; neither is part of the sample, nor of its id.
    """

    id: str
    position: int
    instruction: str
    input: str
    response: str
    history: tuple[Turn, ...] = ()
    label: str = ""
    reference: str = ""
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class CriterionScore:
    """What a teacher gave one criterion of its critique, from 1 (poor) to 10 (excellent)."""

    name: str
    score: float


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What became of one reflection: a new version of a row, or the reason why there is none.

    `status` is "ok" or a reason; texts are empty unless it is "ok". `base` is the version that the teacher was shown.
    `reply` is the teacher's last reply, as it came, and `teacher` who wrote it, where several share the run.
    `earlier_replies` are those that could not be used, after which it was asked again. `criteria` holds the scores
    that it gave; one that is missing or malformed is absent, and never a number.
    """

    id: str
    version: Version
    base: Version
    status: str
    instruction: str
    input: str
    response: str
    critique: str
    reply: str
    finish_reason: str
    teacher: str = ""
    criteria: tuple[CriterionScore, ...] = ()
    earlier_replies: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """The student's mean negative log-likelihoods (nats per token) of one version, and how many tokens each covers.

    `loss_y_given_x` is L(y|x), `loss_y` L(y), `loss_x_given_y` L(x|y') and `loss_x` L(x) (design: the paper, sections
    3.1 and 3.2). All four are None unless `status` is "ok"; a failure is a reason and never a number.
    `shift_y` is the mean of L(y_t|x) - L(y_t) over those tokens of y that x moves most, `rank_y_given_x` the mean rank
    of y's tokens after x (1: the likeliest; ranks are clipped). `loss_answer` is L(y|x) over those tokens
    alone that cover y's final answer (nats per token), None where no whole answer was found.

    `context_truncated` is true where a context lost its far side, `target_truncated` where a target, too long by
    itself, lost its end (in both readings alike). Where no context fits beside its target the status is "too_long": the
    ratio of a likelihood to itself is 1, and would win as difficult.

    The token columns hold each target token's text and its losses (nats), where they were asked for.
    """

    id: str
    version: Version
    status: str
    loss_y_given_x: float | None
    loss_y: float | None
    loss_x_given_y: float | None
    loss_x: float | None
    tokens_y: int
    tokens_x: int
    context_truncated: bool
    target_truncated: bool = False
    shift_y: float | None = None
    rank_y_given_x: float | None = None
    loss_answer: float | None = None
    y_tokens: tuple[str, ...] | None = None
    y_given_x_token_losses: tuple[float, ...] | None = None
    y_token_losses: tuple[float, ...] | None = None
    x_tokens: tuple[str, ...] | None = None
    x_given_y_token_losses: tuple[float, ...] | None = None
    x_token_losses: tuple[float, ...] | None = None


_TURN = pa.struct([pa.field("role", pa.string(), False), pa.field("content", pa.string(), False)])
_CRITERION = pa.struct([pa.field("name", pa.string(), False), pa.field("score", pa.float64(), False)])


_TEXTS = pa.list_(pa.string())
_FLOATS = pa.list_(pa.float32())
_NULLABLE = (pa.float64(), _TEXTS, _FLOATS)


def _schema(**fields: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, kind, nullable=kind in _NULLABLE) for name, kind in fields.items()])


ROW_SCHEMA = _schema(
    id=pa.string(),
    position=pa.int64(),
    instruction=pa.string(),
    input=pa.string(),
    response=pa.string(),
    history=pa.list_(_TURN),
    label=pa.string(),
    reference=pa.string(),
    source=pa.string(),
)
CANDIDATE_SCHEMA = _schema(
    id=pa.string(),
    version=pa.string(),
    base=pa.string(),
    status=pa.string(),
    instruction=pa.string(),
    input=pa.string(),
    response=pa.string(),
    critique=pa.string(),
    reply=pa.string(),
    finish_reason=pa.string(),
    teacher=pa.string(),
    criteria=pa.list_(_CRITERION),
    earlier_replies=pa.list_(pa.string()),
)
LIKELIHOOD_SCHEMA = _schema(
    id=pa.string(),
    version=pa.string(),
    status=pa.string(),
    loss_y_given_x=pa.float64(),
    loss_y=pa.float64(),
    loss_x_given_y=pa.float64(),
    loss_x=pa.float64(),
    tokens_y=pa.int64(),
    tokens_x=pa.int64(),
    context_truncated=pa.bool_(),
    target_truncated=pa.bool_(),
    shift_y=pa.float64(),
    rank_y_given_x=pa.float64(),
    loss_answer=pa.float64(),
    y_tokens=_TEXTS,
    y_given_x_token_losses=_FLOATS,
    y_token_losses=_FLOATS,
    x_tokens=_TEXTS,
    x_given_y_token_losses=_FLOATS,
    x_token_losses=_FLOATS,
)
DECISION_SCHEMA = _schema(
    id=pa.string(),
    incumbent=pa.string(),
    challenger=pa.string(),
    challengers=pa.int64(),
    chosen=pa.string(),
    incumbent_value=pa.float64(),
    challenger_value=pa.float64(),
    margin=pa.float64(),
    flip=pa.float64(),
    reason=pa.string(),
)
"""One line a row: which version stood, which challenged, which was taken, by which values of the selector's score.

Of several challengers the one preferred most is told of (the first, where there is no verdict on any); `challengers`
counts those with a verdict. `margin` is how far the challenger is ahead in the selector's preferred direction
(negative where it lost). `flip` is the smallest change of the selector's own threshold (its margin, its probability)
beyond which the row is decided the other way: null where no change of it would.
"""

TRAINING_SCHEMA = _schema(
    id=pa.string(),
    position=pa.int64(),
    version=pa.string(),
    instruction=pa.string(),
    input=pa.string(),
    response=pa.string(),
    history=pa.list_(_TURN),
    label=pa.string(),
    source=pa.string(),
    ifd=pa.float64(),
    r_ifd=pa.float64(),
    loss_y_given_x=pa.float64(),
    kept=pa.bool_(),
    reason=pa.string(),
    flip=pa.float64(),
    flip_of=pa.string(),
)
"""Every row with the version that the student took; `kept` says whether it is trained on and `reason` why not.

`flip` is the smallest change of one keep filter's limit, that of `flip_of`, beyond which the row is decided the other
way: null where no single one does it. `loss_y_given_x` is null where nothing was scored. Rows that were mixed in
(`assemble`) stand behind all others, and their ids begin with `original:` or `extra:`.
"""


_MIXED = ("original:", "extra:")


def mixed_id(kind: Literal["original", "extra"], identifier: str) -> str:
    """Return the id of a row of the source, or of other data, where it is mixed into a training table."""
    return f"{kind}:{identifier}"


def is_mixed(identifier: str) -> bool:
    """Say whether a training table's id is that of a row that was mixed in."""
    return identifier.startswith(_MIXED)


def own_rows(training: pa.Table) -> pa.Table:
    """Return a training table without the rows that were mixed in: nobody chose them."""
    mixed = [pc.starts_with(training["id"], prefix) for prefix in _MIXED]
    return training.filter(pc.invert(pc.or_(*mixed)))


def trained_ids(training: pa.Table) -> set[str]:
    """Return the ids of the source's rows that are trained on in any version, mixed in or not."""
    kept = training.filter(training["kept"])["id"].to_pylist()
    return {identifier.removeprefix("original:") for identifier in kept}


def to_table(records: Iterable[Any], schema: pa.Schema) -> pa.Table:
    """Write records (dataclass instances) as a table of the given schema."""
    return pa.Table.from_pylist([asdict(record) for record in records], schema=schema)


def to_rows(table: pa.Table) -> list[Row]:
    """Read a source table back as rows."""
    return [
        Row(**{**line, "history": tuple(Turn(**turn) for turn in line["history"])})
        for line in table.select(ROW_SCHEMA.names).to_pylist()
    ]


def counted(column: pa.ChunkedArray) -> dict[str, int]:
    """Return how often each value of a column of text occurs, by value."""
    found = column.value_counts()
    return dict(sorted(zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True)))


def content_id(instruction: str, input: str, response: str, history: Sequence[Turn] = ()) -> str:
    """Return the 16 hex digits that name this content. The unit separator keeps field borders unambiguous."""
    parts = [instruction, input, response, *(part for turn in history for part in (turn.role, turn.content))]
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def numbered(ids: Iterable[str]) -> Iterator[str]:
    """Make ids unique: exact duplicates get a running number in order of appearance (`ab`, `ab-2`, `ab-3`)."""
    seen: Counter[str] = Counter()
    for identifier in ids:
        seen[identifier] += 1
        yield identifier if seen[identifier] == 1 else f"{identifier}-{seen[identifier]}"
