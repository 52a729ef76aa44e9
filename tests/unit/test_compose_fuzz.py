"""Whatever stands in a configuration, it becomes an experiment or a line that says why not; nothing of it is called."""

import copy
import os
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from srecycle.compose import build, config_folder, guarded, worded
from srecycle.errors import UserError
from srecycle.experiment import Experiment
from tests.contract.source import ROOT

BASES = (
    [],
    ["data=alpaca", "data.path=/nowhere.json", "student=testbed_weak"],
    ["teacher=several", "trainer=sft_dpo"],
    ["teacher=openai", "teacher.model=m", "embedder=sentence_transformers", "embedder.path=/nowhere"],
    ["evaluator=[testbed,drift,answers]", "keep=[top,decorative,faithful,criteria]", "trainer=dpo"],
    ["selector@selector.response=rank_surprisal", "selector@selector.instruction=self_consistency", "engine=ray"],
)
TARGETS = (
    *("os.getlogin", "os.system", "builtins.eval", "subprocess.Popen", "", ".", "a..b", "srecycle.", "srecycle..keep"),
    *("srecycle.errors.UserError", "srecycle.digest.os.getlogin", "srecycle.teacher.__main__.main", "antigravity.x"),
    *(
        "srecycle.nowhere.X",
        "srecycle\0.x",
        "srecycle.stage.Stage",
        "srecycle.keep.ratios.RatioBelow",
        "hydra_plugins.x",
    ),
    *("srecycle.student.model.Student", "srecycle.experiment.Experiment", "srecycle.report.callback.Comparison"),
)
TEXTS = (
    *("", " ", "many", "???", "${seed}", "${nope}", "${name}", "${", "${}", "${a.${b}}", "\\${x}", "${oc.env:NOPE}"),
    *("${oc.env:HOME}", "${oc.decode:'{_target_:os.getlogin}'}", "${oc.create:{_target_:os.getlogin}}", "${data}"),
    *(
        "${srecycle.package:../..}",
        "${oc.select:nope,3}",
        "${now:%Y}",
        "${hydra:job.name}",
        "{instruction}",
        "{",
        "{0}",
    ),
    *("{x.__class__}", "../../etc/passwd", "/dev/null", "~nobody/x", "http://user:planted@host/", "http://[::1", "nan"),
    *(
        "1e999",
        "x" * 3000,
        "\0",
        "\x1b[31m",
        "a\nb",
        "\u2603",
        "\U0001d518",
        "\ud800",
        "cuda:99",
        "org/name",
        "-1",
        "true",
    ),
)
NUMBERS = (0, 1, -1, 2, 10**18, 2**63, -(10**30), 0.5, -0.5, 1e308, 5e-324, float("nan"), float("inf"), float("-inf"))
KEYS = (
    "_target_",
    "_args_",
    "_partial_",
    "_recursive_",
    "_convert_",
    "zzz",
    "path",
    "name",
    "",
    "x.y",
    "\u2603",
    "model",
)
LEAVES = st.sampled_from([None, True, False, *NUMBERS, *TEXTS]) | st.text(max_size=20)
NODES = st.sampled_from(TARGETS).map(lambda target: {"_target_": target, "x": 1})
VALUES = st.recursive(
    LEAVES | NODES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=6,
)
CHANGES = st.lists(
    st.tuples(st.integers(0), st.sampled_from(["set", "set", "set", "delete", "add", "aim", "deepen"]), VALUES),
    min_size=1,
    max_size=3,
)


@cache
def _trees() -> list[dict[str, Any]]:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        configs = [compose("config", ["tracker=none", *one]) for one in BASES]
    return [OmegaConf.to_container(one) for one in configs]  # type: ignore[misc]


def _places(node: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield (*place, key)
        yield from _places(value, (*place, key))


def _changed(tree: dict[str, Any], changes: list[tuple[int, str, Any]]) -> dict[str, Any]:
    tree = copy.deepcopy(tree)
    for number, how, value in changes:
        places = list(_places(tree))
        *way, last = places[number % len(places)]
        node: Any = tree
        for key in way:
            node = node[key]
        if how == "delete":
            del node[last]
        elif how == "add" and isinstance(node, dict):
            node[KEYS[number % len(KEYS)]] = value
        elif how == "aim" and isinstance(node[last], dict):
            node[last]["_target_"] = TARGETS[number % len(TARGETS)]
        elif how == "deepen":
            for _ in range((20, 60, 400)[number % 3]):
                value = [value] if number % 2 else {"a": value}
            node[last] = value
        else:
            node[last] = value
    return tree


def _assert_ends_well(base: int, changes: list[tuple[int, str, Any]]) -> None:
    """Build what a base becomes by changes: an experiment, or one line."""
    called: list[object] = []
    with pytest.MonkeyPatch.context() as patch, guarded():
        for name in ("getlogin", "system"):
            patch.setattr(os, name, lambda *given: called.append(given))
        try:
            mode, experiment = build(OmegaConf.create(_changed(_trees()[base], changes)))
            assert isinstance(experiment, Experiment) and mode in ("run", "plan")
        except UserError as error:
            _assert_line(str(error))
        except (OmegaConfBaseException, RecursionError) as error:  # of making the tree, where Hydra would compose it
            _assert_line(worded(error))
    assert called == []


def _assert_line(told: str) -> None:
    assert told.strip() and len(told) < 4000 and "planted" not in told
    # What the command prints has no line breaks; those that a value holds are written as such.
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", told), told


_FUZZED = given(base=st.integers(0, len(BASES) - 1), changes=CHANGES)


@settings(max_examples=50)
@_FUZZED
def test_configuration_changed_anyhow_is_an_experiment_or_a_line(base: int, changes: Any) -> None:
    _assert_ends_well(base, changes)


@pytest.mark.slow
@settings(max_examples=2000)
@_FUZZED
def test_configuration_changed_anyhow_often_is_an_experiment_or_a_line(base: int, changes: Any) -> None:
    _assert_ends_well(base, changes)


@pytest.mark.parametrize("name", ["mode", "seed", "group", "_target_"])
def test_build_without_a_value_that_all_need_names_it(name: str) -> None:
    tree = copy.deepcopy(_trees()[0])
    del tree[name]
    if name == "seed":
        tree = OmegaConf.to_container(OmegaConf.create(_trees()[0]), resolve=True)  # type: ignore[assignment]
        del tree[name]
    with pytest.raises(UserError, match=f"^{name} was taken out of the configuration"):
        build(OmegaConf.create(tree))


@pytest.mark.parametrize("key", ["_args_", "_partial_", "_recursive_", "_convert_"])
@pytest.mark.parametrize("value", [True, "x", [1]])
def test_build_settings_of_hydras_own_are_refused(key: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"^teacher\.{key} is refused"):
        build(OmegaConf.create(_trees()[0] | {"teacher": {**_trees()[0]["teacher"], key: value}}))


def test_build_refused_target_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    for target in ("srecycle.nowhere.X", "srecycle.teacher.__main__.main", "srecycle."):
        with pytest.raises(UserError, match="is refused"):
            build(OmegaConf.create(_trees()[0] | {"teacher": {"_target_": target}}))
    assert capfd.readouterr() == ("", "")


def test_build_long_values_and_many_complaints_are_told_in_part() -> None:
    tree = copy.deepcopy(_trees()[0])
    tree["teacher"] |= {f"odd_{number}": 1 for number in range(40)}
    with pytest.raises(UserError, match=r"teacher\.odd_4 .*; and 35 more of this kind$"):
        build(OmegaConf.create(tree))
    tree["teacher"], tree["trainer"]["rank"] = _trees()[0]["teacher"], "x" * 10**6
    with pytest.raises(UserError, match=r"trainer\.rank='x{199}\.\.\. \(1000002 characters\)"):
        build(OmegaConf.create(tree))


OVERRIDES = st.builds(
    lambda before, key, value: f"{before}{key}{value}",
    st.sampled_from(["", "", "", "+", "++", "~"]),
    st.sampled_from(
        [
            *(
                "data",
                "teacher",
                "keep",
                "evaluator",
                "selector",
                "selector@selector.response",
                "experiment",
                "name",
                "",
            ),
            *("seed", "mode", "until", "hydra/launcher", "hydra.job.name", "data.mix", "trainer.rank", "a.b.c", "a/b"),
            *("@", "a@b", ".", "x" * 300, "\u2603", "data.mix[0]", "teacher._target_", "student.path", "keep.nope.x"),
        ]
    ),
    st.sampled_from(
        [
            *("", "=", "=null", "=[]", "=[", "={", "={a:1}", "=[{a:1}]", "={_target_:os.getlogin}", "=1e999", "=nan"),
            *(
                "=a,b",
                "=choice(1,2)",
                "=range(1,3)",
                "=extend_list(1)",
                "=int(x)",
                "=glob(*)",
                "=[none,nope]",
                "=../data",
            ),
            *("=${seed}", "=${nope}", "=${", "='${'", "=${oc.env:NOPE}", "=\x1b[31m", "=a\nb", "='", "=" + "x" * 3000),
            *(
                "=" + "[" * 300 + "]" * 300,
                "=" + "{a:" * 120 + "1" + "}" * 120,
                "=" + "9" * 400,
                "=//u:planted@h",
                "=-1",
            ),
        ]
    ),
)


def _assert_composes_or_says_why(overrides: list[str]) -> None:
    try:
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            config = compose("config", ["tracker=none", *overrides])
            with guarded():
                build(config)
    except UserError as error:
        _assert_line(str(error))
    except Exception as error:  # noqa: BLE001 - whatever Hydra meets what it can't compose with
        _assert_line(worded(error))


@settings(max_examples=15)
@given(st.lists(OVERRIDES, min_size=1, max_size=2))
@example(["+=x"])
@example(["embedder=[{a:1}]"])
@example([f"{'x' * 300}=1"])
@example(["data=${"])
@example(["data=\x1b[31m"])
@example(["keep={a:" + "{a:" * 150 + "1" + "}" * 151])
def test_overrides_of_any_form_compose_or_are_a_line(overrides: list[str]) -> None:
    _assert_composes_or_says_why(overrides)


@pytest.mark.slow
@settings(max_examples=600)
@given(st.lists(OVERRIDES, min_size=1, max_size=3))
def test_many_overrides_of_any_form_compose_or_are_a_line(overrides: list[str]) -> None:
    _assert_composes_or_says_why(overrides)


def test_worded_missing_option_lists_those_there_are() -> None:
    with initialize_config_dir(str(config_folder()), version_base="1.3"), pytest.raises(OSError) as missed:
        compose("config", ["trainer=lorra"])
    told = worded(missed.value)
    assert told.startswith("there is no trainer/lorra: choose one of ") and "lora" in told and str(ROOT) not in told
