"""The micro-world's word-level tokenizer, built from the grammars themselves: every word of any writer has an id.

Nothing is added at encoding: the anchor (beginning of sequence) is put in front at id level by whoever scores or
trains. Decoding gives the words back joined by single spaces.
"""

from __future__ import annotations

from typing import Final

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from srecycle.testbed.curriculum import ASIDES, STATEMENTS
from srecycle.testbed.format import REVERSED_REQUEST, TEMPLATE_SYSTEM_FREE_PROMPT
from srecycle.testbed.judgement import REFUSALS
from srecycle.testbed.originals import AMBIGUOUS
from srecycle.testbed.script import OFF_TOPIC_OPENINGS, OFF_TOPIC_REMARKS
from srecycle.testbed.wording import CLOSINGS, CONNECTORS, FRAMES, MERGE, NOISE, OPENINGS, STEPS
from srecycle.testbed.world import DIGITS, NOUNS, OPERATIONS

SPECIAL_TOKENS: Final = ("<pad>", "<s>", "</s>", "<unk>")
MAX_LENGTH: Final = 256


def words() -> tuple[str, ...]:
    """Every word of the micro-world once, in order of first use."""
    phrases = [phrase for operation in OPERATIONS.values() for phrase in operation.phrases]
    sources = (
        *(DIGITS, NOUNS, phrases, FRAMES, CONNECTORS, OPENINGS, STEPS, (MERGE,), CLOSINGS, NOISE, REFUSALS, AMBIGUOUS),
        *((TEMPLATE_SYSTEM_FREE_PROMPT, REVERSED_REQUEST), OFF_TOPIC_OPENINGS, OFF_TOPIC_REMARKS, ASIDES, STATEMENTS),
    )
    found = (word for texts in sources for text in texts for word in text.split() if not word.startswith("{"))
    return tuple(dict.fromkeys(found))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer; the same on every call."""
    ids = {word: number for number, word in enumerate((*SPECIAL_TOKENS, *words()))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )
