"""Small data sets of the benchmarks' own schemas, and a tiny student with an adapter that isn't merged."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from srecycle.evaluator.base import Subject
from srecycle.stage import Work
from srecycle.store import Store
from srecycle.student import PromptTemplate, Student

SUBJECTS = ("anatomy", "astronomy")

_THINGS = (
    "apple",
    "planet",
    "river",
    "engine",
    "garden",
    "lemon",
    "mirror",
    "window",
    "copper",
    "violin",
    "ocean",
    "bread",
)


def write_benchmarks(
    folder: Path, items: int = 7, examples: int = 5, subjects: Sequence[str] = SUBJECTS
) -> Mapping[str, Path]:
    """Write data for ARC-Challenge, HellaSwag, MMLU (subjects of different size) and TruthfulQA, by task."""
    arc = folder / "ai2_arc" / "ARC-Challenge"
    for split, count in (("train", examples), ("validation", 3), ("test", items)):
        _parquet(arc / f"{split}-00000-of-00001.parquet", [_arc(split, number) for number in range(count)])
    swag = folder / "hellaswag"
    for split, count in (("train", examples), ("validation", items)):
        _lines(swag / f"{split}.jsonl", [_hellaswag(number) for number in range(count)])
    for place, subject in enumerate(subjects):
        for split, count in (("dev", 5), ("validation", 2), ("test", items + 6 * (place % 2))):
            rows = [_mmlu(subject, split, number) for number in range(count)]
            _parquet(folder / "mmlu" / subject / f"{split}-00000-of-00001.parquet", rows)
    _lines(folder / "truthful_qa" / "validation.jsonl", [_truthful(number) for number in range(items)])
    return {
        "arc_challenge": folder / "ai2_arc",
        "hellaswag": swag,
        "mmlu": folder / "mmlu",
        "truthfulqa_mc2": folder / "truthful_qa",
    }


def _thing(number: int) -> str:
    return _THINGS[number % len(_THINGS)]


def _arc(split: str, number: int) -> dict[str, Any]:
    text = [f"a {_thing(number + step)} that is {'very ' * step}old" for step in range(4)]
    return {
        "id": f"{split}_{number}",
        "question": f"Which of these {split} things number {number} is like a {_thing(3 * number)}?",
        "choices": {"text": text, "label": ["A", "B", "C", "D"]},
        "answerKey": "ABCD"[number * 7 % 4],
    }


def _hellaswag(number: int) -> dict[str, Any]:
    return {
        "ind": number,
        "activity_label": f"Painting a {_thing(number)}",
        "ctx_a": f"A man stands beside the {_thing(number)}.",
        "ctx_b": "he",
        "endings": [f"takes the {_thing(number + step)} [substeps] and {'then ' * step}leaves." for step in range(4)],
        "source_id": f"activitynet~{number}" if number % 3 else f"wikihow~{number}",
        "split_type": "zeroshot" if number % 2 else "indomain",
        "label": str(number * 5 % 4),
    }


def _mmlu(subject: str, split: str, number: int) -> dict[str, Any]:
    return {
        "question": f" Of what is the {_thing(number)} made, asks {split} of {subject}? ",
        "subject": subject,
        "choices": [_thing(number + step) for step in range(4)],
        "answer": (number * 3 + len(subject)) % 4,
    }


def _truthful(number: int) -> dict[str, Any]:
    choices = [f"It is a {_thing(number + step)}, {'as is known' if step else 'no doubt'}." for step in range(4)]
    return {
        "question": f"What happens if you eat a {_thing(number)} at {number} o'clock?",
        "mc1_targets": {"choices": choices, "labels": [1, 0, 0, 0]},
        "mc2_targets": {"choices": choices, "labels": [1, 1, 0, 0] if number % 2 else [1, 0, 1, 1]},
    }


def _parquet(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), file)


def _lines(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_student(folder: Path, *, adds_bos: bool = False, bos: bool = True, room: int = 1024) -> Path:
    """Write a tiny Llama with room for so many tokens, whose tokenizer puts BOS first by itself, or doesn't."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<pad>", "</s>", *(["<s>"] if bos else [])]
    vocabulary = {token: number for number, token in enumerate([*special, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    named = {"pad_token": "<pad>", "eos_token": "</s>"} | ({"bos_token": "<s>"} if bos else {})
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
        )
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=room, **named)
    torch.manual_seed(5)
    transformers.logging.disable_progress_bar()
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=room,
        initializer_range=0.3,
        tie_word_embeddings=True,
        bos_token_id=wrapped.bos_token_id,
        eos_token_id=wrapped.eos_token_id,
        pad_token_id=wrapped.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    wrapped.save_pretrained(folder)
    return folder


def write_adapter(folder: Path, base: Path) -> Path:
    """Write a LoRA adapter that changes what the model says."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(9)
    model = AutoModelForCausalLM.from_pretrained(base)
    tuned = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    tuned.save_pretrained(folder)
    return folder


def subject(folder: Path, adapter: Path | None = None, device: str = "cpu") -> Subject:
    """Return the tiny student as what is evaluated."""
    return Subject(
        student=Student(path=str(folder), threads=1, device=device),
        template=PromptTemplate(user="{instruction}", user_with_input="{instruction} {input}"),
        adapter=adapter,
        training=pa.table({"kept": pa.array([], pa.bool_())}),
    )


def work(folder: Path) -> Work:
    """Return an empty place to work in; the same one again goes on from what is there."""
    for name in ("out", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return Work(store=Store(folder / "store"), folder=folder / "out", scratch=folder / "scratch")
