"""The shipped plain text: statements of the world, drawn anew, in a form that no prompt or answer has."""

import random

from hydra import compose, initialize_config_dir

from srecycle.compose import PACKAGE, build
from srecycle.experiment import Experiment
from srecycle.testbed.curriculum import Mixture, documents
from srecycle.testbed.vocabulary import build_tokenizer
from tests.conftest import ROOT

FILE = PACKAGE / "testbed" / "statements.txt"


def test_statements_are_what_the_curriculum_draws_from_a_seed_of_their_own() -> None:
    mixture = Mixture(shares={"statement": 1.0}, partial_weight=0.3, operation_counts={1: 0.5, 2: 0.35, 3: 0.15})
    drawn = documents(mixture, random.Random("untouched text"))
    text = FILE.read_text(encoding="utf-8")
    assert text == "".join(f"{next(drawn)}\n" for _ in range(300))
    assert not {"question", "reply"} & set(text.split()), "a prompt is among them"


def test_statements_are_all_known_words() -> None:
    tokenizer = build_tokenizer()
    words = FILE.read_text(encoding="utf-8").split()
    ids = tokenizer(" ".join(words), add_special_tokens=False)["input_ids"]
    assert len(ids) == len(words) > 5000 and tokenizer.unk_token_id not in ids


def test_every_round_of_the_iterated_experiment_reads_them() -> None:
    with initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):
        _, experiment = build(compose("config", ["experiment=iterated"]))
    assert isinstance(experiment, Experiment)
    read = {name: getattr(one, "text_path", None) for name, one in experiment.in_round([]).evaluator.items()}
    assert {name: path for name, path in read.items() if path} == {"drift": FILE, "drift_first": FILE}
