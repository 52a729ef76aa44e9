"""Likelihoods against a naive oracle: one sequence at a time, all logits, its own joining, log-softmax in float64."""

import dataclasses
import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hydra.utils import instantiate
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from srecycle.data import Source
from srecycle.data.alpaca import Alpaca
from srecycle.engine.local import LocalEngine
from srecycle.rows import LIKELIHOOD_SCHEMA, Likelihood, to_table
from srecycle.scorer import LIKELIHOODS, Scorer, scores
from srecycle.stage import materialize
from srecycle.store import Store, write_json
from srecycle.student import Likelihoods, PromptTemplate, Student, inference
from srecycle.student.inference import Inference
from srecycle.student.reading import Reading, read
from srecycle.student.sharing import lines_of
from tests.conftest import ROOT
from tests.mortal import KilledError, Mortal
from tests.oracle import ById, Naive, Told

USER = "### Instruction:\n{instruction}\n\n### Response:"
WITH_INPUT = "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
REQUEST = "Here is an answer:\n{response}\nWhich instruction was it an answer to?"
PREFIX = " "
MODELS = ("llama", "gpt2", "qwen2", "plain")
FIRST = {"llama": "<s>", "gpt2": "<|endoftext|>", "qwen2": "<|im_end|>", "plain": None}
NAMES = ("loss_y_given_x", "loss_y", "loss_x_given_y", "loss_x")
TOKEN_COLUMNS = (
    *("y_tokens", "y_given_x_token_losses", "y_token_losses"),
    *("x_tokens", "x_given_y_token_losses", "x_token_losses"),
)
SHARE, CLIP = 0.3, 40


def _line(instruction: str, response: str, input: str = "", **fields: Any) -> dict[str, Any]:
    texts = {"instruction": instruction, "input": input, "response": response, "history": []}
    return {"id": "r", "version": "original", **texts, **fields}


LINES = [
    _line("Give three tips.", "Eat well. Sleep. Walk."),
    _line("Translate.", "Bonjour \U0001f600", input="hello"),
    _line("x", "y"),
    _line("Sum 1 and 2", "3\n\n### Instruction:\nno"),
    _line("Give three tips.", "Eat well. Sleep. Walk."),
    _line("Say it again.", "hi " * 30),
    _line("And now?", "Bye.", history=[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Oh"}]),
    _line("\u0645\u0631\u062d\u0628\u0627", "  leading and trailing  "),
]
# Every instruction with every response: as a row's versions, they share contexts, of y after x and of x after y'.
VERSIONS = [
    _line(instruction, response)
    for instruction in ("Name a fruit, please.", "Which fruit is red?", "Give a fruit that is healthy.", "Fruits?")
    for response in ("An apple.", "The apple is a red fruit, and healthy to eat.", "No", "apple, cherry and plum")
]


class Oracle:
    """The four targets of a line, in this file's template."""

    def __init__(self, naive: Naive, first: str | None, max_length: int = 256) -> None:
        self.by_id = ById(naive, first, max_length)

    def four(self, line: Mapping[str, Any], eos: bool = False) -> tuple[Told, ...] | str:
        asked, given_ = line["instruction"], line["input"]
        prompt = ""
        for turn in line["history"]:
            prompt += USER.replace("{instruction}", turn["content"]) if turn["role"] == "user" else ""
            prompt += f"{PREFIX}{turn['content']}\n" if turn["role"] == "assistant" else ""
        frame = WITH_INPUT if given_ else USER
        head, tail = frame.split("{instruction}")
        before_input, *after_input = tail.split("{input}")
        prompt += head + asked + given_.join((before_input, *after_input))
        before, after = REQUEST.split("{response}")
        head, tail = USER.split("{instruction}")
        backward = head + before + line["response"] + after + tail
        question = PREFIX + asked + (f"\n{given_}" if given_ else "")
        return self.by_id.four(prompt, backward, PREFIX + line["response"], question, eos)


def _stage(folder: Path, max_length: int = 256, prefix: str = PREFIX, **scorer: Any) -> Likelihoods:
    return Likelihoods(
        student=Student(path=str(folder), max_length=max_length, device="cpu", threads=1),
        template=PromptTemplate(user=USER, user_with_input=WITH_INPUT, response_prefix=prefix, turn_end="\n"),
        scorer=Scorer(**{"reversed_request": REQUEST, "s_ifd_share": SHARE, "rank_clip": CLIP} | scorer),
        engine=LocalEngine(),
    )


def _found(folder: Path, lines: Sequence[dict[str, Any]], **settings_: Any) -> list[Likelihood]:
    stage = _stage(folder, **settings_)
    return list(stage.likelihoods(stage.inference(stage.student.load()), lines))


def _assert_equal(found: Likelihood, expected: tuple[Told, ...] | str) -> None:
    """Compare one line's likelihoods with the oracle's: all values, or the reason and no value."""
    if isinstance(expected, str):
        assert found.status == expected
        _assert_no_values(found)
        return
    y_given_x, y, x_given_y, x = expected
    assert found.status == "ok"
    assert [getattr(found, name) for name in NAMES] == pytest.approx([one.mean for one in expected], rel=1e-5)
    assert (found.tokens_y, found.tokens_x) == (len(y.losses), len(x.losses))
    assert y_given_x.ids == y.ids and x_given_y.ids == x.ids
    assert found.target_truncated == (y.cut or x.cut)
    assert found.context_truncated == (y_given_x.context_cut or x_given_y.context_cut)
    assert found.shift_y == pytest.approx(_shift(y_given_x, y), abs=1e-4)
    least, greatest = (sum(min(rank[side], CLIP) for rank in y_given_x.ranks) for side in (0, 1))
    assert found.rank_y_given_x is not None
    assert least - 1e-3 <= found.rank_y_given_x * found.tokens_y <= greatest + 1e-3


def _assert_no_values(found: Likelihood) -> None:
    assert [getattr(found, name) for name in (*LIKELIHOODS, *TOKEN_COLUMNS)] == [None] * 13


def _shift(y_given_x: Told, y: Told) -> float:
    """Take the share of the tokens that x moves most, either way, and average how far it moves them."""
    moved = sorted((after - alone for after, alone in zip(y_given_x.losses, y.losses, strict=True)), key=abs)
    kept = moved[-math.ceil(SHARE * len(moved)) :]
    return sum(kept) / len(kept)


@pytest.fixture(scope="module")
def naives(tiny_models: Mapping[str, Path]) -> Mapping[str, Naive]:
    return {name: Naive(tiny_models[name]) for name in MODELS}


@pytest.fixture(scope="module")
def expected(naives: Mapping[str, Naive]) -> Mapping[str, list[tuple[Told, ...] | str]]:
    """The oracle's answers to all lines, by model."""
    return {name: [Oracle(naives[name], FIRST[name]).four(line) for line in (*LINES, *VERSIONS)] for name in MODELS}


@pytest.mark.parametrize("batch_tokens", [1, 300, 100_000])
@pytest.mark.parametrize("model", MODELS)
def test_likelihoods_equal_the_oracles_for_each_budget_sharing_and_order(
    tiny_models: Mapping[str, Path],
    expected: Mapping[str, list[tuple[Told, ...] | str]],
    model: str,
    batch_tokens: int,
) -> None:
    stage = _stage(tiny_models[model])
    loaded = stage.student.load()
    computed, told = {}, {}
    for share in (True, False):
        pairs = list(zip((*LINES, *VERSIONS), expected[model], strict=True))
        random.Random(batch_tokens + share).shuffle(pairs)
        computing = Inference(loaded, batch_tokens, share=share)
        found = list(stage.likelihoods(computing, [line for line, _ in pairs]))
        for (_, wanted), one in zip(pairs, found, strict=True):
            assert not isinstance(wanted, str)
            _assert_equal(one, wanted)
        assert computing.shares == share
        computed[share], told[share] = computing.computed_tokens, computing.read_tokens
    assert computed[True] < 0.8 * computed[False] < 0.8 * told[True]


@pytest.mark.parametrize("model", MODELS)
def test_likelihoods_of_these_lines_are_computed_with_prefixes_stems_and_branches(
    tiny_models: Mapping[str, Path], model: str
) -> None:
    stage = _stage(tiny_models[model])
    loaded = stage.student.load()
    readings = read(loaded, stage.template.bound(loaded.tokenizer), stage.scorer, [*LINES, *VERSIONS])
    sequences = {one for reading in readings if isinstance(reading, Reading) for one in reading.sequences}
    lines = lines_of(list(sequences), 256)
    assert any(line.prefix and len(line.sequences) > 1 and line.stem for line in lines)
    assert any(not line.shares for line in lines)


def test_likelihoods_ranks_of_these_lines_are_certain_and_some_are_clipped(
    expected: Mapping[str, list[tuple[Told, ...] | str]],
) -> None:
    ranks = [rank for one in expected["llama"] if not isinstance(one, str) for rank in one[0].ranks]
    assert sum(least == greatest for least, greatest in ranks) > 0.95 * len(ranks)
    assert 0.1 < sum(least > CLIP for least, _ in ranks) / len(ranks) < 0.9


def test_likelihoods_ranks_are_clipped_at_the_setting(
    tiny_models: Mapping[str, Path], expected: Mapping[str, list[tuple[Told, ...] | str]]
) -> None:
    (one,) = _found(tiny_models["llama"], LINES[:1], rank_clip=3)
    wanted = expected["llama"][0]
    assert not isinstance(wanted, str)
    assert one.rank_y_given_x == pytest.approx(np.mean([min(rank, 3) for rank, _ in wanted[0].ranks]))


@pytest.mark.parametrize("model", ["llama", "gpt2", "qwen2"])
def test_likelihoods_end_of_sequence_is_scored_where_asked(
    tiny_models: Mapping[str, Path], naives: Mapping[str, Naive], model: str
) -> None:
    oracle = Oracle(naives[model], FIRST[model])
    for line, one in zip(LINES[:3], _found(tiny_models[model], LINES[:3], score_eos=True), strict=True):
        _assert_equal(one, oracle.four(line, eos=True))


@pytest.mark.parametrize("model", MODELS)
def test_likelihoods_of_each_token_are_kept_where_asked(
    tiny_models: Mapping[str, Path],
    naives: Mapping[str, Naive],
    expected: Mapping[str, list[tuple[Told, ...] | str]],
    model: str,
) -> None:
    for one, wanted in zip(_found(tiny_models[model], LINES, token_losses=True), expected[model], strict=False):
        assert not isinstance(wanted, str)
        columns = [getattr(one, name) for name in TOKEN_COLUMNS if name.endswith("losses")]
        for column, target in zip(columns, wanted, strict=True):
            assert column == pytest.approx(target.losses, rel=1e-4, abs=1e-5)
        tokenizer = naives[model].tokenizer
        assert list(one.y_tokens or ()) == [tokenizer.decode([token]) for token in wanted[0].ids]
        assert list(one.x_tokens or ()) == [tokenizer.decode([token]) for token in wanted[2].ids]
        to_table([one], LIKELIHOOD_SCHEMA)
    (bare,) = _found(tiny_models[model], LINES[:1])
    assert [getattr(bare, name) for name in TOKEN_COLUMNS] == [None] * 6


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("max_length", [24, 64])
def test_likelihoods_of_what_is_too_long_are_cut_as_the_oracle_cuts_and_told(
    tiny_models: Mapping[str, Path], naives: Mapping[str, Naive], model: str, max_length: int
) -> None:
    oracle = Oracle(naives[model], FIRST[model], max_length)
    lines = [LINES[0], _line("Say it again.", "hi " * 60), LINES[2], *VERSIONS]
    found = _found(tiny_models[model], lines, max_length=max_length)
    for line, one in zip(lines, found, strict=True):
        _assert_equal(one, oracle.four(line))
    assert any(one.context_truncated for one in found)
    assert found[1].target_truncated and found[1].status == "ok"


@pytest.mark.parametrize("model", MODELS)
def test_likelihoods_of_a_target_that_leaves_its_context_no_room_is_too_long(
    tiny_models: Mapping[str, Path], naives: Mapping[str, Naive], model: str
) -> None:
    """With no context left the two readings are one, and their ratio, 1, would win as difficult."""
    line = _line("Name a fruit.", "Eat a balanced diet and fruits.")
    by_id = ById(naives[model], FIRST[model])
    exact = len(by_id.first) + len(by_id.text_ids(PREFIX + line["response"]))
    statuses = []
    for max_length in (exact - 1, exact, exact + 1):
        (one,) = _found(tiny_models[model], [line], max_length=max_length)
        _assert_equal(one, Oracle(naives[model], FIRST[model], max_length).four(line))
        statuses.append((one.status, one.target_truncated))
    assert statuses == [("ok", True), ("too_long", False), ("ok", False)]


def test_likelihoods_unusable_texts_are_reasons_and_never_numbers(tiny_models: Mapping[str, Path]) -> None:
    lines = [_line("x", ""), _line("x", " \n"), _line("", "y"), _line(" \t", "y"), LINES[0]]
    found = _found(tiny_models["llama"], lines)
    assert [one.status for one in found] == ["empty_response"] * 2 + ["empty_instruction"] * 2 + ["ok"]
    for one in found[:4]:
        _assert_no_values(one)
        assert (one.tokens_y, one.tokens_x) == (0, 0)


def test_likelihoods_without_anything_to_predict_is_too_short(tiny_models: Mapping[str, Path]) -> None:
    (one,) = _found(tiny_models["plain"], [_line("x", "y")], prefix="")
    assert one.status == "too_short"
    _assert_no_values(one)


def test_likelihoods_broken_weights_are_a_reason(tiny_models: Mapping[str, Path]) -> None:
    stage = _stage(tiny_models["llama"], token_losses=True)
    loaded = stage.student.load()
    with torch.no_grad():
        loaded.model.model.norm.weight.fill_(float("nan"))
    for one in stage.likelihoods(stage.inference(loaded), LINES[:3]):
        assert one.status == "non_finite"
        _assert_no_values(one)


def test_likelihoods_one_line_more_changes_no_other(tiny_models: Mapping[str, Path]) -> None:
    few = _found(tiny_models["llama"], LINES[:3])
    many = _found(tiny_models["llama"], [_line("long " * 20, "word " * 60), *LINES])[1:4]
    for one, other in zip(few, many, strict=True):
        assert [getattr(one, name) for name in NAMES] == pytest.approx(
            [getattr(other, name) for name in NAMES], rel=1e-6
        )


@pytest.fixture(scope="module")
def llama(tiny_models: Mapping[str, Path], naives: Mapping[str, Naive]) -> tuple[Likelihoods, Inference, Oracle]:
    stage = _stage(tiny_models["llama"], batch_tokens=200)
    return stage, stage.inference(stage.student.load()), Oracle(naives["llama"], "<s>")


ODD = st.text(max_size=12) | st.sampled_from(
    [
        *("", " ", "\n\n", "\r\n\t", "\x00", "\u00a0", "\u200b", "\ufeff"),
        *("\U0001f468\u200d\U0001f469", "\U0001f600" * 5, "e\u0301", "\ud7ff\ue000"),
        *("\u05e9\u05dc\u05d5\u05dd", "\u202e\u0645\u0631\u062d\u0628\u0627"),
        *("</s>", "<s>", "<s></s>", "<pad>", "a</s>b", "<|im_start|>"),
        *("{instruction}", "{response}", "{input}", "{}", "### Response:", "### Instruction:\n", "\n\n### Response:"),
        *("Which instruction was it an answer to?", "Here is an answer:\n"),
    ]
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(lines=st.lists(st.tuples(ODD, ODD, ODD), min_size=1, max_size=4))
@example(lines=[("</s>", "<s> a", "{response}"), ("### Response:", "\u202eabc", "")])
@example(lines=[("word " * 20_000, "y", ""), ("x", "\U0001f600" * 50_000, "### Response:"), ("x", "y", "x " * 50_000)])
@example(lines=[("Repeat it", "Repeat it", "Repeat it\nRepeat it")])
def test_likelihoods_odd_texts_equal_the_oracles_or_have_a_reason(
    llama: tuple[Likelihoods, Inference, Oracle], lines: list[tuple[str, str, str]]
) -> None:
    stage, computing, oracle = llama
    rows = [_line(*line) for line in lines]
    for row, one in zip(rows, stage.likelihoods(computing, rows), strict=True):
        if not row["response"].strip():
            assert one.status == "empty_response"
            _assert_no_values(one)
        elif not row["instruction"].strip():
            assert one.status == "empty_instruction"
            _assert_no_values(one)
        else:
            _assert_equal(one, oracle.four(row))


def test_likelihoods_killed_go_on_at_the_shard_with_the_budget_found_before(
    store: Store, tmp_path: Path, tiny_models: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"instruction": line["instruction"], "output": line["response"]} for line in VERSIONS]
    write_json(tmp_path / "rows.json", rows)
    source = Source(data=Alpaca(path=tmp_path / "rows.json"))
    stage = dataclasses.replace(_stage(tiny_models["llama"]), rows=source, engine=Mortal(shard_rows=3, shards=2))
    other = Store(tmp_path / "unbroken")
    for one in (store, other):
        materialize(source, one)

    with monkeypatch.context() as patched:
        patched.setattr(inference, "_CPU_BUDGET", 64)  # as on a machine with less memory
        with pytest.raises(KilledError):
            materialize(stage, store)
        unbroken = materialize(dataclasses.replace(stage, engine=LocalEngine(shard_rows=3)), other).artifact
    left = Mortal(shard_rows=500, shards=6 - 2)
    resumed = materialize(dataclasses.replace(stage, engine=left), store)

    assert resumed.how == "resume" and resumed.artifact.provenance["notes"]["batch_tokens"] == 64
    for name in ("likelihoods.parquet", "record.json"):
        assert (resumed.artifact.folder / name).read_bytes() == (unbroken.folder / name).read_bytes()


@pytest.mark.parametrize("asked", [None, 777])
def test_likelihoods_budget_is_the_asked_one_or_the_devices(tiny_models: Mapping[str, Path], asked: int | None) -> None:
    stage = _stage(tiny_models["llama"], batch_tokens=asked)
    loaded = stage.student.load()
    assert stage.inference(loaded).batch_tokens == (asked or inference.found_budget(loaded))


@pytest.mark.slow
def test_likelihoods_of_real_rows_know_their_own_instructions(shared: Path) -> None:
    """On real text a response is likelier after its own instruction than after another row's, and vice versa."""
    drawn = json.loads((shared / "data" / "alpaca_subset_3111.json").read_text())
    rows = random.Random(0).sample([row for row in drawn if row["output"].strip()], 200)
    stage = dataclasses.replace(
        _stage(shared / "models" / "english_tiny", max_length=2048),
        template=instantiate(yaml.safe_load((ROOT / "conf/template/plain.yaml").read_text())),
        scorer=instantiate(yaml.safe_load((ROOT / "conf/scorer/default.yaml").read_text())),
    )
    own = [_line(row["instruction"], row["output"], input=row["input"]) for row in rows]
    mixed = [{**line, "response": rows[place - 1]["output"]} for place, line in enumerate(own)]
    computing = stage.inference(stage.student.load())
    found = list(stage.likelihoods(computing, [*own, *mixed]))
    assert [one.status for one in found] == ["ok"] * 400
    found_scores = scores({name: np.array([getattr(one, name) for one in found], dtype=float) for name in LIKELIHOODS})
    ifd, r_ifd = found_scores["ifd"], found_scores["r_ifd"]
    # Line 200 + i holds instruction i, and the response of the row before it.
    lower_ifd = np.mean(ifd[:200] < np.roll(ifd[200:], -1))
    lower_r_ifd = np.mean(r_ifd[:200] < r_ifd[200:])
    told = f"own IFD lower in {lower_ifd:.1%} of rows, own r-IFD in {lower_r_ifd:.1%}"
    assert lower_ifd >= 0.85 and lower_r_ifd >= 0.75, told
    assert computing.shares and computing.computed_tokens < 0.75 * computing.read_tokens
