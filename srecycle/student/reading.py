"""How a pair (x, y) is read: the four sequences whose targets' likelihoods the method compares.

    y after x      L(y|x)      the forward prompt, then y
    y alone        L(y)
    x after y'     L(x|y')     the prompt of a request to guess the instruction of y, then x
    x alone        L(x)

`read_by_id` joins token ids: a target has the same ids in both of its sequences (design of this package).
`read_as_released` follows the authors' released computation, so that their published statistics can be matched: texts
are joined before they are tokenised, cut on the right, and a target begins where as many tokens have passed as the text
before its last occurrence has by itself. A target's ids may then differ between its two sequences.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from srecycle.answers import answer_span
from srecycle.progress import say
from srecycle.rows import Turn
from srecycle.scorer import Scorer
from srecycle.student.encoding import Encoded, anchor_ids, encode_both, token_ids, token_spans
from srecycle.student.model import Loaded
from srecycle.student.template import UNRENDERABLE, UnrenderableError, Wording, end_ids

Line = Mapping[str, Any]
"""A usable version: instruction, input, response, history."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The four sequences of a pair. `answer` says which of the target tokens of y after x cover y's final answer."""

    y_given_x: Encoded
    y: Encoded
    x_given_y: Encoded
    x: Encoded
    answer: tuple[int, int] | None = None

    @property
    def sequences(self) -> tuple[Encoded, Encoded, Encoded, Encoded]:
        """All four, in the order of the fields."""
        return self.y_given_x, self.y, self.x_given_y, self.x

    @property
    def reason(self) -> str | None:
        """Why it can't be scored: nothing to predict, or no room for a context beside its target."""
        if any(one.target_tokens == 0 for one in self.sequences):
            return "too_short"
        return "too_long" if self.y_given_x.context_gone or self.x_given_y.context_gone else None


@dataclass(frozen=True, kw_only=True)
class _Texts:
    """The texts of a pair: two prompts and two targets. `answer` is where in `response` its final answer stands."""

    forward: str
    backward: str
    response: str
    instruction: str
    answer: tuple[int, int] | None = None


def read(loaded: Loaded, wording: Wording, scorer: Scorer, lines: Sequence[Line]) -> list[Reading | str]:
    """Read pairs as the scorer says. A pair that can't be read comes back as its reason."""
    texts = [_texts(wording, scorer, line) for line in lines]
    if UNRENDERABLE in texts:
        say(f"  warning: {texts.count(UNRENDERABLE)} versions can't be written in this template, and have no scores")
    good = [one for one in texts if isinstance(one, _Texts)]
    if scorer.answer_pattern is not None and not loaded.tokenizer.is_fast:
        say("  warning: this tokenizer can't tell which tokens an answer has: there is no likelihood of answers")
    if scorer.compat == "reference":
        targets = [line["instruction"] for line, one in zip(lines, texts, strict=True) if isinstance(one, _Texts)]
        readings: Iterator[Reading | str] = iter(read_as_released(loaded, good, targets))
    else:
        readings = iter(read_by_id(loaded, good, end_ids(wording, loaded.tokenizer) if scorer.score_eos else ()))
    return [one if isinstance(one, str) else next(readings) for one in texts]


def read_by_id(loaded: Loaded, texts: Sequence[_Texts], end: tuple[int, ...]) -> list[Reading]:
    """Tokenise prompts and targets apart, and join their ids; `end` is what a target ends in, where that is scored."""
    ids = (
        token_ids(loaded.tokenizer, [one.forward for one in texts]),
        token_ids(loaded.tokenizer, [one.backward for one in texts]),
        token_ids(loaded.tokenizer, [one.response for one in texts], continuing=True, plain=True),
        token_ids(loaded.tokenizer, [one.instruction for one in texts], continuing=True, plain=True),
    )
    anchor = anchor_ids(loaded.tokenizer)
    readings = []
    for one, forward, backward, response, instruction in zip(texts, *ids, strict=True):
        y_given_x, y = encode_both(anchor, forward, (*response, *end), loaded.max_length)
        x_given_y, x = encode_both(anchor, backward, (*instruction, *end), loaded.max_length)
        answer = None
        if one.answer is not None:
            spans = token_spans(loaded.tokenizer, one.response, response, plain=True)
            # Without an anchor the first token has no likelihood.
            answer = _covering(spans, one.answer, 0 if anchor else 1, y_given_x.target_tokens)
        readings.append(Reading(y_given_x=y_given_x, y=y, x_given_y=x_given_y, x=x, answer=answer))
    return readings


def read_as_released(loaded: Loaded, texts: Sequence[_Texts], instructions: Sequence[str]) -> list[Reading | str]:
    """Tokenise joined texts with the tokenizer's special tokens, cut on the right; see the module's docstring.

    `instructions` are x without input: what the released code searches for in the reversed text, though x with its
    input is what follows. A cut can leave a sequence with no target at all, which then is `too_short`; a template that
    rewrites x leaves nothing to be found.
    """
    readings: list[Reading | str] = []
    for one, instruction in zip(texts, instructions, strict=True):
        if instruction not in one.instruction:
            readings.append(UNRENDERABLE)
            continue
        forward, backward = (len(_whole(loaded, prompt)) for prompt in (one.forward, one.backward))
        y_given_x = _after(loaded, one.forward + one.response, one.response)
        readings.append(
            Reading(
                y_given_x=y_given_x,
                answer=_answer_as_released(loaded, one, y_given_x),
                y=_alone(loaded, one.response, loaded.max_length - forward + 1),
                x_given_y=_after(loaded, one.backward + one.instruction, instruction),
                x=_alone(loaded, one.instruction, loaded.max_length - backward + 1),
            )
        )
    return readings


def _after(loaded: Loaded, text: str, target: str) -> Encoded:
    """Cut a joined text to `max_length` tokens; its target begins after the tokens of what precedes it, alone."""
    ids = _whole(loaded, text)
    start = min(len(_whole(loaded, text[: text.rfind(target)])), loaded.max_length, len(ids))
    return Encoded(ids=ids[: loaded.max_length], target_start=start, truncated=len(ids) > loaded.max_length)


def _answer_as_released(loaded: Loaded, texts: _Texts, sequence: Encoded) -> tuple[int, int] | None:
    if texts.answer is None:
        return None
    text, before = texts.forward + texts.response, len(texts.forward)
    spans = token_spans(loaded.tokenizer, text, _whole(loaded, text), special=True)
    begin, end = texts.answer
    first = len(sequence.ids) - sequence.target_tokens
    return _covering(spans, (before + begin, before + end), first, sequence.target_tokens)


def _covering(
    spans: Sequence[tuple[int, int]] | None, answer: tuple[int, int], first: int, count: int
) -> tuple[int, int] | None:
    """Return which of the `count` tokens from `first` on cover the answer, [begin, end); None where its end is cut.

    Tokens of it that stand before `first` have no likelihood as part of this target.
    """
    covering = [place for place, (begin, end) in enumerate(spans or ()) if begin < answer[1] and end > answer[0]]
    if not covering or covering[-1] >= first + count or covering[-1] < first:
        return None
    return max(covering[0] - first, 0), covering[-1] + 1 - first


def _alone(loaded: Loaded, text: str, limit: int) -> Encoded:
    ids = _whole(loaded, text)
    return Encoded(ids=ids[: max(limit, 1)], target_start=0, truncated=len(ids) > limit)


def _whole(loaded: Loaded, text: str) -> tuple[int, ...]:
    """Tokenise with whatever the tokenizer adds to a text: BOS for Llama, nothing for GPT-2."""
    return tuple(loaded.tokenizer(text, verbose=False)["input_ids"])


def _answer(scorer: Scorer, response: str, completion: str) -> tuple[int, int] | None:
    """Return where in a completion the response's final answer stands: templates may write before it, and trim it."""
    bare = response.strip()
    span = None if scorer.answer_pattern is None else answer_span(scorer.answer_pattern, bare)
    place = completion.rfind(bare)
    return None if span is None or place < 0 else (place + span[0], place + span[1])


def _texts(wording: Wording, scorer: Scorer, line: Line) -> _Texts | str:
    """Write a pair's texts, or say why that can't be done."""
    if not line["response"].strip():
        return "empty_response"
    if not line["instruction"].strip():
        return "empty_instruction"
    history = tuple(Turn(**turn) for turn in line["history"])
    whole = wording.whole_instruction(line["instruction"], line["input"])
    try:
        response = wording.completion(line["response"])
        return _Texts(
            forward=wording.prompt(line["instruction"], line["input"], history),
            backward=wording.prompt(scorer.request(line["response"])),
            response=response,
            instruction=wording.completion(whole),
            answer=_answer(scorer, line["response"], response),
        )
    except UnrenderableError:
        return UNRENDERABLE
