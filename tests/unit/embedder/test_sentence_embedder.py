"""sentence-transformers models: a tiny one, made and saved by the library itself."""

import importlib.metadata
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from srecycle.config import fingerprint, identity
from srecycle.embedder.sentence import SentenceEmbedder
from srecycle.errors import UserError
from tests.conftest import SENTENCES

TEXTS = ["Give three tips.", "The capital of France is Paris.", "hello " * 100, "x"]
needs_library = pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is None, reason="sentence-transformers isn't installed"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a model of two layers, with mean pooling and a limit of 32 tokens."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    root = tmp_path_factory.mktemp("sentences")
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(SENTENCES, trainers.WordLevelTrainer(special_tokens=["[PAD]", "[UNK]"]))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=32
    )
    torch.manual_seed(0)
    size: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = BertConfig(
        vocab_size=len(fast), intermediate_size=32, max_position_embeddings=32, initializer_range=0.3, **size
    )
    BertModel(config).save_pretrained(root / "bert")
    fast.save_pretrained(root / "bert")
    body = Transformer(str(root / "bert"))
    made = SentenceTransformer(modules=[body, Pooling(24, "mean")], device="cpu")
    made.save(str(root / "model"))
    return root / "model"


def _oracle(folder: Path, text: str, limit: int = 32) -> Any:
    """Average the last hidden states of one text, in plain transformers."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    ids = tokenizer(text)["input_ids"][:limit]
    with torch.no_grad():
        states = BertModel.from_pretrained(folder).eval()(torch.tensor([ids])).last_hidden_state[0]
    return states.double().mean(dim=0).numpy()


@needs_library
@pytest.mark.parametrize("limit", [None, 8, 500])
def test_sentence_embedder_equals_the_oracle_for_each_budget_and_order(folder: Path, limit: int | None) -> None:
    encoder = SentenceEmbedder(path=str(folder), max_length=limit, device="cpu").load(None)
    wanted = np.stack([_oracle(folder, text, min(limit or 32, 32)) for text in TEXTS])
    for budget, order in ((1, 1), (100_000, -1)):
        encoder.batch_tokens = budget
        found = encoder.embed(TEXTS[::order])
        assert found.vectors[::order] == pytest.approx(wanted, abs=1e-5) and found.vectors.dtype == np.float32
        assert found.truncated[::order].tolist() == [False, False, True, False]
        assert found.status.tolist() == ["ok"] * 4
    assert encoder.dimensions == 24


@needs_library
def test_sentence_embedder_identity_is_the_content_of_all_its_files(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    embedder = SentenceEmbedder(path=str(copy))
    key = fingerprint(identity(SentenceEmbedder(path=str(folder))))
    assert fingerprint(identity(embedder)) == key
    assert embedder.load(None).model == embedder.resolved()["path"]
    (copy / "README.md").write_text("another text")
    assert fingerprint(identity(SentenceEmbedder(path=str(copy)))) == key
    pooling = copy / "1_Pooling" / "config.json"
    pooling.write_text(pooling.read_text().replace("mean", "max"))
    assert fingerprint(identity(SentenceEmbedder(path=str(copy)))) != key


@needs_library
def test_sentence_embedder_code_of_a_model_is_refused_and_not_run(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    parts = json.loads((copy / "modules.json").read_text())
    parts[1]["type"] = "own_code.Pooling"
    (copy / "modules.json").write_text(json.dumps(parts))
    trace = tmp_path / "trace"
    (copy / "own_code.py").write_text(f"open({str(trace)!r}, 'w')\nclass Pooling: pass\n")
    with pytest.raises(UserError, match=r"the embedder .* can't be loaded: .*own_code") as refused:
        SentenceEmbedder(path=str(copy)).load(None)
    assert not trace.exists() and "\n" not in str(refused.value)


@needs_library
def test_sentence_embedder_pickled_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    torch.save(BertModel.from_pretrained(folder).state_dict(), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"can't be loaded: .*safetensors"):
        SentenceEmbedder(path=str(copy)).load(None)


def test_sentence_embedder_what_is_no_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no modules.json: give a sentence-transformers model folder"):
        SentenceEmbedder(path=str(tmp_path)).resolved()
    with pytest.raises(UserError, match=r"embedder.path=no/such/thing is not a folder"):
        SentenceEmbedder(path="no/such/thing").resolved()
    with pytest.raises(UserError, match=r"embedder.path=org/name is not a folder, nor in the local hub cache"):
        SentenceEmbedder(path="org/name").resolved()


@pytest.mark.parametrize(("version", "seen"), [(None, "it isn't installed"), ("5.9.1", "this is 5.9.1")])
def test_sentence_embedder_without_its_library_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, version: str | None, seen: str
) -> None:
    def told(name: str) -> str:
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "version", told)
    with pytest.raises(UserError, match=rf'{seen}: pip install "sentence-transformers>=6.2", or use embedder=student'):
        SentenceEmbedder(path="org/name").check(None)


@pytest.mark.parametrize("version", ["6.2.0", "6.10.1", "7.0.0rc1"])
def test_sentence_embedder_newer_libraries_will_do(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    SentenceEmbedder(path="org/name").check(None)
