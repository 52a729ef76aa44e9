"""The Batch API teacher against a real server on this machine: nothing is paid twice, nothing is lost."""

import json
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from srecycle.compose import build, config_folder
from srecycle.errors import UserError
from srecycle.stage import materialize
from srecycle.store import Store
from srecycle.teacher import Ledger
from srecycle.teacher.batch import OpenAIBatchTeacher
from srecycle.teacher.batch_journal import Journal
from srecycle.teacher.openai import OpenAITeacher
from tests.faulty_server import reflection
from tests.unit.teacher.asking import requests
from tests.unit.teacher.batch_endpoint import Endpoint, Line, bad, good

KEY = "sk-secret-of-this-test"
ROOT = Path(__file__).parents[3]
TEXTS = ("a", "b", "c", "d")


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("srecycle.teacher.batch_run._DOUBT", 0.3)
    monkeypatch.setattr("srecycle.teacher.batch_server.LONGEST_PAUSE", 0.02)
    monkeypatch.setattr("srecycle.teacher.batch_server.PATIENCE", 3)
    endpoint = Endpoint()
    yield endpoint
    endpoint.http.shutdown()
    endpoint.http.server_close()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        yield ledger


def _teacher(endpoint: Endpoint, tmp_path: Path, **fields: Any) -> OpenAIBatchTeacher:
    settings: dict[str, Any] = {
        "model": "m",
        "base_url": endpoint.url,
        "provider": "p",
        "attempts": 3,
        "usd_per_million_input_tokens": 0.15,
        "usd_per_million_output_tokens": 2.0,
        "journal": tmp_path / "batches.sqlite",
        "poll_seconds": 0.01,
    }
    return OpenAIBatchTeacher(**settings | fields)


def _states(tmp_path: Path) -> list[str]:
    with sqlite3.connect(tmp_path / "batches.sqlite") as connection:
        return [state for (state,) in connection.execute("SELECT state FROM batches ORDER BY rowid")]


def _failures(tmp_path: Path) -> list[tuple[str, int]]:
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        return connection.execute("SELECT error, attempt FROM failures ORDER BY rowid").fetchall()


def test_replies_come_in_order_at_half_the_price(endpoint: Endpoint, ledger: Ledger, tmp_path: Path) -> None:
    replies = _teacher(endpoint, tmp_path).replies(requests(*TEXTS, "a"), ledger)
    assert [reply.text for reply in replies] == ["re: a", "re: b", "re: c", "re: d", "re: a"]
    assert [reply.paid for reply in replies] == [True, True, True, True, False]
    assert replies[0].usd == pytest.approx((1000 * 0.15e-6 + 100 * 2e-6) / 2)
    assert endpoint.asked == [list(TEXTS)] and _states(tmp_path) == ["done"]


def test_replies_are_shared_with_the_synchronous_teacher(endpoint: Endpoint, ledger: Ledger, tmp_path: Path) -> None:
    _teacher(endpoint, tmp_path).replies(requests("a"), ledger)
    other = OpenAITeacher(model="m", base_url="http://127.0.0.1:9/v1", provider="p")
    assert [reply.text for reply in other.replies(requests("a"), ledger)] == ["re: a"]
    assert [one.row_id for one in _teacher(endpoint, tmp_path).outstanding(requests("a", "b"), ledger)] == ["b"]


def test_replies_second_time_hand_nothing_over(endpoint: Endpoint, ledger: Ledger, tmp_path: Path) -> None:
    _teacher(endpoint, tmp_path).replies(requests("a", "b"), ledger)
    calls = len(endpoint.calls)
    again = _teacher(endpoint, tmp_path).replies(requests("b", "a"), ledger)
    assert [reply.text for reply in again] == ["re: b", "re: a"] and len(endpoint.calls) == calls
    assert not any(reply.paid for reply in again)


def test_replies_are_split_by_count_and_bytes(endpoint: Endpoint, ledger: Ledger, tmp_path: Path) -> None:
    _teacher(endpoint, tmp_path, batch_requests=3).replies(requests(*"abcdefg"), ledger)
    assert endpoint.asked == [list("abc"), list("def"), ["g"]]
    one = len(endpoint.files["file-0"].splitlines()[0]) + 1
    _teacher(endpoint, tmp_path, batch_megabytes=2.5 * one / 1e6).replies(requests(*"stuvw"), ledger)
    assert endpoint.asked[3:] == [list("st"), list("uv"), ["w"]]


@pytest.mark.parametrize("status", ["expired", "cancelled"])
def test_replies_of_a_batch_that_did_not_finish_are_kept_and_the_rest_goes_again(
    endpoint: Endpoint, ledger: Ledger, tmp_path: Path, status: str
) -> None:
    def answer(line: Line) -> Line | None:
        done = len(endpoint.batches) > 1 or line["body"]["messages"][0]["content"] in "ab"
        if line["body"]["messages"][0]["content"] == "d" and not done:
            return {
                "custom_id": line["custom_id"],
                "response": None,
                "error": {"code": f"batch_{status}", "message": "late"},
            }
        return good(line) if done else None

    endpoint.answer = answer
    endpoint.status = lambda number: "completed" if number else status
    replies = _teacher(endpoint, tmp_path).replies(requests(*TEXTS), ledger)
    assert [reply.text for reply in replies] == [f"re: {text}" for text in TEXTS]
    assert [sorted(some) for some in endpoint.asked] == [list("abcd"), list("cd")]
    assert sorted(_failures(tmp_path)) == [(f"batch {status}", 1), (f"batch_{status}: late", 1)]


def test_replies_batches_that_never_finish_end_after_so_many_attempts(
    endpoint: Endpoint, ledger: Ledger, tmp_path: Path
) -> None:
    endpoint.status = lambda number: "failed"
    endpoint.errors = [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached", "line": None}]
    with pytest.raises(UserError, match=r"p left 2 of 2 requests unanswered .*batch failed .token_limit_exceeded: Enq"):
        _teacher(endpoint, tmp_path, attempts=2).replies(requests("a", "b"), ledger)
    assert len(endpoint.batches) == 2
    replies = _teacher(endpoint, tmp_path, attempts=1, keep_failed=True).replies(requests("a", "b"), ledger)
    assert [(reply.status, reply.paid) for reply in replies] == [("teacher_failed", False)] * 2


def test_replies_error_lines_are_tried_again_or_refused_by_their_kind(
    endpoint: Endpoint, ledger: Ledger, tmp_path: Path
) -> None:
    def answer(line: Line) -> Line | None:
        text = line["body"]["messages"][0]["content"]
        if text == "c":
            return bad(line, 400, "content_policy")
        return bad(line, 503) if text == "b" and len(endpoint.batches) == 1 else good(line)

    endpoint.answer = answer
    teacher = _teacher(endpoint, tmp_path, keep_failed=True)
    replies = teacher.replies(requests("a", "b", "c"), ledger)
    assert [(reply.text, reply.status) for reply in replies] == [
        ("re: a", "ok"),
        ("re: b", "ok"),
        ("", "teacher_refused"),
    ]
    assert endpoint.asked == [["a", "b", "c"], ["b"]]
    assert sorted(_failures(tmp_path)) == [("content_policy: no c", 1), ("oops: no b", 1)]
    with pytest.raises(UserError, match=r"left 1 of 2 requests unanswered .1 content_policy: no c."):
        _teacher(endpoint, tmp_path).replies(requests("a", "c", "d"), ledger)


def test_replies_unreadable_and_strange_lines_are_as_good_as_absent(
    endpoint: Endpoint, ledger: Ledger, tmp_path: Path
) -> None:
    endpoint.answer = lambda line: (
        good(line)
        if len(endpoint.batches) > 1
        else {"custom_id": "other", **good(line), "response": {"status_code": 200, "body": {"choices": []}}}
    )  # type: ignore[dict-item]
    replies = _teacher(endpoint, tmp_path).replies(requests("a"), ledger)
    assert [reply.text for reply in replies] == ["re: a"]
    assert _failures(tmp_path) == [("unreadable answer: the answer has no choices", 1)]


@pytest.mark.parametrize(
    "call", ["POST /files", "POST /batches", "GET /batches/batch_0", "GET /files/file-batch_0-output"]
)
@pytest.mark.parametrize("trouble", [500, 429, None])
def test_replies_passing_trouble_anywhere_costs_no_second_batch(
    endpoint: Endpoint, ledger: Ledger, tmp_path: Path, call: str, trouble: int | None
) -> None:
    endpoint.trouble = lambda method, path: (
        trouble if f"{method} {path}".startswith(call) and endpoint.calls.count(f"{method} {path}") == 1 else "none"
    )
    replies = _teacher(endpoint, tmp_path).replies(requests(*TEXTS), ledger)
    assert [reply.text for reply in replies] == [f"re: {text}" for text in TEXTS]
    assert endpoint.asked == [list(TEXTS)], "one batch, even where the answer to its creation got lost"
    assert _states(tmp_path) == ["done"]


def test_replies_server_that_goes_down_ends_the_run_and_the_next_one_collects(
    endpoint: Endpoint, ledger: Ledger, tmp_path: Path
) -> None:
    endpoint.trouble = lambda method, path: 503 if "batch_0" in path else "none"
    with pytest.raises(UserError, match=r"p can't be asked .503.*run again to collect them") as stopped:
        _teacher(endpoint, tmp_path).replies(requests("a", "b"), ledger)
    assert "\n" not in str(stopped.value) and _states(tmp_path) == ["sent"]
    endpoint.trouble = lambda method, path: "none"
    replies = _teacher(endpoint, tmp_path).replies(requests("b", "c"), ledger)
    assert [(reply.text, reply.paid) for reply in replies] == [("re: b", True), ("re: c", True)]
    assert endpoint.asked == [["a", "b"], ["c"]]
    # What the earlier batch held beside is kept too.
    (reply,) = _teacher(endpoint, tmp_path).replies(requests("a"), ledger)
    assert (reply.text, reply.paid, len(endpoint.batches)) == ("re: a", False, 2)


@pytest.mark.parametrize(("status", "said"), [(401, "does not accept the key"), (400, "takes no such batch")])
def test_replies_final_refusal_of_a_batch_stops_at_once_in_one_line(
    endpoint: Endpoint, ledger: Ledger, tmp_path: Path, status: int, said: str
) -> None:
    endpoint.trouble = lambda method, path: status if (method, path) == ("POST", "/batches") else "none"
    with pytest.raises(UserError, match=said) as refused:
        _teacher(endpoint, tmp_path).replies(requests("a"), ledger)
    assert endpoint.calls.count("POST /batches") == 1 and "\n" not in str(refused.value)
    assert _states(tmp_path) == ["void"]


def test_replies_batch_that_the_server_lost_says_what_to_do(endpoint: Endpoint, ledger: Ledger, tmp_path: Path) -> None:
    endpoint.trouble = lambda method, path: 404 if "batch_0" in path else "none"
    with pytest.raises(UserError, match=r"p knows no batch batch_0: .*delete .*batches\.sqlite to hand"):
        _teacher(endpoint, tmp_path).replies(requests("a"), ledger)
    assert _states(tmp_path) == ["sent"]


def test_replies_budget_is_kept_and_a_higher_one_goes_on(endpoint: Endpoint, ledger: Ledger, tmp_path: Path) -> None:
    (cost,) = {reply.usd for reply in _teacher(endpoint, tmp_path).replies(requests("a"), ledger)}
    most = _teacher(endpoint, tmp_path)._question("k", {}, requests("b")[0]).usd
    with pytest.raises(UserError, match="the budget is used up"):
        _teacher(endpoint, tmp_path, budget_usd=2 * cost + most * 0.99).replies(requests(*TEXTS), ledger)
    assert endpoint.asked[:2] == [["a"], ["b"]]
    replies = _teacher(endpoint, tmp_path, budget_usd=10.0).replies(requests(*TEXTS), ledger)
    assert [reply.text for reply in replies] == [f"re: {text}" for text in TEXTS]
    assert sorted(text for some in endpoint.asked for text in some) == list(TEXTS)


_CHILD = """
import sys
from pathlib import Path
from srecycle.teacher import Ledger
from tests.unit.teacher.asking import requests
from tests.unit.teacher.test_batch import TEXTS, _teacher
class At: url = sys.argv[1]
folder = Path(sys.argv[2])
with Ledger(folder / "ledger.sqlite") as ledger:
    _teacher(At, folder).replies(requests(*TEXTS), ledger)
"""


@pytest.mark.parametrize("moment", ["creating", "polling"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_replies_killed_run_is_gone_on_with_and_pays_for_no_second_batch(
    endpoint: Endpoint, ledger: Ledger, tmp_path: Path, moment: str, how: signal.Signals
) -> None:
    reached, on = threading.Event(), threading.Event()

    def hold(method: str, path: str) -> str:
        if moment == "polling" and path == "/batches/batch_0" and not on.is_set():
            reached.set()
        return "none"

    def created() -> None:
        if moment == "creating":
            reached.set()
            on.wait(10)  # the server has the batch; the child never learns its id

    endpoint.looks, endpoint.trouble, endpoint.on_create = 10**9, hold, created
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, endpoint.url, str(tmp_path)], stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert reached.wait(30)
    child.send_signal(how)
    _, said = child.communicate(timeout=30)
    on.set()
    endpoint.looks = 1
    assert child.returncode != 0
    if how == signal.SIGINT and moment == "polling":
        assert "p goes on with batch_0: the same command collects what is done then" in said
    assert _states(tmp_path) == ["sending" if moment == "creating" else "sent"]

    replies = _teacher(endpoint, tmp_path).replies(requests(*TEXTS), ledger)
    assert [(reply.text, reply.paid) for reply in replies] == [(f"re: {text}", True) for text in TEXTS]
    assert endpoint.asked == [list(TEXTS)]


def test_replies_batch_in_doubt_that_the_server_never_got_is_handed_over(
    endpoint: Endpoint, ledger: Ledger, tmp_path: Path
) -> None:
    endpoint.trouble = lambda method, path: 500 if (method, path) == ("POST", "/batches") else "none"
    with pytest.raises(UserError, match="can't be asked"):
        _teacher(endpoint, tmp_path, attempts=2).replies(requests("a"), ledger)
    assert _states(tmp_path) == ["sending"] and not endpoint.batches
    endpoint.trouble = lambda method, path: "none"
    (reply,) = _teacher(endpoint, tmp_path).replies(requests("a"), ledger)
    assert (reply.text, _states(tmp_path)) == ("re: a", ["void", "done"])


def test_replies_twin_of_a_batch_is_cancelled(endpoint: Endpoint, ledger: Ledger, tmp_path: Path) -> None:
    def twice() -> None:
        if len(endpoint.batches) == 1:
            endpoint.batches["batch_1"] = endpoint.batches["batch_0"] | {"id": "batch_1"}

    endpoint.on_create = twice
    endpoint.trouble = lambda method, path: (
        None if (method, path) == ("POST", "/batches") and endpoint.calls.count("POST /batches") == 1 else "none"
    )
    _teacher(endpoint, tmp_path).replies(requests("a"), ledger)
    assert len(endpoint.cancelled) == 1 and endpoint.calls.count("POST /batches") == 1


def test_journal_holds_no_key_and_is_its_owners_only(endpoint: Endpoint, ledger: Ledger, tmp_path: Path) -> None:
    endpoint.answer = lambda line: bad(line, 400, f"leak {KEY}")
    _teacher(endpoint, tmp_path, keep_failed=True).replies(requests("a"), ledger)
    assert stat.S_IMODE((tmp_path / "batches.sqlite").stat().st_mode) == 0o600
    written = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert "batches.sqlite" in written and not [name for name, content in written.items() if KEY.encode() in content]
    assert KEY not in json.dumps(_failures(tmp_path))


def test_journal_that_is_none_is_an_error_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "garbage").write_text("this is no database " * 100)
    (tmp_path / "file").touch()
    for path in (tmp_path / "garbage", tmp_path / "file" / "inside"):
        with pytest.raises(UserError, match=r"can't be opened as a journal of batches \(.*teacher\.journal"):
            Journal(path)


def test_reflection_hands_a_refused_request_over_once_whatever_the_shards(
    endpoint: Endpoint, tmp_path: Path, make_experiment: Any
) -> None:
    def answer(line: Line) -> Line:
        refused = "row 3" in line["body"]["messages"][-1]["content"]
        reply = bad(line, 400, "content_policy") if refused else good(line)
        if not refused:
            reply["response"]["body"]["choices"][0]["message"]["content"] = reflection(line["body"])
        return reply

    endpoint.answer = answer
    rows = [{"instruction": f"what is row {number} ?", "output": "it is one"} for number in range(6)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    experiment = make_experiment(
        *("data=alpaca", f"data.path={tmp_path / 'rows.json'}", "student=testbed_weak", "teacher=openai_batch"),
        *(f"teacher.base_url={endpoint.url}", "teacher.keep_failed=true", "teacher.poll_seconds=0.01"),
        *("teacher.usd_per_million_input_tokens=1", "engine.shard_rows=2", "reflection.reasks=0"),
    )
    store, plan = Store(experiment.store), experiment.plan()
    materialize(plan["source"], store)
    made = materialize(plan["reflect_instruction"], store).artifact
    assert (made.metrics["instruction/ok"], made.metrics["instruction/teacher_refused"]) == (5, 1)
    assert [len(endpoint.files[one["input_file_id"]].splitlines()) for one in endpoint.batches.values()] == [6]
    assert made.provenance["notes"]["calls"]["paid"] == 5


@pytest.fixture
def make_experiment(tmp_path: Path) -> Any:
    def made(*overrides: str) -> Any:
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            return build(compose("config", [f"store={tmp_path / 'store'}", *overrides]))[1]

    return made
