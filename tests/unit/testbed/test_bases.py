"""The shipped bases, their manifest, the tokenizer, and what the curriculum may and may not say."""

import hashlib
import json
import random
import re
from collections import Counter
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from srecycle.testbed import pretrain
from srecycle.testbed.curriculum import documents
from srecycle.testbed.format import forward_prompt, reversed_prompt
from srecycle.testbed.heldout import SPLITS
from srecycle.testbed.measure import accuracy
from srecycle.testbed.originals import originals
from srecycle.testbed.script import SLOPPY, reflect_instruction, reflect_response
from srecycle.testbed.vocabulary import build_tokenizer
from srecycle.testbed.world import HELD_OUT_PAIRS, OPERATIONS, operations_of

BASES = Path(pretrain.__file__).parent / "bases"
MANIFEST = json.loads((BASES / "manifest.json").read_text())
PHRASES = {phrase: name for name, operation in OPERATIONS.items() for phrase in operation.phrases}
PHRASE = re.compile("|".join(sorted(map(re.escape, PHRASES), key=len, reverse=True)))


def test_manifest_names_both_students_and_every_shipped_file():
    assert set(MANIFEST) == {"weak", "strong"} < set(pretrain.STUDENTS)
    for student, entry in MANIFEST.items():
        assert {path.name for path in (BASES / student).iterdir()} == set(entry["files"])


@pytest.mark.parametrize("student", MANIFEST)
def test_manifest_digests_are_those_of_the_shipped_files(student):
    for name, digest in MANIFEST[student]["files"].items():
        assert hashlib.sha256((BASES / student / name).read_bytes()).hexdigest() == digest, name


@pytest.mark.parametrize("student", MANIFEST)
def test_manifest_base_mostly_does_not_answer_but_could(student):
    untuned, opened = MANIFEST[student]["accuracy"], MANIFEST[student]["accuracy_opened"]
    assert set(untuned) == set(opened) == set(SPLITS)
    assert sum(untuned.values()) / len(SPLITS) < 0.15 < 0.4 < sum(opened.values()) / len(SPLITS)


@pytest.mark.parametrize("student", MANIFEST)
def test_base_loads_in_float32_beside_the_tokenizer_that_is_built_today(student):
    model = AutoModelForCausalLM.from_pretrained(BASES / student)
    tokenizer = AutoTokenizer.from_pretrained(BASES / student)
    assert model.dtype == torch.float32
    assert tokenizer.get_vocab() == build_tokenizer().get_vocab()
    assert model.config.vocab_size == len(tokenizer)
    assert sum(parameter.numel() for parameter in model.parameters()) == MANIFEST[student]["parameters"]


def test_base_measured_again_has_about_the_skill_of_its_manifest():
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(BASES / "weak").eval()
    tokenizer = AutoTokenizer.from_pretrained(BASES / "weak")
    entry = MANIFEST["weak"]
    found = accuracy(model, tokenizer, opened=True, count=40, seed=entry["test"]["seed"])
    for split, value in entry["accuracy_opened"].items():
        assert found[split] == pytest.approx(value, abs=0.2)


def test_tokenizer_round_trips_words_and_adds_nothing():
    tokenizer = build_tokenizer()
    text = "question : take 3 6 , 4 and reverse the list . reply : lol"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert len(ids) == len(text.split())
    assert tokenizer("<s> 3")["input_ids"][0] == tokenizer.bos_token_id
    assert tokenizer("zebra")["input_ids"] == [tokenizer.unk_token_id]


def test_tokenizer_knows_every_word_of_originals_rewrites_and_curriculum():
    rng, knobs = random.Random(0), replace(SLOPPY, unparsable=0.0, uses_unknown=0.5)
    texts = list(islice(documents(pretrain.STUDENTS["weak"].mixture, rng), 2000))
    for row in originals(400, 3):
        texts += [forward_prompt(row.instruction), reversed_prompt(row.response)]
        for reply in (
            reflect_instruction(row.instruction, row.response, knobs, rng),
            reflect_response(row.instruction, row.response, knobs, rng),
        ):
            texts += re.findall(r"\]\n(.+)\n\[End\]", reply)
    tokenizer = build_tokenizer()
    assert set(" ".join(texts).split()) <= set(tokenizer.get_vocab())


def test_curriculum_holds_no_unseen_pair_and_no_unknown_operation():
    rng = random.Random(1)
    for student in pretrain.STUDENTS.values():
        for text in islice(documents(student.mixture, rng), 2500):
            for chain in text.split("reply :"):
                names = [PHRASES[phrase] for phrase in PHRASE.findall(chain)]
                assert not set(pairwise(names)) & HELD_OUT_PAIRS, text
                assert not set(names) & set(operations_of("unknown")), text


def test_curriculum_holds_all_four_forms_and_few_answers():
    rng = random.Random(2)
    texts = list(islice(documents(pretrain.STUDENTS["weak"].mixture, rng), 4000))
    counts = Counter(
        "reversed" if text.startswith(reversed_prompt("")[:30]) else "forward" if "reply :" in text else "bare"
        for text in texts
    )
    assert min(counts.values()) > 300
    replies = [text.split("reply : ")[1] for text in texts if "reply :" in text and "guess" not in text]
    assert 0.15 < sum(reply.endswith(".") and "wonder" not in reply for reply in replies) / len(replies) < 0.6


def test_base_of_another_seed_has_a_name_of_its_own():
    assert [pretrain.base_name("weak", seed) for seed in (0, 1)] == ["weak", "weak_1"]


def test_bases_built_for_studies_are_those_of_their_manifest():
    """Not shipped with the package: experiments/bases, where they were built."""
    folder = BASES.parents[2] / "experiments" / "bases"
    if not (folder / "manifest.json").is_file():
        pytest.skip("no bases were built for the studies (experiments/bases)")
    for name, entry in json.loads((folder / "manifest.json").read_text()).items():
        for file, digest in entry["files"].items():
            assert hashlib.sha256((folder / name / file).read_bytes()).hexdigest() == digest, f"{name}/{file}"
        mean = {figure: sum(entry[figure].values()) / len(SPLITS) for figure in ("accuracy", "accuracy_opened")}
        assert mean["accuracy"] < 0.15 < mean["accuracy_opened"], name


def test_pretraining_same_seed_gives_same_weights_and_a_lower_loss():
    torch.set_num_threads(1)
    short = replace(pretrain.STUDENTS["weak"], steps=3, first_steps=1, documents_per_step=16, width=32, layers=1)
    first, second, other = (pretrain.pretrain(short, seed)[0].state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
