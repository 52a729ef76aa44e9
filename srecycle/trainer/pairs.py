"""Preference pairs as a trainer is given them: token ids, built as for scoring and supervised training.

A pair is one prompt with two completions, each with its end and one EOS. Where a context has to be cut, it is cut for
the longer completion and stands the same before both: what is compared is nothing but the completions.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from srecycle.errors import UserError
from srecycle.progress import say
from srecycle.rows import OK, Turn
from srecycle.stage import Metrics
from srecycle.student.encoding import Encoded, anchor_ids, encode, token_ids
from srecycle.student.model import Loaded
from srecycle.student.template import UNRENDERABLE, Template, UnrenderableError, end_ids

Which = Literal["decided", "kept"]
"""All pairs that the student decided, or only those of rows that the keep filters let stand."""

NOT_KEPT = "not_kept"
_SIDES = ("chosen", "rejected")


@dataclass(frozen=True, kw_only=True)
class PairSet:
    """Encoded pairs in order, why others are missing, by row id, and what was counted before."""

    ids: Sequence[str]
    chosen: Sequence[Encoded]
    rejected: Sequence[Encoded]
    refused: Mapping[str, str]
    counts: Metrics = field(default_factory=dict)

    @property
    def joined(self) -> list[Encoded]:
        """Each pair as one sequence, of which both completions are the target: what a step reads of it."""
        return [
            Encoded(ids=(*one.ids, *two.ids), target_start=one.target_start + two.target_start)
            for one, two in zip(self.chosen, self.rejected, strict=True)
        ]

    @property
    def metrics(self) -> Metrics:
        """How many pairs there are, by what they were ordered, and why others are missing."""
        return {
            "pairs": len(self.ids),
            **self.counts,
            **{f"refused_pairs/{why}": count for why, count in sorted(Counter(self.refused.values()).items())},
            "pairs_context_truncated": sum(one.context_lost > 0 for one in self.chosen),
        }


def found_pairs(table: pa.Table, which: Which) -> tuple[list[dict[str, Any]], Metrics]:
    """Return the lines of `preferences` to train on, and counts of them and of all others.

    Raises UserError where there are none.
    """
    lines = table.to_pylist()
    reasons = {
        line["id"]: NOT_KEPT if line["status"] == OK and which == "kept" and not line["kept"] else line["status"]
        for line in lines
    }
    taken = [line for line in lines if reasons[line["id"]] == OK]
    missing = Counter(reason for reason in reasons.values() if reason != OK)
    if not taken:
        why = ", ".join(f"{count} {reason}" for reason, count in missing.most_common(4))
        raise UserError(
            f"nothing to train on: none of {len(lines)} rows has a pair of responses ({why}); choose a response "
            "selector that compares" + (", or trainer.pairs=decided" if missing[NOT_KEPT] else "")
        )
    ordered = Counter(line["score"] for line in taken)
    return taken, {
        **{f"pairs_by/{score}": count for score, count in sorted(ordered.items())},
        **{f"no_pair/{reason}": count for reason, count in sorted(missing.items())},
    }


def pair_set(loaded: Loaded, template: Template, lines: Sequence[Mapping[str, Any]], counts: Metrics) -> PairSet:
    """Encode pairs for training.

    Pairs are refused, with a reason, where a response is empty or the template can't write it, where no token stands
    before the responses, where they are so long that none of the prompt fits beside the longer one, and where both are
    the same to the student. Raises UserError where all are.
    """
    tokenizer, wording = loaded.tokenizer, template.bound(loaded.tokenizer)
    refused, rendered = dict[str, str](), dict[str, tuple[str, str, str]]()
    for line in lines:
        history = tuple(Turn(**turn) for turn in line["history"])
        if not all(line[side].strip() for side in _SIDES):
            refused[line["id"]] = "empty_response"
            continue
        try:
            prompt = wording.prompt(line["instruction"], line["input"], history)
            rendered[line["id"]] = (prompt, wording.completion(line["chosen"]), wording.completion(line["rejected"]))
        except UnrenderableError as error:
            if UNRENDERABLE not in refused.values():
                say(f"  warning: the pair of row {line['id']} is left out, and others like it: {error}")
            refused[line["id"]] = UNRENDERABLE
    contexts = token_ids(tokenizer, [texts[0] for texts in rendered.values()])
    chosen, rejected = (
        token_ids(tokenizer, [texts[side] for texts in rendered.values()], continuing=True, plain=True)
        for side in (1, 2)
    )
    anchor, end = anchor_ids(tokenizer), end_ids(wording, tokenizer)
    encoded = dict[str, tuple[Encoded, Encoded]]()
    for identifier, context, better, worse in zip(rendered, contexts, chosen, rejected, strict=True):
        if reason := _unfit(anchor, context, better, worse):
            refused[identifier] = reason
            continue
        pair = encode_pair(anchor, context, ((*better, *end), (*worse, *end)), loaded.max_length)
        if pair is None:
            refused[identifier] = "too_long"
        else:
            encoded[identifier] = pair
    if not encoded:
        why = ", ".join(f"{count} {reason}" for reason, count in Counter(refused.values()).items())
        raise UserError(f"nothing to train on: all {len(lines)} pairs were refused ({why})")
    return PairSet(
        ids=list(encoded),
        chosen=[one for one, _ in encoded.values()],
        rejected=[two for _, two in encoded.values()],
        refused=refused,
        counts=counts,
    )


def encode_pair(
    anchor: tuple[int, ...], context: tuple[int, ...], targets: tuple[tuple[int, ...], tuple[int, ...]], max_length: int
) -> tuple[Encoded, Encoded] | None:
    """Join two targets with one context, cut alike before both; None where they are too long for it."""
    longer = encode(anchor, context, max(targets, key=len), max_length)
    if longer.truncated or longer.context_gone:
        return None
    before = longer.ids[: longer.target_start]
    one, two = (
        Encoded(ids=(*before, *target), target_start=len(before), context_lost=longer.context_lost)
        for target in targets
    )
    return one, two


def _unfit(anchor: Sequence[int], context: Sequence[int], better: Sequence[int], worse: Sequence[int]) -> str:
    if not better or not worse:
        return "empty_response"
    if not anchor and not context:
        return "no_prompt"
    return "same_response" if tuple(better) == tuple(worse) else ""
