"""Finding tasks by name: as the harness does, in a fraction of its time, and with none of its imports."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from srecycle.errors import UserError
from srecycle.evaluator.lm_eval_tasks import Catalogue, digest, folders


@pytest.mark.parametrize(
    ("name", "count", "some"),
    [
        ("arc_challenge", 1, "arc_challenge"),
        ("mmlu", 57, "mmlu_high_school_world_history"),
        ("leaderboard_musr", 3, "leaderboard_musr_murder_mysteries"),
        ("mmlu_stem", 19, "mmlu_anatomy"),
    ],
)
def test_catalogue_knows_tasks_and_groups(name: str, count: int, some: str) -> None:
    tasks = [one.name for one in Catalogue().tasks(name)]
    assert len(tasks) == len(set(tasks)) == count and some in tasks


@pytest.mark.slow
def test_catalogue_has_the_same_tasks_as_the_whole_index_of_the_harness() -> None:
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._index import Kind

    index = TaskManager().task_index

    def tasks(name: str) -> list[str]:
        entry = index[name]
        if entry.kind is Kind.TAG:
            return sorted(entry.tags)
        if entry.kind is not Kind.GROUP:
            return [name]
        members = [one if isinstance(one, str) else one.get("group") or one["task"] for one in entry.cfg["task"] or ()]
        return list(dict.fromkeys(task for one in members if one in index for task in tasks(one)))

    # Some of each family and kind: all 228 of them take more than a minute of computing.
    families = ("mmlu", "arc", "leaderboard", "truthfulqa", "openllm", "bbh", "hellaswag", "glue")
    chosen = ["mmlu", "mmlu_stem"] + [
        name
        for family in families
        for kind in (Kind.GROUP, Kind.TAG)
        for name in [one for one, entry in index.items() if entry.kind is kind and one.startswith(family)][:3]
    ]
    assert {index[name].kind for name in chosen} == {Kind.GROUP, Kind.TAG} and len(chosen) > 20
    for name in chosen:
        assert [one.name for one in Catalogue().tasks(name)] == tasks(name), name


_TIMED = """
import json, sys, time
from srecycle.config import fingerprint, identity
from srecycle.evaluator.lm_eval import LMEval
started = time.perf_counter()
fingerprint(identity(LMEval(tasks=("arc_challenge", "hellaswag", "truthfulqa_mc2"))))
print(json.dumps([time.perf_counter() - started, sorted(sys.modules)]))
"""


def test_identity_of_shipped_tasks_is_found_quickly_and_without_the_harness() -> None:
    done = subprocess.run([sys.executable, "-c", _TIMED], capture_output=True, text=True, check=True)
    seconds, modules = json.loads(done.stdout)
    assert not {"torch", "lm_eval", "datasets", "transformers"} & set(modules)
    assert seconds < 2, "the whole index takes five"


def test_catalogue_indexes_only_the_folders_that_are_needed() -> None:
    closure = [one for name in ("arc_challenge", "mmlu") for one in Catalogue().closure(name)]
    assert [Path(one).name for one in folders(closure)] == ["arc", "default"]


def _write(folder: Path, name: str, **content: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content))
    return folder


def test_catalogue_takes_a_local_task_before_the_shipped_one(tmp_path: Path) -> None:
    folder = _write(tmp_path / "tasks", "arc.yaml", task="arc_challenge", doc_to_text="mine", tag="ours")
    _write(folder, "more.yaml", include="arc.yaml", task="another")
    catalogue = Catalogue(folder)
    assert catalogue.find("arc_challenge").content["doc_to_text"] == "mine"
    assert [one.name for one in catalogue.tasks("ours")] == ["another", "arc_challenge"]
    assert catalogue.find("another").content["doc_to_text"] == "mine"


def test_catalogue_name_not_found_tells_what_could_not_be_read(tmp_path: Path) -> None:
    folder = _write(tmp_path / "tasks", "good.yaml", task="good")
    (folder / "broken.yaml").write_text("task: [broken\n")
    with pytest.raises(UserError, match=r"no task brokn.*unreadable here: .*broken\.yaml"):
        Catalogue(folder).find("brokn")


def test_digest_follows_what_a_task_includes_and_the_code_beside_it(tmp_path: Path) -> None:
    folder = _write(tmp_path / "tasks", "base", output_type="multiple_choice")
    (folder / "code.py").write_text("def f(doc): return doc\n")
    (folder / "mine.yaml").write_text("include: base\ntask: mine\nprocess_docs: !function code.f\n")
    (folder / "other.yaml").write_text("task: other\n")

    def now() -> str:
        return digest(Catalogue(folder).closure("mine"))

    seen = [now()]
    (folder / "other.yaml").write_text("task: other\ndoc_to_text: changed\n")
    assert now() == seen[0]
    for name, text in (("base", '{"output_type": "generate_until"}'), ("code.py", "def f(doc): return 1\n")):
        (folder / name).write_text(text)
        seen.append(now())
    assert len(set(seen)) == 3
