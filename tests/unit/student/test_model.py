"""The student's identity, and what is said where it can't be loaded."""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as hf

from srecycle.config import fingerprint, identity
from srecycle.errors import UserError
from srecycle.student import Student


def _key(path: Path, **fields: object) -> str:
    return fingerprint(identity(Student(path=str(path), **fields)))  # type: ignore[arg-type]


def test_identity_is_the_folders_content(tiny_models: Mapping[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_models["llama"], copy)
    assert _key(copy) == _key(tiny_models["llama"])
    (copy / "README.md").write_text("changes nothing")
    assert _key(copy) == _key(tiny_models["llama"])
    assert _key(copy, device="cpu", threads=1) == _key(copy)
    (copy / "tokenizer_config.json").write_text((copy / "tokenizer_config.json").read_text() + " ")
    assert _key(copy) != _key(tiny_models["llama"])
    assert (
        len({_key(copy), _key(copy, dtype="bfloat16"), _key(copy, max_length=64), _key(copy, attention="eager")}) == 4
    )


def test_load_length_is_cut_to_what_the_model_takes(tiny_models: Mapping[str, Path]) -> None:
    assert Student(path=str(tiny_models["llama"]), max_length=4096).load().max_length == 256
    assert Student(path=str(tiny_models["llama"]), max_length=64).load().max_length == 64


def test_load_folder_in_the_home_is_found(
    tiny_models: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_models["llama"], tmp_path / "model")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Student(path="~/model").load().max_length == 256


@pytest.mark.parametrize("path", ["/no/such/folder", "./nowhere", "~/nowhere", "a/b/c"])
def test_identity_missing_folder_is_refused_and_never_replaced(path: str) -> None:
    with pytest.raises(UserError, match="is not a folder: give a model folder, or a hub id"):
        identity(Student(path=path))


def test_identity_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no config\.json"):
        identity(Student(path=str(tmp_path)))


def test_identity_hub_id_offline_is_refused_with_the_reason() -> None:
    with pytest.raises(
        UserError, match="nobody/nothing is not a folder, nor in the local hub cache, and the hub is off"
    ):
        identity(Student(path="nobody/nothing"))


def test_load_damaged_weights_are_a_user_error(tiny_models: Mapping[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_models["llama"], copy)
    (copy / "model.safetensors").unlink()
    with pytest.raises(UserError, match="can't be loaded"):
        Student(path=str(copy)).load()


def test_load_missing_device_is_a_user_error(tiny_models: Mapping[str, Path]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(UserError, match="sees no CUDA device"):
        Student(path=str(tiny_models["llama"]), device="cuda").load()


SIZE: dict[str, Any] = {
    "vocab_size": 410,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GEMMA = SIZE | {"head_dim": 8, "num_hidden_layers": 2}
ARCHITECTURES: Mapping[str, Any] = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SIZE)),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**SIZE)),
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**SIZE, head_dim=8)),
    "gpt2": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(vocab_size=410, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2)
    ),
    "mistral": lambda: hf.MistralForCausalLM(hf.MistralConfig(**SIZE, sliding_window=32)),
    "gemma": lambda: hf.GemmaForCausalLM(hf.GemmaConfig(**GEMMA)),
    "gemma2": lambda: hf.Gemma2ForCausalLM(hf.Gemma2Config(**GEMMA, sliding_window=32)),
    "gemma3": lambda: hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**GEMMA, sliding_window=32)),
    "phi": lambda: hf.PhiForCausalLM(hf.PhiConfig(**SIZE)),
    "phi3": lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**SIZE)),
}


def _saved(name: str, folder: Path, tokenizer: Path) -> Any:
    """Save a tiny model of random weights with a tokenizer, and return the model as it was saved."""
    torch.manual_seed(0)
    model = ARCHITECTURES[name]().eval()
    model.save_pretrained(folder)
    hf.AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return model


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_load_architecture_gives_its_own_logits(name: str, tiny_models: Mapping[str, Path], tmp_path: Path) -> None:
    model = _saved(name, tmp_path / name, tiny_models["llama"])
    loaded = Student(path=str(tmp_path / name), attention="eager", device="cpu").load()
    ids = torch.arange(3, 43)[None]
    with torch.inference_mode():
        wanted, found = model(ids).logits, loaded.model(ids).logits
    assert torch.allclose(found, wanted, atol=1e-5) and bool(wanted.isfinite().all())
    assert (loaded.max_length, loaded.model.training, loaded.model.dtype) == (64, False, torch.float32)


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "gemma2"])
def test_load_attention_implementations_agree(name: str, tiny_models: Mapping[str, Path], tmp_path: Path) -> None:
    _saved(name, tmp_path / name, tiny_models["llama"])
    ids = torch.arange(3, 43)[None]
    with torch.inference_mode():
        eager, sdpa = (
            Student(path=str(tmp_path / name), attention=attention, device="cpu").load().model(ids).logits
            for attention in ("eager", "sdpa")
        )
    assert torch.allclose(eager, sdpa, atol=1e-5)


def test_load_attention_that_the_model_lacks_is_refused_in_one_line(
    tiny_models: Mapping[str, Path], tmp_path: Path
) -> None:
    _saved("gemma2", tmp_path / "model", tiny_models["llama"])
    try:
        Student(path=str(tmp_path / "model"), attention="sdpa", device="cpu").load()
    except UserError as error:
        assert "\n" not in str(error) and str(error).endswith("try student.attention=eager")
    else:
        pytest.skip("this transformers lets Gemma 2 use sdpa")


@pytest.mark.parametrize(
    ("installed", "device", "dtype", "said"),
    [
        (False, "cuda", "bfloat16", "the package flash-attn isn't installed: install it, or use sdpa"),
        (True, "cpu", "bfloat16", "needs a CUDA device, and this is cpu: use sdpa"),
        (True, "cuda", "float32", "can't compute in float32: use student.dtype=bfloat16, or sdpa"),
        (True, "cuda", "bfloat16", None),
    ],
)
def test_check_flash_attention_says_what_is_missing_before_any_work(
    installed: bool, device: str, dtype: Any, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SimpleNamespace() if installed else None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: {"flash_attn": spec}[name])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    student = Student(path="org/name", attention="flash_attention_2", device=device, dtype=dtype)
    if said is None:
        student.check()
        return
    with pytest.raises(UserError, match=said) as refused:
        student.check()
    assert "\n" not in str(refused.value)


def test_dtype_is_always_explicit() -> None:
    with pytest.raises(ValueError, match="dtype"):
        Student(path="org/name", dtype="auto")  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "token"), [("pad_token", "[PAD]"), ("eos_token", "<|im_end|>"), (None, "<tool>")])
def test_load_tokenizer_with_tokens_that_the_model_lacks_is_refused_or_told(
    name: str | None, token: str, tiny_models: Mapping[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _saved("llama", tmp_path / "model", tiny_models["llama"])
    tokenizer = hf.AutoTokenizer.from_pretrained(tiny_models["llama"])
    tokenizer.add_tokens([f"<{number}>" for number in range(410 - len(tokenizer))])
    tokenizer.add_special_tokens({name: token}) if name else tokenizer.add_tokens([token])
    tokenizer.save_pretrained(tmp_path / "model")
    student = Student(path=str(tmp_path / "model"), device="cpu")
    if name is None:
        student.load()
        assert "knows 410 tokens, but its tokenizer has 411; a text" in capsys.readouterr().err
        return
    with pytest.raises(
        UserError, match=f"knows 410 tokens, but its tokenizer has 411, {name[:3].upper()} among the rest"
    ):
        student.load()


def _adapter(model: Path, folder: Path, seed: int = 0, **settings: Any) -> Path:
    """Save an adapter of random weights, made by PEFT itself."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    base = hf.AutoModelForCausalLM.from_pretrained(model)
    wanted = {"r": 4, "target_modules": "all-linear", "task_type": "CAUSAL_LM", "init_lora_weights": False} | settings
    get_peft_model(base, LoraConfig(**wanted)).save_pretrained(folder)
    return folder


def _logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return torch.as_tensor(model(torch.arange(3, 43)[None]).logits)


def test_load_adapter_is_merged_and_the_model_computes_what_peft_computes(
    tiny_models: Mapping[str, Path], tmp_path: Path
) -> None:
    from peft import PeftModel

    base = tiny_models["llama"]
    adapter = _adapter(base, tmp_path / "adapter")
    plain = hf.AutoModelForCausalLM.from_pretrained(base).eval()
    untouched = _logits(plain)
    wanted = _logits(PeftModel.from_pretrained(plain, adapter).eval())
    loaded = Student(path=str(base), adapter=str(adapter), device="cpu").load()
    assert torch.allclose(_logits(loaded.model), wanted, atol=1e-4)
    assert not torch.allclose(wanted, untouched, atol=1e-2)
    assert type(loaded.model) is type(hf.AutoModelForCausalLM.from_pretrained(base))
    assert not hasattr(loaded.model, "peft_config") and all(one.requires_grad for one in loaded.model.parameters())


def test_load_adapter_in_bfloat16_stays_in_bfloat16(tiny_models: Mapping[str, Path], tmp_path: Path) -> None:
    adapter = _adapter(tiny_models["llama"], tmp_path / "adapter")
    student = Student(path=str(tiny_models["llama"]), adapter=str(adapter), dtype="bfloat16", device="cpu")
    assert {weight.dtype for weight in student.load().model.parameters()} == {torch.bfloat16}


def test_adapter_is_identity_by_content_and_base_of_what_is_trained_on_top(
    tiny_models: Mapping[str, Path], tmp_path: Path
) -> None:
    base = tiny_models["llama"]
    adapter, other = _adapter(base, tmp_path / "adapter"), _adapter(base, tmp_path / "other", seed=1)
    shutil.copytree(adapter, tmp_path / "copy")
    for name in ("README.md", "training_args.bin", "tokenizer.json"):
        (tmp_path / "copy" / name).write_text("changes nothing")
    keys = [_key(base, adapter=str(one)) for one in (adapter, tmp_path / "copy", other)]
    assert keys[0] == keys[1] and len({*keys, _key(base)}) == 3
    assert Student(path=str(base)).base == {"base_model_name_or_path": str(base), "revision": None}
    named = Student(path=str(base), adapter=str(adapter)).base
    assert named.keys() == {"base_model_name_or_path", "revision", "srecycle_adapter"}
    assert str(named["srecycle_adapter"]).startswith("sha256:")
    assert named["srecycle_adapter"] == Student(path=str(base), adapter=str(tmp_path / "copy")).base["srecycle_adapter"]


_FROM_CACHE = """
import json
from srecycle.config import identity
from srecycle.student import Student
student = Student(path="org/model", adapter="org/adapter", device="cpu")
print(json.dumps([identity(student), student.base, float(student.load().model.lm_head.weight.sum())]))
"""


@pytest.mark.slow
def test_hub_ids_are_resolved_to_commits_and_loaded_from_the_cache(
    tiny_models: Mapping[str, Path], tmp_path: Path
) -> None:
    adapter = _adapter(tiny_models["llama"], tmp_path / "adapter", target_modules=["q_proj"])
    for name, folder, commit in (("model", tiny_models["llama"], "a" * 40), ("adapter", adapter, "b" * 40)):
        place = tmp_path / "home" / "hub" / f"models--org--{name}"
        shutil.copytree(folder, place / "snapshots" / commit)
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text(commit)
    surroundings = dict(os.environ) | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _FROM_CACHE], capture_output=True, text=True, check=True, env=surroundings
    )
    fields, base, _ = json.loads(done.stdout.splitlines()[-1])
    assert (fields["path"], fields["hub_revision"]) == ("org/model", "a" * 40)
    assert (fields["adapter"], fields["adapter_revision"]) == ("org/adapter", "b" * 40)
    assert base == {
        "base_model_name_or_path": "org/model",
        "revision": "a" * 40,
        "srecycle_adapter": f"org/adapter@{'b' * 40}",
    }


def test_load_pickled_adapter_is_refused_before_any_work(tiny_models: Mapping[str, Path], tmp_path: Path) -> None:
    adapter = _adapter(tiny_models["llama"], tmp_path / "adapter")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    student = Student(path=str(tiny_models["llama"]), adapter=str(adapter))
    for attempt in (lambda: identity(student), student.load):
        with pytest.raises(
            UserError, match=r"no adapter_model\.safetensors but a pickled adapter_model\.bin, which is"
        ):
            attempt()


def test_load_adapter_without_its_files_is_refused_with_what_is_missing(
    tiny_models: Mapping[str, Path], tmp_path: Path
) -> None:
    adapter = _adapter(tiny_models["llama"], tmp_path / "adapter")
    (adapter / "adapter_config.json").rename(tmp_path / "kept")
    with pytest.raises(UserError, match=r"student\.adapter=.* has no adapter_config\.json: give an adapter folder"):
        identity(Student(path=str(tiny_models["llama"]), adapter=str(adapter)))
    (tmp_path / "kept").rename(adapter / "adapter_config.json")
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no adapter_model\.safetensors: save the adapter as safetensors"):
        identity(Student(path=str(tiny_models["llama"]), adapter=str(adapter)))
    with pytest.raises(UserError, match=r"student\.adapter=/no/where is not a folder: give an adapter folder, or"):
        identity(Student(path=str(tiny_models["llama"]), adapter="/no/where"))
    with pytest.raises(UserError, match=r"student\.adapter=nobody/nothing is not a folder, nor in the local hub cache"):
        identity(Student(path=str(tiny_models["llama"]), adapter="nobody/nothing"))


def _wider(config: dict[str, Any]) -> None:
    config["r"] = 8


def _fewer(config: dict[str, Any]) -> None:
    config["target_modules"] = ["q_proj"]


def _more(config: dict[str, Any]) -> None:
    config["modules_to_save"] = ["lm_head"]


def _elsewhere(config: dict[str, Any]) -> None:
    config["target_modules"] = ["nowhere"]


def _unmergeable(config: dict[str, Any]) -> None:
    config.clear()
    config.update(peft_type="PROMPT_TUNING", task_type="CAUSAL_LM", num_virtual_tokens=2)


@pytest.mark.parametrize("change", [_wider, _fewer, _more, _elsewhere, _unmergeable])
def test_load_adapter_that_does_not_fit_whole_is_refused_in_one_line(
    change: Any, tiny_models: Mapping[str, Path], tmp_path: Path
) -> None:
    adapter = _adapter(tiny_models["llama"], tmp_path / "adapter")
    config = json.loads((adapter / "adapter_config.json").read_text())
    change(config)
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"can't be merged into .* is that the model it was trained on") as refused:
        Student(path=str(tiny_models["llama"]), adapter=str(adapter), device="cpu").load()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["mistral", "gpt2"])
def test_load_adapter_of_another_model_is_refused(name: str, tiny_models: Mapping[str, Path], tmp_path: Path) -> None:
    adapter = _adapter(tiny_models["llama"], tmp_path / "adapter")
    _saved(name, tmp_path / "model", tiny_models["llama"])
    with pytest.raises(UserError, match="can't be merged into"):
        Student(path=str(tmp_path / "model"), adapter=str(adapter), device="cpu").load()


def test_load_damaged_adapter_is_refused(tiny_models: Mapping[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    adapter = _adapter(tiny_models["llama"], tmp_path / "adapter")
    weights = load_file(adapter / "adapter_model.safetensors")
    next(iter(weights.values())).fill_(math.nan)
    save_file(weights, adapter / "adapter_model.safetensors")
    student = Student(path=str(tiny_models["llama"]), adapter=str(adapter), device="cpu")
    with pytest.raises(UserError, match="can't be merged into"):
        student.load()
    (adapter / "adapter_model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UserError, match="can't be merged into"):
        student.load()
    (adapter / "adapter_config.json").write_text("[")
    with pytest.raises(UserError, match=r"adapter_config\.json can't be read"):
        student.load()


def test_adapter_trained_on_a_merged_student_needs_that_student(
    tiny_models: Mapping[str, Path], tmp_path: Path
) -> None:
    base, first = str(tiny_models["llama"]), _adapter(tiny_models["llama"], tmp_path / "first")
    merged = Student(path=base, adapter=str(first), device="cpu")
    second = _adapter(tiny_models["llama"], tmp_path / "second", seed=1)
    config = json.loads((second / "adapter_config.json").read_text()) | merged.base
    (second / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"with another adapter merged \(sha256:.*save that student as a model folder"):
        Student(path=base, adapter=str(second), device="cpu").load()
    loaded = merged.load()
    loaded.model.save_pretrained(tmp_path / "merged")
    loaded.tokenizer.save_pretrained(tmp_path / "merged")
    stacked = Student(path=str(tmp_path / "merged"), adapter=str(second), device="cpu").load()
    assert not torch.allclose(_logits(stacked.model), _logits(loaded.model), atol=1e-2)


def test_trained_on_a_merged_student_is_evaluated_on_it(tiny_models: Mapping[str, Path], tmp_path: Path) -> None:
    import pyarrow as pa

    from srecycle.evaluator.base import Subject
    from srecycle.stage import Work
    from srecycle.student.encoding import Encoded
    from srecycle.trainer.base import TrainingSet
    from srecycle.trainer.lora import LoRATrainer

    first = _adapter(tiny_models["llama"], tmp_path / "first")
    student = Student(path=str(tiny_models["llama"]), adapter=str(first), max_length=64, device="cpu", threads=1)
    loaded = student.load()
    start = _logits(loaded.model)
    data = TrainingSet(sequences=[Encoded(ids=(0, 5, 6, 7), target_start=2)] * 2, refused={}, ids=["a", "b"])
    for name in ("work", "scratch"):
        (tmp_path / name).mkdir()
    work = Work(folder=tmp_path / "work", scratch=tmp_path / "scratch", store=None)  # type: ignore[arg-type, call-arg]
    settings = {"rank": 2, "batch_size": 2, "device_batch": 2, "match": "steps", "max_steps": 4}
    trainer = LoRATrainer(**settings, learning_rate=0.05, warmup=0.0)
    trainer.fit(loaded, data, student, work)
    config = json.loads((tmp_path / "work" / "adapter" / "adapter_config.json").read_text())
    assert config["srecycle_adapter"] == student.base["srecycle_adapter"]
    subject = Subject(student=student, template=None, adapter=None, training=pa.table({}))  # type: ignore[arg-type]
    assert torch.allclose(_logits(subject.load().model), start, atol=1e-5)
    subject = Subject(student=student, template=None, adapter=tmp_path / "work" / "adapter", training=pa.table({}))  # type: ignore[arg-type]
    moved = _logits(subject.load().model)
    assert torch.allclose(moved, _logits(loaded.model), atol=1e-4) and not torch.allclose(moved, start, atol=1e-3)
