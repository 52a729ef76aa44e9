"""The blinded sheet: what annotators see, what the key knows, and what hostile answers can do (nothing)."""

import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from srecycle.errors import UserError
from srecycle.evaluator.answers import ANSWER_SCHEMA, Answer
from srecycle.evaluator.prompts import read_prompts
from srecycle.judge.__main__ import main
from srecycle.judge.pairs import Pair
from srecycle.judge.sheet import COLUMNS, Key, defused, read_key, write_sheets
from srecycle.store import Store

HOSTILE = (
    "</div></form><script>alert(1)</script><img src=x onerror=alert(1)>",
    '=HYPERLINK("http://example.org","here")',
    "+1\n@SUM(A1);=1+1\t-2",
    '" onclick="alert(1)',
    "\u202eright to left, é, \U0001f600",
)
NAMES = ("secret recycled run", "secret baseline run")


def _pairs(count: int = 20) -> list[Pair]:
    return [
        Pair(id=f"id{place}", position=place, question=f"q{place}", own=f"A{place}", other=f"B{place}")
        for place in range(count)
    ]


def _written(folder: Path, pairs: list[Pair], **fields: Any) -> tuple[Path, Key]:
    settings: dict[str, Any] = {"rows": None, "annotators": 2, "seed": 0} | fields
    write_sheets(pairs, NAMES, folder, **settings)
    return folder, read_key(folder / "key.json")


def _lines(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        self._inside = dict(attributes).get("class") == "text"
        if self._inside:
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, text: str) -> None:
        if self._inside:
            self.texts[-1] += text


def test_sheet_hides_whose_an_answer_is_and_the_key_knows(tmp_path: Path) -> None:
    folder, key = _written(tmp_path / "s", _pairs())
    assert sorted(path.name for path in (folder / "sheets").iterdir()) == [
        f"annotator_{number}.{kind}" for number in (1, 2) for kind in ("csv", "html")
    ]
    for number, (name, own_first) in enumerate(key.own_first.items(), start=1):
        path = folder / f"sheets/annotator_{number}.csv"
        lines = _lines(path)
        assert tuple(lines[0]) == COLUMNS and {line["sheet"] for line in lines} == {name}
        for line in lines:
            place = key.rows[line["row"]].removeprefix("id")
            first, second = ("A", "B") if own_first[line["row"]] else ("B", "A")
            assert (line["question"], line["answer_1"], line["answer_2"], line["preference"]) == (
                f"q{place}",
                first + place,
                second + place,
                "",
            )
        for file in (path, path.with_suffix(".html")):
            text = file.read_text()
            assert "secret" not in text and not re.search(r"\bid\d+\b", text)
    assert (key.own, key.other) == NAMES


def test_sheet_shows_each_side_first_as_often_and_otherwise_for_each_annotator(tmp_path: Path) -> None:
    _, key = _written(tmp_path / "s", _pairs(), annotators=3)
    orders = [tuple(order.values()) for order in key.own_first.values()]
    assert [sum(order) for order in orders] == [10, 10, 10] and len(set(orders)) == 3
    assert list(key.rows.values()) != [pair.id for pair in _pairs()], "rows in the order of their file"


def test_sheet_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    folders = [_written(tmp_path / str(place), _pairs(), rows=7, seed=seed)[0] for place, seed in enumerate((0, 0, 1))]
    first, second, other = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")} for folder in folders
    )
    assert first == second and len(first) == 5
    assert all(first[name] != other[name] for name in first)
    assert len(read_key(folders[0] / "key.json").rows) == 7


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_sheet_has_no_cell_that_begins_a_formula_however_it_is_split(tmp_path: Path, separator: str) -> None:
    hostile = [Pair(id=str(n), position=n, question=text, own=text, other="x") for n, text in enumerate(HOSTILE)]
    folder, _ = _written(tmp_path / "s", hostile)
    text = (folder / "sheets/annotator_1.csv").read_bytes().decode("utf-8-sig")
    cells = [cell for line in csv.reader(io.StringIO(text, newline=""), delimiter=separator) for cell in line]
    cells += [cell for line in text.splitlines() for cell in line.split(separator)] if separator != "," else []
    assert not [cell for cell in cells if cell.strip().strip('"').startswith(("=", "+", "-", "@"))]
    shown = {line["question"].replace("'", "") for line in _lines(folder / "sheets/annotator_1.csv")}
    assert shown == {text.replace("'", "") for text in HOSTILE}


@given(st.text(alphabet=st.sampled_from("=+-@;\t\r\n 'a")))
@example("=1")
@example(" \n -1")
def test_defused_text_differs_by_apostrophes_only(text: str) -> None:
    written = defused(text)
    assert written.replace("'", "") == text.replace("'", "")
    for part in re.split(r"[;\t\r\n]", written):
        assert not part.strip().startswith(("=", "+", "-", "@"))
    assert defused("a-b = c, d") == "a-b = c, d"


def test_page_shows_hostile_answers_as_text_and_runs_only_its_own_script(tmp_path: Path) -> None:
    hostile = [Pair(id=str(n), position=n, question=text, own=text, other="x") for n, text in enumerate(HOSTILE)]
    folder, key = _written(tmp_path / "s", hostile)
    text = (folder / "sheets/annotator_1.html").read_text(encoding="utf-8")
    page = _Page(text)
    names = [name for name, _ in page.tags]
    assert names.count("script") == names.count("form") == 1 and "img" not in names
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert not [1 for _, attributes in page.tags if {"src", "href"} & set(attributes)], "the page fetches something"
    policy = next(one["content"] for name, one in page.tags if name == "meta" and "http-equiv" in one)
    assert policy is not None and "default-src 'none'" in policy and "script-src 'sha256-" in policy
    assert set(page.texts) == {*HOSTILE, "x"}
    choices = [one["value"] for name, one in page.tags if name == "input"]
    assert choices == ["1", "tie", "2"] * len(key.rows)


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
def test_page_script_writes_cells_as_the_sheet_does(tmp_path: Path) -> None:
    import srecycle.judge.sheet as module

    script = (Path(module.__file__).parent / "templates/sheet.js").read_text()
    cell = re.search(r"^function cell.*?^}", script, re.DOTALL | re.MULTILINE)
    assert cell
    texts = ["=1+1", 'a "quoted" one; =2', "fine - so", "\n@x", "a\t-1"]
    code = f"{cell[0]}\nconsole.log(JSON.stringify({json.dumps(texts)}.map(cell)));"
    done = subprocess.run(["node", "-e", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [f'"{defused(one)}"'.replace('"', '""')[1:-1] for one in texts]


def test_sheet_refuses_a_folder_with_labels_and_rows_that_are_not_there(tmp_path: Path) -> None:
    folder, _ = _written(tmp_path / "s", _pairs())
    before = (folder / "sheets/annotator_1.csv").read_bytes()
    with pytest.raises(UserError, match="holds a study already"):
        _written(folder, _pairs(5))
    assert (folder / "sheets/annotator_1.csv").read_bytes() == before
    without = Pair(id="x", position=9, question="q", own="", other="b", status="no_answer")
    with pytest.raises(UserError, match="21 rows are asked for, but 20 prompts have an answer of both sides"):
        _written(tmp_path / "t", [without, *_pairs()], rows=21)
    with pytest.raises(UserError, match="but 0 prompts"):
        _written(tmp_path / "t", [without])
    assert not (tmp_path / "t").exists()


def _records(path: Path, *records: Mapping[str, str]) -> str:
    path.write_text(json.dumps(list(records)))
    return str(path)


def test_sheet_command_takes_two_files_of_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions = [{"instruction": f"q{place}"} for place in range(4)]
    own = _records(tmp_path / "a.json", *(one | {"output": f"A {one['instruction']}"} for one in questions))
    other = _records(tmp_path / "b.json", *(one | {"output": f"B {one['instruction']}"} for one in questions[:3]))
    prompts = _records(tmp_path / "p.json", *questions)
    command = ["sheet", own, other, "--prompts", prompts, "--out", str(tmp_path / "s"), "--annotators", "1"]
    assert main(command) == 0
    said = capsys.readouterr().err
    assert "1 of 4 prompts lack an answer" in said and "key.json: keep it from the annotators" in said
    assert {line["question"] for line in _lines(tmp_path / "s/sheets/annotator_1.csv")} == {"q0", "q1", "q2"}
    assert main(command) == 2 and "holds a study already" in capsys.readouterr().err
    turns = tmp_path / "t.jsonl"
    turns.write_text('{"turns": ["a", "b"]}\n')
    assert main([*command[:4], str(turns), "--out", str(tmp_path / "u")]) == 2
    assert "have several turns" in capsys.readouterr().err


def _run(store: Store, name: str, max_new_tokens: int, answers: Mapping[str, str]) -> None:
    """Write a finished run that kept answers, as a run leaves it."""
    folder, _, _ = store.begin("evaluate", name)
    given = [
        Answer(
            id=prompt.id,
            position=prompt.position,
            turn=0,
            instruction=prompt.question,
            input="",
            text=answers[prompt.question],
            status="ok",
            finish_reason="stop",
            input_tokens=1,
            output_tokens=1,
        )
        for prompt in read_prompts(store.root.parent / "p.json")
    ]
    pq.write_table(
        pa.Table.from_pylist([asdict(one) for one in given], schema=ANSWER_SCHEMA), folder / "answers.parquet"
    )
    settings = {"max_new_tokens": max_new_tokens, "temperature": 0.0, "top_p": None, "seed": 0, "stop": []}
    store.commit("evaluate", name, {"evaluator": settings}, {}, {})
    told = {"id": f"id-{name}", "name": name, "status": "finished", "stages": [{"stage": "evaluate", "key": name}]}
    (store.root / "runs" / name).mkdir(parents=True)
    (store.root / "runs" / name / "run.json").write_text(json.dumps(told))


def test_sheet_command_takes_runs_that_answered_alike(
    tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = _records(tmp_path / "p.json", {"text": "q0"}, {"text": "q1"})
    for name, tokens in (("one", 8), ("two", 8), ("three", 9)):
        _run(store, name, tokens, {question: f"{name} says {question}" for question in ("q0", "q1")})

    def sheet(own: str, other: str) -> int:
        return main(["sheet", own, other, "--prompts", prompts, "--out", str(tmp_path / f"{Path(own).stem}-{other}")])

    assert sheet("one", "three") == 2 and "answered with other settings" in capsys.readouterr().err
    assert sheet("one", "four") == 2 and "no finished run four" in capsys.readouterr().err
    assert sheet("one", "id-two") == 0
    (line, _) = _lines(tmp_path / "one-id-two/sheets/annotator_3.csv")
    question = line["question"]
    assert {line["answer_1"], line["answer_2"]} == {f"one says {question}", f"two says {question}"}
    answers = _records(tmp_path / "a.json", {"text": "q0", "output": "somebody else"})
    assert sheet(answers, "three") == 0, "a file's answers go with any run's"
