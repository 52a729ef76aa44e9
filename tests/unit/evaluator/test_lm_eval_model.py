"""What begins a prompt, and what is left of one that is too long."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from srecycle.errors import UserError
from srecycle.evaluator.lm_eval_model import harness_model
from srecycle.student import Student
from srecycle.student.encoding import anchor_ids
from srecycle.student.model import Loaded
from tests.unit.evaluator.benchmarks import write_student


@pytest.fixture(scope="module")
def loaded(tiny_models: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Loaded]:
    folder = write_student(tmp_path_factory.mktemp("adds"), adds_bos=True)
    places = {**tiny_models, "adds": folder}
    return {name: Student(path=str(place), threads=1, device="cpu").load() for name, place in places.items()}


def _pair(model: Any, context: str, answer: str) -> tuple[list[int], list[int]]:
    """Return what the harness makes of a context and an answer, as it hands them to be scored."""
    seen: list[Any] = []
    model._loglikelihood_tokens = lambda requests, **_: seen.extend(requests) or [(0.0, False)] * len(requests)
    request = type("Request", (), {"args": (context, answer), "task_name": "t"})
    model.loglikelihood([request])
    return seen[0][1], seen[0][2]


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen2", "plain", "adds"])
def test_harness_model_begins_every_sequence_as_training_does(loaded: Mapping[str, Loaded], name: str) -> None:
    one = loaded[name]
    anchor = list(anchor_ids(one.tokenizer))
    text, answer = (one.tokenizer.encode(part, add_special_tokens=False) for part in ("Name a fruit.", " An apple."))
    model = harness_model(one, 2, "auto")

    assert _pair(model, "Name a fruit.", " An apple.") == (anchor + text, answer)
    assert model.tok_encode("Name a fruit.") == anchor + text
    if anchor:
        spelled = one.tokenizer.decode(anchor) + "Name a fruit."
        assert model.tok_encode(spelled) == anchor + text, "a text that begins with it gets no second one"
        assert _pair(model, "", " An apple.") == (anchor, answer)
    ids, mask = model.tok_batch_encode(["Name a fruit.", "Eat"])
    assert ids[1, -len(model.tok_encode("Eat")) :].tolist() == model.tok_encode("Eat")
    assert mask.sum(1).tolist() == [len(model.tok_encode("Name a fruit.")), len(model.tok_encode("Eat"))]


def test_harness_model_add_bos_false_adds_nothing_and_true_demands_one(loaded: Mapping[str, Loaded]) -> None:
    text = loaded["adds"].tokenizer.encode("Eat", add_special_tokens=False)
    assert harness_model(loaded["adds"], 2, False).tok_encode("Eat") == text
    model = harness_model(loaded["adds"], 2, True)
    assert model.tok_encode("Eat") == [loaded["adds"].tokenizer.bos_token_id, *text]
    assert model.begins == {"add_bos": True, "token": "<s>"}
    with pytest.raises(UserError, match="tokenizer has no BOS token: use add_bos=auto, or false"):
        harness_model(loaded["qwen2"], 2, True)


def test_harness_model_prompt_that_is_too_long_loses_what_follows_its_beginning(loaded: Mapping[str, Loaded]) -> None:
    import torch

    one = loaded["llama"]
    model = harness_model(one, 4, "auto")
    long, answer = "Eat a balanced diet. " * 100, " An apple."
    given = []
    forward = type(one.model).forward

    def watched(self: Any, input_ids: Any = None, **rest: Any) -> Any:
        given.append(input_ids)
        return forward(self, input_ids=input_ids, **rest)

    request = type("Request", (), {"args": (long, answer), "task_name": "t"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(one.model), "forward", watched)
        model.loglikelihood([request])
    whole = one.tokenizer.encode(long.rstrip() + " " + answer, add_special_tokens=False)
    assert torch.equal(given[0][0], torch.tensor([one.tokenizer.bos_token_id, *whole[-one.max_length :][:-1]]))
    assert model.truncated == 1
    ids, _ = model.tok_batch_encode([long], left_truncate_len=50)
    assert ids.shape == (1, 50) and ids[0, 0] == one.tokenizer.bos_token_id
