"""Adapters on adapters, as rounds of training make them: what they compute, what they are called, what is refused."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from srecycle.config import fingerprint, identity
from srecycle.errors import UserError
from srecycle.student import Student


def _chain(model: Path, root: Path) -> list[Path]:
    """Train (by chance) three adapters, each by PEFT on a model into which it merged those before, and save them."""
    from peft import LoraConfig, get_peft_model

    current: Any = hf.AutoModelForCausalLM.from_pretrained(model)
    made: list[Path] = []
    for seed in range(3):
        torch.manual_seed(seed)
        lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
        adapted = get_peft_model(current, lora)
        made.append(root / f"adapter{seed}")
        adapted.save_pretrained(made[-1])
        file = made[-1] / "adapter_config.json"
        base = Student(path=str(model), adapters=tuple(map(str, made[:-1]))).base
        file.write_text(json.dumps(json.loads(file.read_text()) | base))
        current = adapted.merge_and_unload()
        current.save_pretrained(root / f"model{seed}")
    return made


def _logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return torch.as_tensor(model(torch.arange(3, 43)[None]).logits)


def _student(model: Path, *adapters: Path, **fields: Any) -> Student:
    return Student(path=str(model), adapters=tuple(map(str, adapters)), device="cpu", threads=1, **fields)


def test_load_chain_computes_what_the_merged_models_compute(tiny_models: Mapping[str, Path], tmp_path: Path) -> None:
    model = tiny_models["llama"]
    chain = _chain(model, tmp_path)
    before = _logits(hf.AutoModelForCausalLM.from_pretrained(model).eval())
    for length in (1, 2, 3):
        wanted = _logits(hf.AutoModelForCausalLM.from_pretrained(tmp_path / f"model{length - 1}").eval())
        assert torch.allclose(_logits(_student(model, *chain[:length]).load().model), wanted, atol=1e-3)
        assert not torch.allclose(wanted, before, atol=1e-1)
        before = wanted
    first, *rest = chain
    by_both_fields = Student(path=str(model), adapter=str(first), adapters=tuple(map(str, rest)), device="cpu")
    assert torch.allclose(_logits(by_both_fields.load().model), before, atol=1e-3)


def test_load_chain_out_of_order_is_refused_with_what_is_missing(
    tiny_models: Mapping[str, Path], tmp_path: Path
) -> None:
    model = tiny_models["llama"]
    first, second, third = _chain(model, tmp_path)
    for wrong in ((second,), (second, first), (first, third), (second, third)):
        with pytest.raises(UserError, match=r"student\.adapters=.* with another adapter merged \(sha256:.*list all of"):
            _student(model, *wrong).load()


def test_chain_is_identity_by_content_and_order(tiny_models: Mapping[str, Path], tmp_path: Path) -> None:
    model = tiny_models["llama"]
    first, second, _ = _chain(model, tmp_path)
    shutil.copytree(first, tmp_path / "copy")
    chains = [(first, second), (tmp_path / "copy", second), (first,), (second, first), ()]
    keys = [fingerprint(identity(_student(model, *chain))) for chain in chains]
    assert keys[0] == keys[1] and len(set(keys)) == 4
    with pytest.raises(UserError, match=r"student\.adapters=/no/where is not a folder: give an adapter folder"):
        identity(_student(model, Path("/no/where")))


def test_trained_student_has_the_new_adapter_or_the_new_model(tiny_models: Mapping[str, Path], tmp_path: Path) -> None:
    start = _student(tiny_models["llama"], tmp_path / "old", adapter="older", max_length=64)
    (tmp_path / "lora" / "adapter").mkdir(parents=True)
    (tmp_path / "full" / "model").mkdir(parents=True)
    tuned = start.trained(tmp_path / "lora")
    assert tuned.adapters == (str(tmp_path / "old"), str(tmp_path / "lora" / "adapter"))
    assert (tuned.path, tuned.adapter, tuned.max_length) == (start.path, "older", 64)
    whole = start.trained(tmp_path / "full")
    assert (whole.path, whole.adapter, whole.adapters) == (str(tmp_path / "full" / "model"), None, ())
    assert whole.max_length == 64
