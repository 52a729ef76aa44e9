"""Replies carried between stores, and the command that does it."""

import json
from pathlib import Path

import pytest

from srecycle.teacher import Ledger, Reply
from srecycle.teacher.__main__ import main
from srecycle.teacher.ledger import ledger_key


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Make a store with three replies and a failure."""
    folder = tmp_path / "full"
    folder.mkdir()
    with Ledger(folder / "ledger.sqlite") as ledger:
        for number in range(3):
            _keep(ledger, number)
        ledger.fail("x", attempt=1, error="e", seconds=1, provider="p", model="m", usd=0.125)
    return folder


def _request(number: int) -> dict[str, object]:
    return {"model": "m", "messages": [{"role": "user", "content": f"é{number}"}]}


def _keep(ledger: Ledger, number: int, text: str = "\u2028 reply\n") -> None:
    reply = Reply(text=f"{text}{number}", finish_reason="length", input_tokens=10, output_tokens=5, usd=0.5)
    key = ledger_key("p", _request(number), number)
    ledger.keep(
        key, reply, provider="p", request=_request(number), seconds=2, attempts=3, sample=number, reasoning_tokens=4
    )


def _rows(store: Path) -> list[dict[str, object]]:
    with Ledger(store / "ledger.sqlite") as ledger:
        return [line | {"imported": 0} for line in ledger.rows("SELECT * FROM replies ORDER BY key")]


def test_export_and_import_carry_everything_and_known_replies_stand(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, other = tmp_path / "replies.jsonl", tmp_path / "other"
    assert main(["export", str(file), str(store)]) == 0
    assert file.stat().st_mode & 0o777 == 0o600
    other.mkdir()
    with Ledger(other / "ledger.sqlite") as ledger:
        _keep(ledger, 1, text="mine")
    assert main(["import", str(file), str(other)]) == 0
    assert "2 replies are new, 1 were known, 0 lines refused" in capsys.readouterr().err
    with Ledger(other / "ledger.sqlite") as ledger:
        found = ledger.find(ledger_key("p", _request(1), 1))
        assert found is not None and found.text == "mine1"
        assert ledger.spent("p") == 0.5, "what others paid is not spent here"
    assert main(["import", str(file), str(tmp_path / "empty")]) == 0
    assert _rows(tmp_path / "empty") == _rows(store)


def test_import_refuses_wrong_lines_and_leaves_a_torn_one_out(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, other = tmp_path / "replies.jsonl", tmp_path / "other"
    main(["export", str(file), str(store)])
    first, second, third = file.read_text().split("\n")[:3]
    forged = json.dumps(json.loads(first) | {"request": {"model": "better"}})
    unpriced = json.dumps(json.loads(second) | {"usd": -1})
    file.write_text("\n".join([forged, unpriced, "{}", "", second, third[:-20]]))
    assert main(["import", str(file), str(other)]) == 1
    said = capsys.readouterr().err
    assert "1 replies are new, 0 were known, 3 lines refused; its last line is cut, and was left out" in said
    assert len(_rows(other)) == 1


def test_import_refuses_numbers_that_no_ledger_holds(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, other = tmp_path / "replies.jsonl", tmp_path / "other"
    main(["export", str(file), str(store)])
    first, second, third = file.read_text().split("\n")[:3]
    huge = json.dumps(json.loads(first) | {"input_tokens": 2**70})
    endless = json.dumps(json.loads(second) | {"request": {"temperature": float("inf")}})
    file.write_text("\n".join([huge, endless, third, ""]))
    assert main(["import", str(file), str(other)]) == 1
    assert "1 replies are new, 0 were known, 2 lines refused" in capsys.readouterr().err


def test_import_of_a_file_that_is_no_export_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.json"
    file.write_text('[{"instruction": "i", "output": "o"}]')
    assert main(["import", str(file), str(tmp_path / "other")]) != 0
    assert "holds no replies" in capsys.readouterr().err


def test_show_adds_up_by_provider_and_model(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Ledger(store / "ledger.sqlite") as ledger:
        ledger.keep("z", Reply(text=""), provider="q", request={"model": "n"}, seconds=1, attempts=1)
    assert main(["show", str(store)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[-2:] == [
        ["p", "m", "3", "0", "30", "15", "12", "1.5000", "1", "0.1250"],
        ["q", "n", "1", "0", "0", "0", "0", "0.0000", "0", "0.0000"],
    ]


def test_command_mistakes_are_one_line(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        (["show", str(tmp_path / "nowhere")], "has no ledger: give a STORE"),
        (["export", str(tmp_path / "x.jsonl"), str(tmp_path / "nowhere")], "has no ledger"),
        (["export", str(store / "ledger.sqlite"), str(store)], "exists already"),
        (["export", str(tmp_path / "no" / "x.jsonl"), str(store)], "can't be written: No such file"),
        (["import", str(tmp_path / "none.jsonl"), str(store)], "can't be read: No such file"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1 and error.startswith("srecycle-ledger: error: ")
    assert not (tmp_path / "nowhere").exists()
