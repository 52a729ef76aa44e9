"""What many tests stand on: a store of their own, no network, and tiny models made on the spot."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported, so before any test
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side; children inherit it

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from srecycle.store import Store

ROOT = Path(__file__).parent.parent

settings.register_profile("tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

SENTENCES = (
    "Give three tips for staying healthy.",
    "Eat a balanced diet and make sure to include plenty of fruits and vegetables.",
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.",
    "### Instruction: Name the capital of France. ### Response: The capital of France is Paris.",
    "A chat between a curious user and an artificial intelligence assistant. USER: hello ASSISTANT: hi",
    "Here is an answer that somebody gave. Which instruction was it an answer to?",
)


@pytest.fixture(autouse=True)
def _own_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every test its own store and cache, and neither keys nor a tracker's settings."""
    monkeypatch.setenv("SRECYCLE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("WANDB_MODE", "WANDB_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return an empty store."""
    return Store(tmp_path / "store")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of reference data beside the project, where there is one."""
    folder = (ROOT / "../shared").resolve()
    if not folder.is_dir():
        pytest.skip(f"no reference data: {folder} is missing")
    return folder


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Make four tiny causal language models that differ in how a sequence begins.

    `llama` has BOS, EOS and padding; `gpt2` one token for BOS and EOS, and no padding; `qwen2` EOS and padding only;
    `plain` (a Llama) has no special token at all.
    """
    made = {}
    for name in ("llama", "gpt2", "qwen2", "plain"):
        made[name] = tmp_path_factory.mktemp("models") / name
        tokenizer = _tokenizer(name)
        _model(name, tokenizer).save_pretrained(made[name])
        tokenizer.save_pretrained(made[name])
    return made


_SPECIAL: Mapping[str, Mapping[str, str]] = {
    "llama": {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"},
    "gpt2": {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
    "qwen2": {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"},
    "plain": {},
}


def _tokenizer(name: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = _SPECIAL[name]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=sorted(set(special.values())),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=256, **special)


def _model(name: str, tokenizer: Any) -> Any:
    import torch
    import transformers as hf

    torch.manual_seed(len(name))
    size: dict[str, Any] = {"vocab_size": len(tokenizer), "initializer_range": 0.3}
    wide = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 256}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if name == "gpt2":
        config = hf.GPT2Config(n_embd=48, n_layer=2, n_head=4, n_positions=256, **size, **ids)
        return hf.GPT2LMHeadModel(config)
    if name == "qwen2":
        return hf.Qwen2ForCausalLM(hf.Qwen2Config(**size, **wide, **heads, **ids))
    return hf.LlamaForCausalLM(hf.LlamaConfig(**size, **wide, **heads, **ids))
