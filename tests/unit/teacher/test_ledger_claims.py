"""Claims, money and the ledger's format: what several processes must agree on."""

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from srecycle.errors import UserError
from srecycle.teacher import Ledger, Reply
from srecycle.teacher.ledger import LEASE, ledger_key

REQUEST: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "é"}], "temperature": 0.7}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def _keep(ledger: Ledger, key: str, usd: float = 0.0, provider: str = "p") -> bool:
    reply = Reply(text=key, usd=usd)
    return ledger.keep(key, reply, provider=provider, request={"model": "m"}, seconds=1, attempts=1)


def _wanted(*keys: str, usd: float = 0.0) -> dict[str, float]:
    return dict.fromkeys(keys, usd)


def test_ledger_key_counts_samples_beyond_the_first() -> None:
    keys = [ledger_key("p", REQUEST, sample) for sample in range(3)]
    assert len(set(keys)) == 3 and keys[0] == ledger_key("p", REQUEST)
    # As the first ledgers wrote it: what was paid under that key must be found.
    assert keys[0] == "eda5e13425547d66254494e56f241389512a91ac93ae5df68a412bb69f8ed14a"


def test_claim_key_of_another_is_busy_until_it_is_released_or_answered(path: Path) -> None:
    with Ledger(path) as ledger, Ledger(path) as other:
        assert ledger.claim(_wanted("a", "b"), provider="p").ours == ["a", "b"]
        claim = other.claim(_wanted("a", "b", "c"), provider="p")
        assert (claim.busy, claim.ours) == (["a", "b"], ["c"])
        ledger.release(["a"])
        _keep(ledger, "b")
        claim = other.claim(_wanted("a", "b"), provider="p")
        assert (claim.ours, list(claim.found), claim.busy) == (["a"], ["b"], [])


def test_claim_of_a_dead_process_is_free_at_once(path: Path) -> None:
    code = "import sys; from pathlib import Path; from srecycle.teacher import Ledger\n"
    code += "print(Ledger(Path(sys.argv[1])).claim({'a': 1.0}, provider='p').ours)"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "['a']\n"
    with Ledger(path) as ledger:
        assert ledger.claim(_wanted("a"), provider="p", cap=1.0).ours == ["a"]


@pytest.mark.parametrize("renewed", [False, True])
def test_claim_that_is_not_renewed_expires(path: Path, monkeypatch: pytest.MonkeyPatch, renewed: bool) -> None:
    now = time.time()
    with Ledger(path) as ledger, Ledger(path) as other:
        ledger.claim(_wanted("a"), provider="p")
        monkeypatch.setattr("time.time", lambda: now + LEASE * 0.9)
        if renewed:
            ledger.renew()
        monkeypatch.setattr("time.time", lambda: now + LEASE * 1.5)
        assert other.claim(_wanted("a"), provider="p").ours == ([] if renewed else ["a"])


@pytest.mark.parametrize(
    ("owner", "alive"),
    [
        ("another-host 1 aaaa", True),
        (f"{os.uname().nodename} {os.getpid()} aaaa", False),
        (f"{os.uname().nodename} 1 aaaa", True),
        (f"{os.uname().nodename} 99999999 aaaa", False),
    ],
    ids=["another machine", "an earlier process of our number", "a living process", "a dead process"],
)
def test_claim_of_others_is_respected_while_they_may_live(path: Path, owner: str, alive: bool) -> None:
    with Ledger(path) as ledger:
        with sqlite3.connect(path) as connection:
            connection.execute("INSERT INTO claims VALUES ('a', 'p', ?, 0, ?)", (owner, time.time() + 50))
        assert ledger.claim(_wanted("a"), provider="p").busy == (["a"] if alive else [])


def test_claim_takes_what_the_cap_leaves_beside_spent_and_reserved(path: Path) -> None:
    with Ledger(path) as ledger, Ledger(path) as other:
        _keep(ledger, "paid", usd=4.0)
        _keep(ledger, "elsewhere", usd=100.0, provider="q")
        ledger.fail("lost", attempt=1, error="e", seconds=1, provider="p", usd=1.0)
        assert ledger.claim(_wanted("a", "b", usd=1.5), provider="p").ours == ["a", "b"]
        claim = other.claim(_wanted("c", "d", "e", usd=1.0), provider="p", cap=10.0)
        assert (claim.ours, claim.spent, claim.reserved) == (["c", "d"], 5.0, 5.0)
        _keep(ledger, "a", usd=0.5)
        assert other.spent("p") == ledger.spent("p") == 5.5
        assert other.claim(_wanted("e", usd=1.0), provider="p", cap=10.0).ours == ["e"]


def test_keep_tells_whether_it_stands_and_drops_its_claim(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.claim(_wanted("a"), provider="p")
        assert [_keep(ledger, "a"), _keep(ledger, "a")] == [True, False]
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM claims").fetchone() == (0,)


_FIRST_FORMAT = """
CREATE TABLE replies (
    key TEXT PRIMARY KEY, provider TEXT NOT NULL, request TEXT NOT NULL, reply TEXT NOT NULL,
    finish_reason TEXT NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, usd REAL NOT NULL,
    seconds REAL NOT NULL, attempts INTEGER NOT NULL, time REAL NOT NULL
);
CREATE TABLE failures (
    key TEXT NOT NULL, attempt INTEGER NOT NULL, error TEXT NOT NULL, seconds REAL NOT NULL, time REAL NOT NULL
);
INSERT INTO replies VALUES ('a', 'p', '{"model": "m"}', 'text', 'stop', 1, 2, 0.5, 1.0, 1, 7.0);
INSERT INTO failures VALUES ('b', 1, 'e', 1.0, 7.0);
"""


def test_ledger_of_the_first_format_keeps_all_it_had(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.executescript(_FIRST_FORMAT)
    for _ in range(2):
        with Ledger(path) as ledger:
            assert ledger.find("a") == Reply(text="text", input_tokens=1, output_tokens=2, usd=0.5)
            assert ledger.spent("p") == 0.5
            assert ledger.rates("p", "m") is not None
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT model, sample, imported FROM replies").fetchall() == [("m", 0, 0)]
        assert connection.execute("SELECT key, status, usd FROM failures").fetchall() == [("b", None, 0.0)]


def test_ledger_updated_by_several_processes_at_once_is_updated_once(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.executescript(_FIRST_FORMAT)
    code = "import sys; from pathlib import Path; from srecycle.teacher import Ledger; Ledger(Path(sys.argv[1]))"
    opening = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(3)]
    assert [process.wait(timeout=60) for process in opening] == [0, 0, 0]


def test_ledger_of_a_newer_format_is_refused(path: Path) -> None:
    with Ledger(path):
        pass
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(UserError, match=r"newer srecycle .ledger format 99.: update srecycle"):
        Ledger(path)


@pytest.mark.parametrize("kind", ["no database", "a folder"])
def test_ledger_that_is_none_is_refused_in_a_line(path: Path, kind: str) -> None:
    path.mkdir() if kind == "a folder" else path.write_text("hello " * 1000)
    with pytest.raises(UserError, match="can't be opened as a ledger"):
        Ledger(path)


def test_rates_pauses_between_runs_are_no_part_of_the_speed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ledger(path) as ledger:
        for place, moment in enumerate([0, 2, 4, 10_000, 10_002]):
            monkeypatch.setattr("time.time", lambda moment=moment: float(moment))
            reply = Reply(text="", input_tokens=10, output_tokens=place)
            ledger.keep(str(place), reply, provider="p", request=REQUEST, seconds=1, attempts=1)
        rates = ledger.rates("p", "m")
    assert rates is not None
    assert (rates.replies, rates.output_tokens_per_reply, rates.calls_per_second) == (5, 2.0, 0.5)
    assert rates.characters_per_input_token == pytest.approx(0.1)


def test_ledger_that_several_processes_create_at_once_opens_for_all_of_them(tmp_path: Path) -> None:
    code = "import sys\nfrom pathlib import Path\nfrom srecycle.teacher import Ledger\nsys.stdin.readline()\n"
    code += "for number in range(8):\n    Ledger(Path(sys.argv[1]) / f'{number}.sqlite').__exit__(None, None, None)\n"
    command = [sys.executable, "-c", code, str(tmp_path)]
    opening = [subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    time.sleep(1.5)  # all have imported what they need
    for one in opening:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    told = [one.communicate(timeout=60)[1] for one in opening]
    assert [one.returncode for one in opening] == [0] * 4, told
