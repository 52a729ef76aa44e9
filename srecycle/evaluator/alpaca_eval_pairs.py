"""AlpacaEval's pairs: an instruction, the reference's output and the measured one, until one is preferred. Pure."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from srecycle.evaluator.prompts import Prompt
from srecycle.judge.annotations import DRAW, NOT_ANNOTATED, Annotation
from srecycle.judge.base import said
from srecycle.judge.decorations import DECORATIONS, SWAPPED, Probe, Side
from srecycle.judge.preference import read_choice
from srecycle.rows import OK
from srecycle.stage import Metrics
from srecycle.teacher import Reply

_JUDGE: Final = "srecycle"


@dataclass(frozen=True, kw_only=True)
class Output:
    """Somebody's output for an instruction; empty unless `status` is "ok"."""

    text: str
    status: str = OK


@dataclass(frozen=True, kw_only=True)
class Compared:
    """An instruction with the reference's output and the measured one, and what is known of the preference.

    `answered` says whether there is a measured output at all, and `turned` whether the outputs are shown in the other
    order than the instruction's coin says.
    """

    prompt: Prompt
    annotation: Annotation
    answered: bool
    turned: bool = False
    reply: Reply | None = None

    @property
    def about(self) -> Prompt:
        """Return the instruction."""
        return self.prompt

    @property
    def asked(self) -> bool:
        """Whether a judge is to be asked: there are two outputs, and they differ."""
        one = self.annotation
        return one.status == OK and one.preference is None

    @property
    def verdict(self) -> float | None:
        """What a judge preferred; None where it was asked about nothing, or can't be read."""
        return self.annotation.preference if self.reply else None

    @property
    def reason(self) -> str:
        """Return "ok", or why there is no preference."""
        return self.annotation.status

    @property
    def own_first(self) -> bool:
        """Whether the measured output is shown first: a coin that the instruction tosses."""
        return (hashlib.sha256(self.prompt.id.encode()).digest()[0] % 2 == 0) != self.turned

    @property
    def shown(self) -> tuple[str, str]:
        """The outputs in the order in which they are shown."""
        one = self.annotation
        return (one.output_2, one.output_1) if self.own_first else (one.output_1, one.output_2)

    def favoured(self, probe: Probe) -> Side | None:
        """Return whose output was shown second, and will be first; else whose lost, None of a draw."""
        if probe == SWAPPED:
            return "other" if self.own_first else "own"
        preference = self.annotation.preference
        return None if preference in (None, DRAW) else "other" if preference > DRAW else "own"

    def dressed(self, probe: Probe, side: Side) -> "Compared":
        """Return the comparison with that side's output decorated, or the order turned; not judged yet."""
        bare = replace(self.annotation, preference=None, status=OK)
        if probe == SWAPPED:
            return replace(self, annotation=bare, turned=not self.turned, reply=None)
        decorate = DECORATIONS[probe]
        own, other = (bare.output_2, bare.output_1)
        changed = replace(bare, output_2=decorate(own)) if side == "own" else replace(bare, output_1=decorate(other))
        return replace(self, annotation=changed, reply=None)


def pair(prompt: Prompt, output: Output | None, reference: str | None, name: str, generator: str) -> Compared:
    """Return the pair, a draw where both outputs are the same."""
    status = "no_output" if output is None else output.status
    answered = status == OK
    status = "no_reference" if answered and reference is None else status
    text = output.text if output else ""
    return Compared(
        prompt=prompt,
        answered=answered,
        annotation=Annotation(
            instruction=prompt.question,
            output_1=reference or "",
            output_2=text,
            generator_1=name,
            generator_2=generator,
            annotator=_JUDGE,
            preference=DRAW if status == OK and text == reference else None,
            status=status,
            category=prompt.category,
        ),
    )


def annotated(
    prompt: Prompt, output: Output | None, recorded: Mapping[str, Sequence[Annotation]], generator: str
) -> Compared:
    """Return what is recorded about just this output; else the reason why nothing is."""
    like = next(iter(recorded.values()))[0]
    text = output.text if output else ""
    bare = pair(prompt, output, None, like.generator_1, like.generator_2 or generator)
    some = recorded.get(prompt.question.strip(), ()) if bare.answered else ()
    same = [one for one in some if one.output_2.strip() == text.strip()]
    if same:
        number = min(int(prompt.id.partition("-")[2] or 1), len(same))  # exact duplicates have their own, in order
        found = replace(same[number - 1], category=prompt.category, generator_2=bare.annotation.generator_2)
        return replace(bare, annotation=found)
    status = bare.annotation.status if not bare.answered else "other_output" if some else NOT_ANNOTATED
    return replace(bare, annotation=replace(bare.annotation, status=status, annotator=like.annotator))


def chosen(one: Compared, reply: Reply) -> Compared:
    """Return the pair with what the judge says about it."""
    choice = read_choice(reply.text, reply.finish_reason) if reply.status == OK else None
    preferred = choice.preferred if choice else None
    # AlpacaEval's 2 is the measured output, wherever it was shown.
    preference = None if preferred is None else 3 - preferred if one.own_first else preferred
    status = choice.status if choice else reply.status
    return replace(one, annotation=replace(one.annotation, preference=preference, status=status), reply=reply)


def by_place(compared: Sequence[Compared]) -> Metrics:
    """Return how a judge who was asked preferred the measured outputs that it saw first, and those it saw second.

    `shown_first/judged`, `shown_first/win_rate` (percent) and the same of `shown_second`; a judge who doesn't mind the
    order has about the same rate in both. Nothing of a place without a preference.
    """
    asked = [one for one in compared if one.reply and one.annotation.preference is not None]
    metrics: Metrics = {}
    for name, first in (("shown_first", True), ("shown_second", False)):
        if some := [one.annotation.preference or 0.0 for one in asked if one.own_first == first]:
            metrics |= {f"{name}/judged": len(some), f"{name}/win_rate": 100 * (sum(some) / len(some) - 1)}
    return metrics


def line(one: Compared) -> dict[str, Any]:
    """Return its line of `judgments.parquet`: a recording that judge=replay reads."""
    first, second = one.shown
    return {
        "id": one.prompt.id,
        "position": one.prompt.position,
        "category": one.prompt.category,
        "preference": one.annotation.preference,
        "status": one.annotation.status,
        "own_first": one.own_first,
        "question": one.annotation.instruction,
        "answer_1": first,
        "answer_2": second,
        **said(one.reply),
    }
