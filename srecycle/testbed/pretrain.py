"""Build a base student: tokenizer, tiny Llama, pre-training on a seeded curriculum, accuracy per split.

    python -m srecycle.testbed.pretrain --student weak --out DIR [--seed 0]

`DIR/STUDENT` (of another seed than 0, `DIR/STUDENT_SEED`) gets the model's files, `DIR/manifest.json` their digests,
the command, seed, steps and accuracies. A rebuild elsewhere is compared by accuracy, not by digest: threads and
libraries change the last bits. weak and strong of seed 0 are shipped; studies under experiments/ build the others.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from srecycle.testbed.curriculum import SHARES, Mixture, documents
from srecycle.testbed.measure import accuracy
from srecycle.testbed.vocabulary import MAX_LENGTH, build_tokenizer

WARMUP_STEPS: Final = 100
REPORT_EVERY: Final = 100
CHUNK: Final = 24
OUTER_RATE: Final = 4e-3
TEST_SEED: Final = 1_000
TEST_COUNT: Final = 150


@dataclass(frozen=True, kw_only=True, slots=True)
class Student:
    """A base student's shape, what it reads, and for how long. `first_steps` read single operations only."""

    width: int
    layers: int
    heads: int
    steps: int
    first_steps: int
    documents_per_step: int
    learning_rate: float
    mixture: Mixture


STUDENTS: Final = {
    "novice": Student(
        width=80,
        layers=3,
        heads=4,
        steps=1100,
        first_steps=300,
        documents_per_step=96,
        learning_rate=0.02,
        mixture=Mixture(shares=SHARES, partial_weight=0.06, operation_counts={1: 0.65, 2: 0.30, 3: 0.05}),
    ),
    "weak": Student(
        width=96,
        layers=3,
        heads=4,
        steps=1700,
        first_steps=300,
        documents_per_step=96,
        learning_rate=0.02,
        mixture=Mixture(shares=SHARES, partial_weight=0.12, operation_counts={1: 0.55, 2: 0.33, 3: 0.12}),
    ),
    "strong": Student(
        width=112,
        layers=3,
        heads=4,
        steps=2200,
        first_steps=300,
        documents_per_step=96,
        learning_rate=0.02,
        mixture=Mixture(shares=SHARES, partial_weight=0.3, operation_counts={1: 0.45, 2: 0.35, 3: 0.20}),
    ),
}


def base_name(student: str, seed: int) -> str:
    """What a base is called: its folder, and its entry in the manifest."""
    return f"{student}_{seed}" if seed else student


def build_model(student: Student, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The untrained model, in float32."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=student.width,
        intermediate_size=3 * student.width,
        num_hidden_layers=student.layers,
        num_attention_heads=student.heads,
        num_key_value_heads=student.heads,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config).float()


def pretrain(student: Student, seed: int) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Train a base student from scratch; deterministic for a seed on one machine and one thread."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    model = build_model(student, tokenizer)
    optimizers = _optimizers(model, student)
    began, total = time.perf_counter(), 0.0
    model.train()
    for step, texts in enumerate(_batches(student, seed)):
        total += _accumulate(model, _chunks(texts, tokenizer))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, peak in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = peak * _rate(step, student.steps)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if (step + 1) % REPORT_EVERY == 0:
            _say(f"step {step + 1:5d}  loss {total / REPORT_EVERY:.3f} nats  {time.perf_counter() - began:.0f} s")
            total = 0.0
    return model.eval(), tokenizer


def _optimizers(model: LlamaForCausalLM, student: Student) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon for the matrices inside the layers, AdamW for embeddings and norms; each with its peak learning rate.

    After 350 steps on the weak student's text the loss was 0.96 nats, against 1.24 with AdamW for all. Needs torch 2.9.
    """
    inner: list[torch.nn.Parameter] = []
    outer: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (inner if parameter.ndim == 2 and "embed" not in name else outer).append(parameter)
    return [
        (torch.optim.Muon(inner, lr=student.learning_rate, weight_decay=0.05), student.learning_rate),
        (torch.optim.AdamW(outer, lr=OUTER_RATE, betas=(0.9, 0.98), weight_decay=0.0), OUTER_RATE),
    ]


def _accumulate(model: LlamaForCausalLM, chunks: Sequence[dict[str, torch.Tensor]]) -> float:
    """Add up gradients over one step's chunks; returns the mean loss per token, in nats."""
    counts = [int((chunk["labels"] != -100).sum()) for chunk in chunks]
    total = 0.0
    for chunk, count in zip(chunks, counts, strict=True):
        loss = model(**chunk).loss * (count / sum(counts))
        loss.backward()
        total += loss.item()
    return total


def _chunks(texts: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> list[dict[str, torch.Tensor]]:
    """The texts in groups of like length: less padding, half the time."""
    ordered = sorted(texts, key=lambda text: text.count(" "))
    return [_encode(ordered[start : start + CHUNK], tokenizer) for start in range(0, len(ordered), CHUNK)]


def _batches(student: Student, seed: int) -> Iterator[list[str]]:
    rng = random.Random(f"pre-training {seed}")
    mixture = student.mixture
    single = Mixture(shares=mixture.shares, partial_weight=mixture.partial_weight, operation_counts={1: 1.0})
    first, later = documents(single, rng), documents(mixture, rng)
    for step in range(student.steps):
        source = first if step < student.first_steps else later
        yield [next(source) for _ in range(student.documents_per_step)]


def _rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to nothing."""
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    return 0.5 * (1 + math.cos(math.pi * (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS)))


def _encode(texts: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> dict[str, torch.Tensor]:
    """Anchor, words and end of each text, padded on the right; padding carries no label."""
    framed = [f"{tokenizer.bos_token} {text} {tokenizer.eos_token}" for text in texts]
    encoded = tokenizer(framed, padding=True, padding_side="right", return_tensors="pt", return_token_type_ids=False)
    # Causal attention never lets a real token see the padding on its right, so no mask is needed (and none is faster).
    labels = encoded["input_ids"].masked_fill(encoded["attention_mask"] == 0, -100)
    return {"input_ids": encoded["input_ids"], "labels": labels}


def save(model: LlamaForCausalLM, folder: Path) -> dict[str, str]:
    """Write the base's files and return the digest of each. Weights are stored in float16, to be loaded in float32."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    model.half().save_pretrained(folder)
    model.float()
    build_tokenizer().save_pretrained(folder)
    # A loader that follows the configuration must not compute in the storage's precision.
    settings = folder / "config.json"
    settings.write_text(settings.read_text(encoding="utf-8").replace('"float16"', '"float32"'), encoding="utf-8")
    for path in folder.iterdir():
        path.chmod(0o644)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--student", choices=sorted(STUDENTS), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    student, name = STUDENTS[chosen.student], base_name(chosen.student, chosen.seed)
    began = time.perf_counter()
    model, tokenizer = pretrain(student, chosen.seed)
    seconds = time.perf_counter() - began
    entry: dict[str, Any] = {
        "command": f"python -m srecycle.testbed.pretrain --student {chosen.student} --out DIR --seed {chosen.seed}",
        "seed": chosen.seed,
        "steps": student.steps,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seconds_on_one_thread": round(seconds),
        "files": save(model, chosen.out / name),
        "test": {"count_per_split": TEST_COUNT, "seed": TEST_SEED},
    }
    model = LlamaForCausalLM.from_pretrained(chosen.out / name, dtype=torch.float32).eval()
    for figure, prompted in (("accuracy", False), ("accuracy_opened", True)):
        entry[figure] = accuracy(model, tokenizer, count=TEST_COUNT, seed=TEST_SEED, opened=prompted)
        _say(f"{figure}: " + "  ".join(f"{split} {value:.3f}" for split, value in entry[figure].items()))
    _record(chosen.out / "manifest.json", name, entry)


def _record(path: Path, name: str, entry: dict[str, Any]) -> None:
    manifest = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(dict(sorted({**manifest, name: entry}.items())), indent=2) + "\n", encoding="utf-8")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
