"""What differs between students' architectures: where they keep dropout, and what PEFT can't adapt."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from srecycle.config import fingerprint, identity
from srecycle.errors import UserError
from srecycle.student import Student
from srecycle.trainer.sft import without_dropout
from tests.unit.trainer.conftest import Bench, Make

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
TWO: dict[str, Any] = {"vocab_size": 50, "hidden_size": 16, "n_layer": 2, "n_head": 2}
MODELS: dict[str, Any] = {
    "opt": lambda: hf.OPTForCausalLM(
        hf.OPTConfig(**SMALL, word_embed_proj_dim=16, ffn_dim=16, dropout=0.5, layerdrop=0.5, attention_dropout=0.5)
    ),
    "bloom": lambda: hf.BloomForCausalLM(hf.BloomConfig(**TWO, hidden_dropout=0.5, attention_dropout=0.5)),
    "falcon": lambda: hf.FalconForCausalLM(hf.FalconConfig(**SMALL, hidden_dropout=0.5, attention_dropout=0.5)),
    "gpt2": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)
    ),
    "gpt_neox": lambda: hf.GPTNeoXForCausalLM(
        hf.GPTNeoXConfig(**SMALL, intermediate_size=16, hidden_dropout=0.5, attention_dropout=0.5)
    ),
    "phi": lambda: hf.PhiForCausalLM(hf.PhiConfig(**SMALL, intermediate_size=16, resid_pdrop=0.5, embd_pdrop=0.5)),
}


@pytest.mark.parametrize("name", MODELS)
def test_without_dropout_training_reads_the_same_twice(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]().train()
    ids = torch.arange(3, 20)[None]

    def read() -> Any:
        with torch.no_grad():
            return model(ids).logits

    assert not torch.equal(read(), read()), "this architecture has dropout"
    without_dropout(model)
    assert torch.equal(read(), read())


def test_student_with_dropout_of_its_own_trains_alike_however_a_step_is_split(bench: Bench, lora: Make) -> None:
    tokenizer, folder = bench.student.tokenizer(), bench.root / "opt"
    torch.manual_seed(0)
    hf.OPTForCausalLM(
        hf.OPTConfig(**(SMALL | {"vocab_size": len(tokenizer)}), word_embed_proj_dim=16, ffn_dim=16, dropout=0.3)
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    bench.student = Student(path=str(folder), max_length=64, device="cpu", threads=1)
    whole, split = lora(max_steps=3), lora(max_steps=3, device_batch=1)
    assert fingerprint(identity(whole)) == fingerprint(identity(split))
    assert bench.train(split).losses == pytest.approx(bench.train(whole).losses, abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "config", "modules"),
    [
        (hf.MambaForCausalLM, hf.MambaConfig(vocab_size=400, hidden_size=16, num_hidden_layers=1), ("out_proj",)),
        (hf.GPT2LMHeadModel, hf.GPT2Config(vocab_size=400, n_embd=16, n_layer=1, n_head=2), ("ln_1",)),
    ],
    ids=["incompatible", "unsupported"],
)
def test_lora_target_modules_that_peft_can_not_adapt_are_told(
    bench: Bench, lora: Make, kind: Any, config: Any, modules: tuple[str, ...]
) -> None:
    folder: Path = bench.root / "student"
    kind(config).save_pretrained(folder)
    bench.student.tokenizer().save_pretrained(folder)
    bench.student = Student(path=str(folder), max_length=64, device="cpu", threads=1, attention="eager")
    with pytest.raises(UserError, match=rf"trainer.target_modules=\('{modules[0]}',\): "):
        bench.train(lora(target_modules=modules))
    with pytest.raises(UserError, match=rf"trainer.target_modules=\('{modules[0]}',\): "):  # before anything is paid
        lora(target_modules=modules).check(bench.student)
