"""Whether W&B's server can be reached at all, found out in seconds: its own client waits for a minute and a half."""

import netrc
import os
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

_SECONDS = 4.0


def has_key(url: str) -> bool:
    """Say whether there is a key for the server at `url`, without asking it."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    file = os.environ.get("NETRC")
    try:
        known = netrc.netrc(str(Path(file).expanduser()) if file else None)
    except (OSError, netrc.NetrcParseError):
        return False
    hosts = {urlsplit(url).netloc} | ({"api.wandb.ai"} if _is_public(url) else set())
    return any(known.authenticators(host) for host in hosts)


def _is_public(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host.endswith((".wandb.ai", ".coreweave.com"))


def reachable(url: str, seconds: float = _SECONDS) -> bool:
    """Say whether something listens at `url`, or at the proxy that leads there.

    Asked in a thread of its own: looking up a name has no time limit.
    """
    import urllib.request

    parts = urlsplit(url)
    host = parts.hostname or ""
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(host):
        parts = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    place = (parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443))
    answered = threading.Event()

    def ask() -> None:
        try:
            with socket.create_connection(place, timeout=seconds):
                answered.set()
        except OSError:
            return

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return answered.is_set()
