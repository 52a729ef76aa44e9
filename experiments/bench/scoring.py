"""How fast the student's likelihoods are computed, beside the naive way in the same run.

    python experiments/bench/scoring.py --data FILE [--shape 130m] [--rows N] [--json FILE] [--quick]

FILE is an Alpaca-format JSON file. The student has the shape of a Llama and random weights; its tokenizer (byte-level
BPE with BOS) is trained on FILE. The naive way is the authors' released computation (tests/oracle.py): batch 1, fp32,
four full forward passes a row, a head on every position. Naive and ours alternate over the same rows, round by round;
figures are medians over the rounds. Deviation: ours against the naive way of reading the same token ids, in fp32.

MFU is the share of the device's own matrix multiplication rate, measured here in the same precision; the operations
are those that are left after sharing, padding not counted.
"""

import argparse
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))  # tests/oracle.py, from a checkout

import torch
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from srecycle.engine.local import LocalEngine
from srecycle.scorer import Scorer
from srecycle.student import Likelihoods, PromptTemplate, Student
from srecycle.student.inference import Inference
from srecycle.student.reading import Reading, read
from tests.oracle import Naive, Released

SHAPES: dict[str, dict[str, int]] = {
    "10m": {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 6, "num_attention_heads": 4},
    "130m": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12},
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
}
PREAMBLE = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
)
WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
)
USER = "### Instruction:\n{instruction}\n\n### Response:"
USER_WITH_INPUT = "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
TEMPLATE = PromptTemplate(
    preamble=PREAMBLE, preamble_with_input=WITH_INPUT, user=USER, user_with_input=USER_WITH_INPUT, input_separator=""
)
SCORER = Scorer(
    reversed_request="Here is an answer that somebody gave:\n\n{response}\n\nWhich instruction was it an answer to?"
)
Line = dict[str, Any]
Figures = dict[str, dict[str, Any]]


def student(lines: Sequence[Line], shape: str, folder: Path, vocabulary: int) -> Path:
    """Make a model folder: random weights, and a tokenizer trained on the rows."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>"]
    tokenizer.train_from_iterator(
        (line[name] for line in lines for name in ("instruction", "input", "response")),
        trainers.BpeTrainer(
            vocab_size=min(vocabulary, 32_000),
            special_tokens=special,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=2048
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=vocabulary, max_position_embeddings=2048, initializer_range=0.02, **SHAPES[shape])
    torch.set_default_dtype(torch.bfloat16 if shape == "7b" else torch.float32)
    with torch.device("cuda" if shape == "7b" and torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    return folder


def read_rows(file: Path) -> list[Line]:
    """Return the rows of an Alpaca-format file that have an instruction and a response."""
    rows = [
        {"id": str(place), "version": "original", "history": [], "response": row["output"]}
        | {name: row.get(name, "") for name in ("instruction", "input")}
        for place, row in enumerate(json.loads(file.read_text(encoding="utf-8")))
    ]
    return [row for row in rows if row["instruction"].strip() and row["response"].strip()]


def timed(work: Callable[[], Any]) -> float:
    """Return how long it takes (seconds), the device's queue included."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def matmul_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Return the device's rate on large matrix products: operations a second, the best of some."""
    rows, inner, columns = (8192, 4096, 11008) if device.type == "cuda" else (2048, 768, 2048)
    left = torch.randn(rows, inner, dtype=dtype, device=device)
    right = torch.randn(inner, columns, dtype=dtype, device=device)
    left @ right
    return 2.0 * rows * inner * columns / min(timed(lambda: left @ right) for _ in range(10))


class Ours:
    """Our scoring of a student in one precision, as the stage does it."""

    def __init__(self, student: Student, scorer: Scorer) -> None:
        self.stage = Likelihoods(student=student, template=TEMPLATE, scorer=scorer, engine=LocalEngine())
        self.loaded = self.stage.student.load()
        self.inference: Inference = self.stage.inference(self.loaded)
        self.operations = 0.0
        self._count_operations()

    def score(self, lines: Sequence[Line]) -> list[Any]:
        """Score rows as one shard."""
        return list(self.stage.likelihoods(self.inference, lines))

    def _count_operations(self) -> None:
        config = self.loaded.model.config
        head = config.vocab_size * config.hidden_size
        body = sum(parameter.numel() for parameter in self.loaded.model.parameters()) - 2 * head
        compute = self.inference._network.losses

        def counted(batch: Any, ranked: bool) -> Any:
            for line in batch:
                fed, seen = len(line.ids), len(line.prefix)
                attention = 4 * config.hidden_size * config.num_hidden_layers * fed * (seen + fed / 2)
                targets = sum(one.target_tokens for one in line.sequences)
                self.operations += 2 * body * fed + attention + 2 * head * targets
            return compute(batch, ranked)

        self.inference._network.losses = counted  # type: ignore[method-assign]


def naive_scores(released: Released, lines: Sequence[Line]) -> None:
    """Score rows the naive way."""
    for line in lines:
        released.four(
            TEMPLATE.prompt(line["instruction"], line["input"]),
            TEMPLATE.prompt(SCORER.request(line["response"])),
            line["instruction"],
            line["input"],
            line["response"],
        )


def deviation(ours: Ours, naive: Naive, lines: Sequence[Line]) -> float:
    """Return the largest relative deviation of a likelihood from the naive way on the same token ids."""
    largest = 0.0
    readings = read(ours.loaded, TEMPLATE, SCORER, lines)
    for one, reading in zip(ours.score(lines), readings, strict=True):
        assert isinstance(reading, Reading)
        found = (one.loss_y_given_x, one.loss_y, one.loss_x_given_y, one.loss_x)
        for value, sequence in zip(found, reading.sequences, strict=True):
            losses = naive.losses(sequence.ids, sequence.target_start)
            expected = sum(losses) / len(losses)
            largest = max(largest, abs(value - expected) / expected)
    return largest


def measured(arguments: argparse.Namespace, folder: Path, lines: list[Line]) -> Figures:
    """Run all ways, alternating, and return the figures."""
    device = arguments.device
    ways = [name for name in ("float32", "bfloat16") if name in arguments.precisions]
    baselines = {"float32": Released(Naive(folder, torch.float32, device, "sdpa"))}
    if device != "cpu":
        baselines["bfloat16"] = Released(Naive(folder, torch.bfloat16, device, "sdpa"))
    scorer = replace(SCORER, batch_tokens=arguments.batch_tokens, compile=arguments.compile)
    students = {name: Student(path=str(folder), dtype=name, device=device, threads=arguments.threads) for name in ways}
    ours = {name: Ours(student, scorer) for name, student in students.items()}
    oracle = Naive(folder, torch.float32, device)
    sample = lines[: arguments.naive_rows]
    for one in ours.values():
        one.score(sample[:32])
        one.operations, one.inference.read_tokens = 0.0, 0
    seconds: dict[str, list[float]] = {name: [] for name in (*ways, *(f"naive {name}" for name in baselines))}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(arguments.rounds):
        part = random.Random(round_).sample(lines, len(sample))
        for name, released in baselines.items():
            seconds[f"naive {name}"].append(timed(lambda released=released, part=part: naive_scores(released, part)))
        for name in ways:
            seconds[name].append(timed(lambda name=name: ours[name].score(lines)))
            rates[name].append(matmul_rate(getattr(torch, name), torch.device(device)))
        print(f"round {round_ + 1} of {arguments.rounds}", {k: round(v[-1], 2) for k, v in seconds.items()}, flush=True)
    figures: Figures = {}
    for name in ways:
        short = {"float32": "fp32", "bfloat16": "bf16"}[name]
        rate = statistics.median(len(lines) / one for one in seconds[name])
        tokens = ours[name].inference.read_tokens / arguments.rounds / len(lines) * rate
        for against in baselines:
            base = statistics.median(len(sample) / one for one in seconds[f"naive {against}"])
            suffix = "" if against == "float32" else "_against_naive_bf16"
            figures[f"rows_per_second_{short}{suffix}"] = _figure(rate, "rows/s", base, rate / base)
            if against == "float32":
                per_row = ours[name].inference.read_tokens / arguments.rounds / len(lines)
                figures[f"tokens_per_second_{short}"] = _figure(tokens, "tokens/s", base * per_row, rate / base)
        work = ours[name].operations / arguments.rounds
        utilisation = work / statistics.median(seconds[name]) / statistics.median(rates[name])
        figures[f"mfu_{short}"] = _figure(utilisation, "share", statistics.median(rates[name]) / 1e9, None)
        figures[f"max_relative_deviation_{short}"] = _figure(deviation(ours[name], oracle, sample), "share", 0.0, None)
        figures[f"peak_memory_{short}"] = _figure(peak_memory(ours[name], lines), "GiB over weights", None, None)
    return figures


def peak_memory(ours: Ours, lines: Sequence[Line]) -> float:
    """Return how much more memory than before a scoring holds at most (GiB): the device's, or this process's."""
    if ours.loaded.device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        ours.score(lines)
        return (torch.cuda.max_memory_allocated() - before) / 2**30
    held, done = [_resident()], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            held.append(_resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        ours.score(lines)
    finally:
        done.set()
        watcher.join()
    return (max(held) - held[0]) / 2**30


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _figure(value: float, unit: str, baseline: float | None, ratio: float | None) -> dict[str, Any]:
    return {"value": value, "unit": unit, "baseline": baseline, "ratio": ratio}


def machine(device: str) -> str:
    """Name the hardware."""
    if device != "cpu":
        return torch.cuda.get_device_name()
    names = [
        line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "name" in line
    ]
    return f"{(names or [platform.processor()])[0]}, {torch.get_num_threads()} threads"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="rows in Alpaca's format (JSON)")
    parser.add_argument("--shape", choices=SHAPES, default="130m")
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--rows", type=int, default=400, help="how many rows, drawn with a seed (0: all)")
    parser.add_argument("--naive-rows", type=int, default=60, help="how many of them the naive way scores, a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-tokens", type=int, default=None)
    parser.add_argument("--compile", action="store_true", help="scorer.compile=true")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--quick", action="store_true", help="the same figures in under a minute")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rows, arguments.naive_rows, arguments.rounds = 20, 6, 2
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    lines = read_rows(arguments.data)
    chosen = random.Random(0).sample(lines, arguments.rows) if 0 < arguments.rows < len(lines) else lines
    with tempfile.TemporaryDirectory() as folder:
        made = student(lines, arguments.shape, Path(folder), arguments.vocabulary)
        figures = measured(arguments, made, chosen)
    title = f"Scoring {len(chosen)} rows, Llama {arguments.shape}, on {machine(arguments.device)}"
    table = Table("figure", "value", "unit", "baseline", "ratio", title=title)
    for name, one in figures.items():
        table.add_row(name, *(("-" if v is None else v if isinstance(v, str) else f"{v:.4g}") for v in one.values()))
    Console(width=110).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": title, "figures": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
