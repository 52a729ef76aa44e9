"""What our training costs over a bare script of TRL's, in the same run.

    python experiments/bench/training.py [--shape testbed|7b|tiny] [--rows N] [--json FILE] [--quick]

Both sides go from the same rows in memory to an adapter on disk, on a model that is loaded already: ours by
`training_set` and the LoRA trainer's `fit`, as the train stage does it; the bare side by `SFTTrainer` on prompts and
completions, with the same adapter, optimiser, schedule, rows a step, checkpoints and logging. Both train the same
tokens, so that their losses are equal too. They alternate, round by round; figures are medians over the rounds, and
ratios are medians over their pairs. Where other work shares the machine, the processor's seconds tell more than the
wall's.

`--shape 7b` (a Llama of random weights, on a CUDA device in bf16, rows of lengths as instruction sets have them) tells
tokens a second with and without padding, for TRL's plain script, for ours, and for ours packed.
"""

import argparse
import gc
import json
import math
import os
import platform
import random
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from rich.console import Console
from rich.table import Table

from srecycle.progress import quiet_libraries
from srecycle.stage import Work
from srecycle.student import PromptTemplate, Student
from srecycle.trainer.base import training_set
from srecycle.trainer.lora import LoRATrainer

BASE = Path(__file__).parents[2] / "srecycle" / "testbed" / "bases" / "weak"
TEMPLATE = PromptTemplate(user="Q: {instruction}\nA:", user_with_input="Q: {instruction} {input}\nA:")
SHAPES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2},
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
}
Figures = dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one training took: seconds and those of the processor, tokens, memory (GiB); and its last loss."""

    seconds: float
    processor: float
    tokens: int
    padded: int
    memory: float
    loss: float


def rows_like(count: int, longest: int, seed: int) -> list[dict[str, Any]]:
    """Return rows whose lengths are spread as those of instruction sets: most short, some long."""
    draw = random.Random(seed)
    words = ("add", "the", "list", "then", "reverse", "it", "and", "answer", "with", "one", "number", "only")
    rows = []
    for number in range(count):
        length = min(longest, max(2, round(draw.lognormvariate(0.0, 0.8) * longest / 8)))
        text = " ".join(draw.choices(words, k=length))
        question = " ".join(draw.choices(words, k=8))
        rows.append({"id": str(number), "instruction": question, "input": "", "response": f" {text}", "history": []})
    return rows


def make_student(shape: str, device: str, folder: Path, max_length: int) -> Student:
    """Return the shipped student of the micro-world, or one of a Llama's shape with its tokenizer."""
    if shape == "testbed":
        return Student(path=str(BASE), max_length=max_length, device=device, threads=torch.get_num_threads())
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(BASE)
    tokenizer.model_max_length = max_length
    dtype = torch.bfloat16 if device != "cpu" else torch.float32
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    with torch.device(device):
        model = LlamaForCausalLM(LlamaConfig(vocab_size=32_000, max_position_embeddings=max_length, **SHAPES[shape]))
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    name = "bfloat16" if device != "cpu" else "float32"
    return Student(path=str(folder), max_length=max_length, device=device, dtype=name)


def ours(student: Student, trainer: LoRATrainer, rows: list[dict[str, Any]], folder: Path) -> Side:
    """Train as the train stage does."""
    loaded = trainer.load(student)
    work = Work(store=None, folder=folder / "work", scratch=folder / "scratch")  # type: ignore[arg-type]
    work.folder.mkdir()
    work.scratch.mkdir()
    started = _begin()
    data = training_set(loaded, TEMPLATE, rows)
    assert not data.refused, "a row that only one side trains on"
    metrics = trainer.fit(loaded, data, student, work)
    took = _took(started)
    tokens, padded = metrics["tokens_seen"], work.notes["tokens_with_padding"]
    return Side(**took, tokens=tokens, padded=padded, memory=_memory(), loss=metrics["loss/last_tenth"])


def bare(student: Student, trainer: LoRATrainer, rows: list[dict[str, Any]], folder: Path) -> Side:
    """Train by a script of TRL's, as its documentation writes one, with the same settings."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    loaded = trainer.load(student)
    on_cpu = loaded.device.type == "cpu"
    started = _begin()
    wording = TEMPLATE.bound(loaded.tokenizer)
    begin = loaded.tokenizer.bos_token  # TRL leaves BOS to the tokenizer, and this one adds none
    prompts = [begin + wording.prompt(row["instruction"], row["input"]) for row in rows]
    completions = [wording.completion(row["response"]) for row in rows]
    with quiet_libraries():
        sft = SFTTrainer(
            model=loaded.model,
            args=SFTConfig(
                output_dir=str(folder / "checkpoints"),
                max_length=loaded.max_length,
                learning_rate=trainer.learning_rate,
                max_steps=trainer.max_steps or -1,
                per_device_train_batch_size=trainer.device_batch,
                gradient_accumulation_steps=trainer.batch_size // trainer.device_batch,
                warmup_steps=trainer.warmup,
                lr_scheduler_type=trainer.schedule,
                max_grad_norm=trainer.max_grad_norm,
                seed=trainer.seed,
                data_seed=trainer.seed,
                use_cpu=on_cpu,
                bf16=not on_cpu,
                activation_checkpointing=trainer.gradient_checkpointing,
                dataloader_pin_memory=not on_cpu,
                logging_steps=1,
                save_steps=trainer.checkpoint_steps,
                save_total_limit=2,
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_dict({"prompt": prompts, "completion": completions}),
            processing_class=loaded.tokenizer,
            peft_config=LoraConfig(
                r=trainer.rank, lora_alpha=trainer.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
        )
        sft.remove_callback(PrinterCallback)
        _count_padding(sft)
        sft.train()
        sft.save_model(str(folder / "adapter"))
    took = _took(started)
    losses = [line["loss"] for line in sft.state.log_history if "loss" in line]
    tail = losses[-max(1, len(losses) // 10) :]
    return Side(
        **took,
        tokens=int(sft._total_train_tokens),
        padded=sft.padded,
        memory=_memory(),
        loss=sum(tail) / len(tail),
    )


def _count_padding(sft: Any) -> None:
    collate, sft.padded = sft.data_collator, 0

    def counted(examples: list[Any]) -> Any:
        batch = collate(examples)
        sft.padded += batch["input_ids"].numel()
        return batch

    sft.data_collator = counted


def _begin() -> tuple[float, float]:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


def _took(started: tuple[float, float]) -> dict[str, float]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return {"seconds": time.perf_counter() - started[0], "processor": time.process_time() - started[1]}


def _memory() -> float:
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else float("nan")


def measured(arguments: argparse.Namespace, folder: Path) -> Figures:
    """Run the sides in turn, and return the figures."""
    student = make_student(arguments.shape, arguments.device, folder / "model", arguments.max_length)
    rows = rows_like(arguments.rows, arguments.max_length // 8, 0)  # words of some four tokens: all rows fit
    settings = LoRATrainer(
        match="steps",
        max_steps=arguments.steps,
        batch_size=arguments.batch_size,
        device_batch=arguments.device_batch,
        gradient_checkpointing=arguments.shape == "7b",
        learning_rate=2e-4 if arguments.shape == "7b" else 2e-3,
    )
    ways: dict[str, Any] = {"bare": (bare, settings), "ours": (ours, settings)}
    if arguments.shape != "testbed":
        packed = LoRATrainer(**{**vars(settings), "packing": True, "device_batch": arguments.packed_batch})
        ways["packed"] = (ours, packed)
    sides: dict[str, list[Side]] = {name: [] for name in ways}
    for round_ in range(arguments.rounds + 1):
        # In turn who goes first: what runs second finds caches warm.
        for name in list(ways) if round_ % 2 else list(ways)[::-1]:
            run, trainer = ways[name]
            with tempfile.TemporaryDirectory(dir=folder) as place:
                side = run(student, trainer, rows, Path(place))
            if round_:  # the first round pays for imports
                sides[name].append(side)
        if round_:
            told = {name: round(found[-1].seconds, 3) for name, found in sides.items()}
            print(f"round {round_} of {arguments.rounds}: seconds {told}", flush=True)
    return figures(sides)


def figures(sides: dict[str, list[Side]]) -> Figures:
    """Return medians by name, each beside the bare script's."""
    made: Figures = {}
    for name in (one for one in sides if one != "bare"):
        pairs = list(zip(sides[name], sides["bare"], strict=True))
        for figure, unit, read in (
            ("seconds", "s", lambda side: side.seconds),
            ("processor_seconds", "s", lambda side: side.processor),
            ("tokens_per_second", "tokens/s", lambda side: side.tokens / side.seconds),
            ("tokens_per_second_with_padding", "tokens/s", lambda side: side.padded / side.seconds),
            ("peak_memory", "GiB", lambda side: side.memory),
            ("last_loss", "nats", lambda side: side.loss),
        ):
            value, base = (statistics.median(read(pair[at]) for pair in pairs) for at in (0, 1))
            ratio = statistics.median(read(one) / read(other) for one, other in pairs)
            if not math.isnan(value):  # no device, no figure of its memory
                made[f"{name}_{figure}"] = {"value": value, "unit": unit, "baseline": base, "ratio": ratio}
    return made


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=["testbed", *SHAPES], default="testbed")
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--device-batch", type=int, default=None, help="default: 16, and 8 for 7b")
    parser.add_argument("--packed-batch", type=int, default=1, help="bins computed at a time")
    parser.add_argument("--max-length", type=int, default=None, help="default: 256, and 2048 for 7b")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--quick", action="store_true", help="the same figures in under a minute")
    arguments = parser.parse_args()
    large = arguments.shape == "7b"
    if large and arguments.device == "cpu":
        parser.error("--shape 7b needs a CUDA device; --shape tiny shows the same figures anywhere")
    arguments.device_batch = arguments.device_batch or (8 if large else 16)
    arguments.max_length = arguments.max_length or (2048 if large else 256)
    if arguments.quick:
        arguments.steps, arguments.rounds = (20, 3) if not large else (8, 2)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        found = measured(arguments, Path(folder))
    cores = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    machine = torch.cuda.get_device_name() if arguments.device != "cpu" else cores
    title = f"Training {arguments.steps} steps of {arguments.batch_size} rows, {arguments.shape}, on {machine}"
    table = Table("figure", "value", "unit", "bare", "ratio", title=title)
    for name, one in found.items():
        table.add_row(name, *(one_ if isinstance(one_, str) else f"{one_:.4g}" for one_ in one.values()))
    Console(width=110).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": title, "figures": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
