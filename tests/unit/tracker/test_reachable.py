"""Whether W&B is worth asking: keys and servers, without a network."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from srecycle.errors import UserError
from srecycle.tracker.reachable import has_key, reachable
from srecycle.tracker.wandb import WandbTracker

PUBLIC, OWN = "https://api.wandb.ai", "http://wandb.example.org:8080"
KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "NETRC", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def listening() -> Iterator[int]:
    """Listen on a port of this machine, and answer nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def _closed() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_key_of_the_environment_or_of_netrc_for_that_server_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert not has_key(PUBLIC) and not has_key(OWN)
    (tmp_path / ".netrc").write_text(f"machine wandb.example.org:8080 login user password {KEY}\n")
    (tmp_path / ".netrc").chmod(0o600)  # others' files are refused
    assert has_key(OWN) and not has_key(PUBLIC)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert has_key(PUBLIC)


def test_netrc_that_cannot_be_read_holds_no_key(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine\nnonsense")
    assert not has_key(PUBLIC)


def test_server_that_listens_is_reachable_and_a_closed_port_is_not(listening: int) -> None:
    assert reachable(f"http://127.0.0.1:{listening}")
    assert not reachable(f"http://127.0.0.1:{_closed()}")


def test_server_behind_a_proxy_is_asked_for_there(listening: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{listening}")
    assert reachable("http://wandb.invalid")
    monkeypatch.setenv("no_proxy", "wandb.invalid")
    assert not reachable("http://wandb.invalid")


def test_name_that_is_looked_up_for_ever_costs_seconds_only(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [][stop.wait(30) :])
    began = time.monotonic()
    assert not reachable("http://wandb.invalid", seconds=0.2)
    assert time.monotonic() - began < 5
    stop.set()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the address of W&B's server as this test has it: one where nobody listens."""
    import wandb

    url = f"http://127.0.0.1:{_closed()}"
    monkeypatch.setattr(wandb.setup().settings, "base_url", url)
    return url


def test_tracker_without_a_key_is_offline_and_says_why(server: str) -> None:
    line = WandbTracker().line()
    assert line.mode == "offline" and "wandb login" in line.why


def test_tracker_with_a_key_but_no_network_is_offline_and_says_why(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    line = WandbTracker().line()
    assert line.mode == "offline" and server in line.why
    with pytest.raises(UserError, match=r"can't be reached.*tracker\.mode=offline"):
        WandbTracker(mode="online").line()


def test_tracker_that_is_to_be_online_without_a_key_is_refused(server: str) -> None:
    with pytest.raises(UserError, match="no key"):
        WandbTracker(mode="online").line()


def test_tracker_heeds_wandb_mode_where_it_is_to_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    for asked in ("offline", "disabled"):
        monkeypatch.setenv("WANDB_MODE", asked)
        assert WandbTracker().line().mode == asked
    assert WandbTracker(mode="offline").line().mode == "offline"
