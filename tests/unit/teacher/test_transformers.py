"""A local model as teacher: batches, order and resuming decide nothing; a killed run loses nothing."""

import math
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from srecycle.config import identity
from srecycle.errors import UserError
from srecycle.student.model import Student
from srecycle.teacher import Ledger, Reply, Request
from srecycle.teacher.generation import Sampler
from srecycle.teacher.scripted import ScriptedTeacher
from srecycle.teacher.transformers import TransformersTeacher

WORDS = ("give", "three", "tips", "for", "staying", "healthy", "name", "the", "capital", "of", "france", "write")
CHAT = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    "<{{ m['role'] }}>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def _request(number: int, text: str | None = None, **fields: Any) -> Request:
    chance = random.Random(number)
    said = text if text is not None else " ".join(chance.choices(WORDS, k=chance.randint(1, 30)))
    settings: dict[str, Any] = {
        "row_id": str(number),
        "position": number,
        "phase": "response",
        "base": "original",
        "instruction": said,
        "response": "",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": said}],
    }
    return Request(**settings | fields)


REQUESTS = [_request(number) for number in range(24)]


def _teacher(model: Path, **fields: Any) -> TransformersTeacher:
    student = Student(path=str(model), device="cpu", threads=1, max_length=256)
    return TransformersTeacher(**{"model": student, "max_tokens": 24, "temperature": 1.0} | fields)


def _replies(teacher: TransformersTeacher, requests: list[Request], folder: Path, name: str = "l") -> list[Reply]:
    with Ledger(folder / f"{name}.sqlite") as ledger:
        return teacher.replies(requests, ledger)


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen2", "plain"])
@pytest.mark.parametrize("fields", [{}, {"top_p": 0.8, "temperature": 0.7}, {"temperature": 0.0}])
def test_replies_do_not_depend_on_batches_and_order(
    tiny_models: Mapping[str, Path], tmp_path: Path, name: str, fields: dict[str, Any]
) -> None:
    alone = _replies(_teacher(tiny_models[name], batch_tokens=1, **fields), REQUESTS, tmp_path, "alone")
    together = _replies(_teacher(tiny_models[name], batch_tokens=100_000, **fields), REQUESTS[::-1], tmp_path, "all")
    assert [reply.text for reply in together[::-1]] == [reply.text for reply in alone]
    assert [reply.finish_reason for reply in together[::-1]] == [reply.finish_reason for reply in alone]
    assert len({reply.text for reply in alone}) > len(REQUESTS) / 2


def test_replies_greedy_are_what_the_library_generates(tiny_models: Mapping[str, Path], tmp_path: Path) -> None:
    import torch

    teacher = _teacher(tiny_models["llama"], temperature=0.0)
    loaded = Student(path=str(tiny_models["llama"]), device="cpu", threads=1, max_length=256).load()
    for request, reply in zip(REQUESTS[:4], _replies(teacher, REQUESTS[:4], tmp_path), strict=True):
        prompt = "".join(f"{one['role']}: {one['content']}\n" for one in request.messages) + "assistant:"
        ids = loaded.tokenizer(prompt, return_tensors="pt")["input_ids"]
        written: list[int] = []
        with torch.inference_mode():
            while len(written) < 24:
                logits = loaded.model(torch.cat([ids, torch.tensor([written], dtype=torch.long)], dim=1)).logits
                written.append(int(logits[0, -1].argmax()))
                if written[-1] == loaded.tokenizer.eos_token_id:
                    break
        ended = written[-1] == loaded.tokenizer.eos_token_id
        assert reply.text == loaded.tokenizer.decode(written, skip_special_tokens=True)
        assert reply.finish_reason == ("stop" if ended else "length")
        assert (reply.input_tokens, reply.output_tokens) == (ids.shape[1], len(written) - ended)


def test_replies_ignore_the_models_own_sampling_defaults(tiny_models: Mapping[str, Path], tmp_path: Path) -> None:
    import json
    import shutil

    other = tmp_path / "other"
    shutil.copytree(tiny_models["llama"], other)
    settings = json.loads((other / "generation_config.json").read_text())
    settings |= {"do_sample": True, "top_k": 1, "repetition_penalty": 9.0, "temperature": 0.1}
    (other / "generation_config.json").write_text(json.dumps(settings))
    same = _replies(_teacher(other, temperature=0.0), REQUESTS[:6], tmp_path, "a")
    assert [one.text for one in same] == [
        one.text for one in _replies(_teacher(tiny_models["llama"], temperature=0.0), REQUESTS[:6], tmp_path, "b")
    ]


def test_replies_differ_by_seed_sample_and_settings_and_are_found_again(
    tiny_models: Mapping[str, Path], tmp_path: Path
) -> None:
    teacher = _teacher(tiny_models["llama"])
    samples = [replace(REQUESTS[0], sample=number) for number in range(6)]
    first = _replies(teacher, samples, tmp_path)
    assert len({reply.text for reply in first}) > 3 and all(reply.paid and reply.usd == 0 for reply in first)
    again = _replies(_teacher(tiny_models["llama"], batch_tokens=1), samples, tmp_path)
    assert [(reply.text, reply.paid) for reply in again] == [(reply.text, False) for reply in first]
    others = [_teacher(tiny_models["llama"], **fields) for fields in ({"seed": 1}, {"top_p": 0.9}, {"max_tokens": 23})]
    assert all(reply.paid for other in others for reply in _replies(other, samples[:1], tmp_path))
    with Ledger(tmp_path / "l.sqlite") as ledger:
        assert teacher.outstanding([*samples, REQUESTS[1], REQUESTS[1]], ledger) == [REQUESTS[1]]
        rates = teacher.rates(ledger)
    assert rates is not None and rates.replies == 9 and rates.calls_per_second > 0


def test_replies_equal_requests_are_generated_once(tiny_models: Mapping[str, Path], tmp_path: Path) -> None:
    twin = replace(REQUESTS[0], row_id="other", position=99)
    one, two = _replies(_teacher(tiny_models["llama"]), [REQUESTS[0], twin], tmp_path)
    assert one.text == two.text and (one.paid, two.paid) == (True, False)


def test_replies_identity_counts_the_model_by_content(tiny_models: Mapping[str, Path], tmp_path: Path) -> None:
    import shutil

    shutil.copytree(tiny_models["llama"], tmp_path / "copy")
    here, there = _teacher(tiny_models["llama"]), _teacher(tmp_path / "copy", batch_tokens=7)
    assert identity(here) == identity(there) != identity(_teacher(tiny_models["gpt2"]))
    _replies(here, REQUESTS[:2], tmp_path)
    assert not any(reply.paid for reply in _replies(there, REQUESTS[:2], tmp_path))


def test_replies_long_prompts_have_the_room_that_is_left(tiny_models: Mapping[str, Path], tmp_path: Path) -> None:
    teacher = _teacher(tiny_models["plain"], max_tokens=100)
    overhead = _replies(teacher, [_request(0, "")], tmp_path)[0].input_tokens
    texts = ["\u00e9" * 300, "Z" * (256 - overhead - 3), "Z" * (256 - overhead), "Z" * (255 - overhead)]
    long, nearly, full, last = _replies(teacher, [_request(n, text) for n, text in enumerate(texts)], tmp_path)
    assert (long.status, long.paid) == ("too_long", False)
    assert (nearly.status, nearly.finish_reason, nearly.output_tokens) == ("ok", "length", 3)
    assert full.status == "too_long" and last.status == "ok" and last.output_tokens == 1


@pytest.mark.parametrize("halves", [False, True])  # of a character: what a token's bytes alone decode to
def test_replies_stop_texts_end_a_reply_before_them(
    tiny_models: Mapping[str, Path], tmp_path: Path, halves: bool
) -> None:
    whole = _replies(_teacher(tiny_models["plain"], max_tokens=60), REQUESTS, tmp_path)
    letters = Counter(letter for reply in whole for letter in reply.text if letter != "\ufffd")
    stop = "\ufffd" if halves else letters.most_common(1)[0][0]
    found = {}
    for tokens in (1, 100_000):
        teacher = _teacher(tiny_models["plain"], max_tokens=60, stop=(stop,), batch_tokens=tokens)
        found[tokens] = _replies(teacher, REQUESTS, tmp_path, f"l{tokens}")
        assert all(stop not in reply.text for reply in found[tokens])
        assert all(reply.finish_reason == "stop" or reply.output_tokens == 60 for reply in found[tokens])
    assert found[1] == found[100_000]
    assert any(reply.text and reply.finish_reason == "stop" for reply in found[1])


def test_replies_chat_template_is_applied_and_system_messages_can_be_folded(
    tiny_models: Mapping[str, Path], tmp_path: Path
) -> None:
    import shutil

    from transformers import AutoTokenizer

    shutil.copytree(tiny_models["qwen2"], tmp_path / "chat")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "chat")
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(tmp_path / "chat")
    request = _request(0, "hello")
    with pytest.raises(UserError, match=r"refuses the messages .no system here.: .*teacher\.fold_system=true"):
        _replies(_teacher(tmp_path / "chat"), [request], tmp_path)
    (reply,) = _replies(_teacher(tmp_path / "chat", fold_system=True), [request], tmp_path)
    wanted = tokenizer("<user>Be brief.\n\nhello<assistant>", add_special_tokens=False)["input_ids"]
    assert reply.input_tokens == len(wanted)
    plain = replace(request, messages=[{"role": "user", "content": "Be brief.\n\nhello"}])
    teacher = _teacher(tmp_path / "chat", temperature=0.0, fold_system=True)
    folded, same = (_replies(teacher, [one], tmp_path)[0].text for one in (request, plain))
    assert folded == same


def test_sampler_draws_by_the_probabilities_and_within_the_nucleus() -> None:
    import torch

    logits = torch.tensor([[math.log(p) for p in (0.5, 0.3, 0.15, 0.05)]])
    drawn: dict[float | None, Counter[int]] = {}
    for top_p in (None, 0.79):
        sampler = Sampler(["seed"], 1.0, top_p)
        drawn[top_p] = Counter(int(sampler(torch.zeros(1, 0), logits).argmax()) for _ in range(4000))
    shares = [drawn[None][token] / 4000 for token in range(4)]
    assert shares == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.03)
    assert set(drawn[0.79]) == {0, 1} and drawn[0.79][0] / 4000 == pytest.approx(0.5 / 0.8, abs=0.03)
    cold = Sampler(["seed"], 0.25, None)
    assert Counter(int(cold(torch.zeros(1, 0), logits).argmax()) for _ in range(500))[0] > 0.8 * 500


_CHILD = """
import sys
from pathlib import Path
from tests.unit.teacher.test_transformers import REQUESTS, _replies, _teacher
_replies(_teacher(Path(sys.argv[1]), max_tokens=60, batch_tokens=1), REQUESTS, Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_replies_killed_run_keeps_what_was_generated(tiny_models: Mapping[str, Path], tmp_path: Path) -> None:
    command = [sys.executable, "-c", _CHILD, str(tiny_models["plain"]), str(tmp_path)]
    child = subprocess.Popen(command, cwd=Path(__file__).parents[3])
    kept = 0
    while kept < 4 and child.poll() is None:
        time.sleep(0.05)
        with (
            suppress(sqlite3.OperationalError),
            sqlite3.connect(f"file:{tmp_path / 'l.sqlite'}?mode=ro", uri=True) as one,
        ):
            (kept,) = one.execute("SELECT count(*) FROM replies").fetchone()
    child.send_signal(signal.SIGKILL)
    child.wait(30)
    teacher = _teacher(tiny_models["plain"], max_tokens=60, batch_tokens=1)
    resumed = _replies(teacher, REQUESTS, tmp_path)
    assert kept >= 4 and 0 < sum(reply.paid for reply in resumed) <= len(REQUESTS) - kept
    unbroken = _replies(teacher, REQUESTS, tmp_path, "other")
    assert [reply.text for reply in resumed] == [reply.text for reply in unbroken]


def test_close_lets_the_model_go_and_the_next_request_loads_it(tiny_models: Mapping[str, Path], tmp_path: Path) -> None:
    teacher = _teacher(tiny_models["llama"])
    _replies(teacher, REQUESTS[:1], tmp_path)
    loaded = teacher._loaded
    teacher.close()
    teacher.close()
    assert _replies(teacher, REQUESTS[1:2], tmp_path)[0].paid and teacher._loaded is not loaded


def test_model_that_is_no_student_is_refused() -> None:
    with pytest.raises(ValidationError, match="model should be a student, not ScriptedTeacher"):
        TransformersTeacher(model=ScriptedTeacher())


def test_samples_one_more_generates_only_that(tiny_models: Mapping[str, Path], tmp_path: Path) -> None:
    model = tiny_models["llama"]
    _replies(_teacher(model), REQUESTS[:3], tmp_path)
    both = [replace(one, sample=sample) for one in REQUESTS[:3] for sample in range(2)]
    with Ledger(tmp_path / "l.sqlite") as ledger:
        outstanding = _teacher(model, samples=2).outstanding(both, ledger)
    assert [one.sample for one in outstanding] == [1, 1, 1]


def test_check_samples_at_temperature_zero_are_refused(tiny_models: Mapping[str, Path]) -> None:
    _teacher(tiny_models["llama"], samples=2).check()
    _teacher(tiny_models["llama"], temperature=0.0).check()
    with pytest.raises(UserError, match=r"teacher\.samples=2 at temperature 0 would be the same text 2 times"):
        _teacher(tiny_models["llama"], samples=2, temperature=0.0).check()
