"""A loaded student as the harness's model: begun as in training, in batches that fit into memory.

What begins a sequence: `add_bos=auto` puts there what scoring and training put there (BOS, else EOS, else nothing; see
`srecycle.student.encoding`), `true` demands BOS, `false` adds nothing. A text that begins with that token already keeps
its one. The harness by itself leaves the question to the tokenizer, whose answer need not be the training's. Where a
prompt is too long it loses what follows its beginning, not the beginning itself.

A batch's size changes no figure but by the rounding of its padding, so it is free: it is halved where memory runs out.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

from srecycle.errors import UserError
from srecycle.progress import console, say
from srecycle.student.encoding import anchor_ids
from srecycle.student.model import Loaded

AddBos = Literal["auto", True, False]
BatchSize = int | Literal["auto"]
T = TypeVar("T")

_CPU_TOKENS, _GPU_TOKENS, _LARGEST_BATCH = 4096, 65536, 256
"""What an automatic batch holds at most: tokens with their padding, and sequences."""

_BYTES_A_LOGIT = 12
"""Logits, their copy in fp32, and the log-softmax of it."""


def first_tokens(loaded: Loaded, add_bos: AddBos) -> tuple[int, ...]:
    """Return the ids that begin every sequence. Raises UserError where BOS is asked for and there is none."""
    if add_bos is False:
        return ()
    if add_bos is True and loaded.tokenizer.bos_token_id is None:
        raise UserError("add_bos=true, but the student's tokenizer has no BOS token: use add_bos=auto, or false")
    return anchor_ids(loaded.tokenizer)


def harness_model(loaded: Loaded, batch_size: BatchSize, add_bos: AddBos) -> Any:
    """Wrap a loaded model for the harness. Raises UserError where `add_bos` can't be done.

    Its `begins` tells what begins a prompt, `largest` is the number of sequences of the largest batch that was run,
    `splits` how often memory ran out, and `truncated` how many sequences lost a part of their prompt.
    """
    import torch
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.utils import normalize_gen_kwargs

    quiet = not console.is_terminal
    first = first_tokens(loaded, add_bos)

    class Model(HFLM):  # type: ignore[misc]
        begins = {"add_bos": add_bos, "token": loaded.tokenizer.decode(first) if first else None}  # noqa: RUF012
        largest = splits = truncated = 0
        _plain = False

        def tok_encode(
            self, string: str, add_special_tokens: bool | None = None, left_truncate_len: int | None = None, **_: Any
        ) -> list[int]:
            if self._plain:
                return list(super().tok_encode(string, add_special_tokens, left_truncate_len))
            ids = list(self.tokenizer.encode(string, add_special_tokens=False))
            if add_special_tokens is None and first and tuple(ids[: len(first)]) != first:
                ids = [*first, *ids]
            return self._shortened(ids, left_truncate_len or len(ids))

        def tok_batch_encode(
            self, strings: Sequence[str], padding_side: str = "left", left_truncate_len: int | None = None, **_: Any
        ) -> tuple[Any, Any]:
            lines = [self.tok_encode(text, left_truncate_len=left_truncate_len) for text in strings]
            longest = max(map(len, lines))
            pad = self.tokenizer.pad_token_id or 0
            gaps = [longest - len(ids) for ids in lines]
            assert padding_side == "left", "a causal model generates at the right"
            ids = [[pad] * gap + line for gap, line in zip(gaps, lines, strict=True)]
            mask = [[0] * gap + [1] * len(line) for gap, line in zip(gaps, lines, strict=True)]
            return torch.tensor(ids), torch.tensor(mask)

        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
            return super().loglikelihood(requests, disable_tqdm=disable_tqdm or quiet)

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
            # The harness begins each window with BOS (or EOS) itself, and scores the tokens that it gets.
            self._plain = True
            try:
                self._choose(self.max_length)
                return super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm or quiet)
            finally:
                self._plain = False

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
            if not requests:
                return []
            prompts = max(len(self.tok_encode(one.args[0])) for one in requests)
            settings = [normalize_gen_kwargs(dict(one.args[1]), self.max_gen_toks) for one in requests]
            answers = max(int(one["max_gen_toks"]) for one in settings)
            if answers >= self.max_length:
                raise UserError(
                    f"answers of {answers} tokens leave no room for prompts in max_length={self.max_length}"
                )
            room = self.max_length - answers
            self.truncated += sum(len(self.tok_encode(one.args[0])) > room for one in requests)
            self._choose(min(prompts, room) + answers)
            generate = super().generate_until
            return self._halving(lambda: generate(requests, disable_tqdm=disable_tqdm or quiet))

        def _loglikelihood_tokens(
            self, requests: Any, disable_tqdm: bool = False, override_bs: int | None = None
        ) -> Any:
            if not requests:
                return []
            fitted = [(pair, self._fitted(context, target), target) for pair, context, target in requests]
            if not self._plain:
                self._choose(max(len(context) + len(target) for _, context, target in fitted))
            score = super()._loglikelihood_tokens
            quiet_ = disable_tqdm or quiet
            return self._halving(lambda: score(fitted, disable_tqdm=quiet_, override_bs=override_bs))

        def _fitted(self, context: list[int], target: list[int]) -> list[int]:
            """Shorten a context that doesn't fit before its target; the last token is predicted, never read."""
            if len(target) > self.max_length:
                raise UserError(f"an answer of {len(target)} tokens doesn't fit max_length={self.max_length}")
            room = self.max_length + 1 - len(target)
            self.truncated += len(context) > room
            return self._shortened(context, room)

        def _shortened(self, ids: list[int], length: int) -> list[int]:
            begins = len(first) if first and tuple(ids[: len(first)]) == first and length > len(first) else 0
            return ids if len(ids) <= length else ids[:begins] + ids[len(ids) - (length - begins) :]

        def _choose(self, longest: int) -> None:
            if batch_size == "auto":
                self.batch_size_per_gpu = min(max(_token_budget(loaded) // longest, 1), _LARGEST_BATCH)

        def _halving(self, compute: Callable[[], T]) -> T:
            """Run it, with batches half as large as long as memory runs out."""
            while True:
                try:
                    result = compute()
                except RuntimeError as error:
                    if not _out_of_memory(error) or self.batch_size_per_gpu == 1:
                        raise
                else:
                    self.largest = max(self.largest, self.batch_size_per_gpu)
                    return result
                # Only here, where the error is gone: it held the frames that it came through, and they what they had.
                torch.cuda.empty_cache()
                self.splits += 1
                self.batch_size_per_gpu = self.batch_size_per_gpu // 2
                say(f"  out of memory: going on with batches of {self.batch_size_per_gpu}")

    return Model(
        pretrained=loaded.model,
        tokenizer=loaded.tokenizer,
        batch_size=1 if batch_size == "auto" else batch_size,
        max_length=loaded.max_length,
        device=str(loaded.device),
        add_bos_token=False if add_bos is False else None,
    )


def _token_budget(loaded: Loaded) -> int:
    """Return how many tokens a batch may hold: the harness keeps the whole vocabulary's logits of each."""
    import torch

    if loaded.device.type != "cuda":
        return _CPU_TOKENS
    free, _ = torch.cuda.mem_get_info(loaded.device)
    vocabulary = loaded.model.get_input_embeddings().num_embeddings
    return int(min(_GPU_TOKENS, free // 2 // (vocabulary * _BYTES_A_LOGIT)))


def _out_of_memory(error: RuntimeError) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
