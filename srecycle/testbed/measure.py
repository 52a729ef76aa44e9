"""A student's accuracy on the held-out splits by greedy decoding, without lm-eval: for building bases and quick looks.

`opened` puts the opening of a worked response ("we begin with 3 6 4 .") after the prompt: the skill that a base has
once it is made to answer, against the habit of answering, which it mostly lacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from transformers import PreTrainedTokenizerFast

from srecycle.testbed.format import forward_prompt
from srecycle.testbed.heldout import MAX_NEW_TOKENS, SPLITS, held_out
from srecycle.testbed.wording import OPENINGS, final_answer, parse_instruction

BATCH_SIZE: Final = 150


def accuracy(
    model: Any, tokenizer: PreTrainedTokenizerFast, *, count: int, seed: int, opened: bool = False
) -> dict[str, float]:
    """Exact match of the final answer per split."""
    found = {}
    for split in SPLITS:
        items = held_out(split, count, seed)
        openings = [_opening(item["question"]) if opened else "" for item in items]
        prompts = [
            f"{forward_prompt(item['question'])} {opening}".strip()
            for item, opening in zip(items, openings, strict=True)
        ]
        # Without the prompt: an opening holds the list, which must not be read as the reply's own answer.
        replies = greedy_replies(model, tokenizer, prompts)
        right = [final_answer(reply) == item["answer"] for reply, item in zip(replies, items, strict=True)]
        found[split] = sum(right) / count
    return found


def greedy_replies(model: Any, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str]) -> list[str]:
    """The greedy continuation of each prompt, the anchor put in front, up to the end of sequence."""
    replies: list[str] = []
    for start in range(0, len(prompts), BATCH_SIZE):
        texts = [f"{tokenizer.bos_token} {prompt}" for prompt in prompts[start : start + BATCH_SIZE]]
        batch = tokenizer(texts, padding=True, padding_side="left", return_tensors="pt", return_token_type_ids=False)
        with torch.inference_mode():
            ids = model.generate(**batch, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        replies += tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return replies


def _opening(question: str) -> str:
    task = parse_instruction(question)
    assert task is not None, question
    return OPENINGS[1].format(items=" ".join(task.items))
