"""A hub of data sets on this machine: what `huggingface_hub` and `datasets` ask the Hugging Face hub for, over http.

It keeps every commit, gates what it is told to gate, and cuts downloads short on purpose.
"""

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_" + "a" * 34
"""What opens gated data sets."""


class HubServer:
    """Serves while the block runs. `cuts` says how many of the next answers with a file's content end midway."""

    def __init__(self) -> None:
        """Nothing is there yet, and nothing listens before the block is entered."""
        self.commits: dict[str, dict[str, Mapping[str, bytes]]] = {}
        self.branches: dict[str, dict[str, str]] = {}
        self.gated = set[str]()
        self.cuts = Counter[str]()
        self.downloads: list[str] = []
        self.asked = 0

    def add(self, name: str, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Commit the files as a data set's, and return the commit."""
        told = json.dumps([name, *((path, hashlib.sha256(files[path]).hexdigest()) for path in sorted(files))])
        commit = hashlib.sha1(told.encode(), usedforsecurity=False).hexdigest()
        self.commits.setdefault(name, {})[commit] = files
        self.branches.setdefault(name, {})[branch] = commit
        return commit

    def __enter__(self) -> "HubServer":
        hub = self

        class Handler(_Handler):
            """Knows its hub."""

            served = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """What HF_ENDPOINT is to be."""
        return f"http://127.0.0.1:{self._server.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a body waits 40 ms for its headers' acknowledgement otherwise
    served: HubServer

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        """Answer without a body."""
        self._answer(body=False)

    def do_GET(self) -> None:
        """Answer."""
        self._answer(body=True)

    def do_POST(self) -> None:
        """Answer which of the paths in the form or JSON are there."""
        content = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = json.loads(content) if content.startswith("{") else parse_qs(content)
        self._answer(body=True, wanted=form["paths"])

    def _answer(self, body: bool, wanted: list[str] | None = None) -> None:
        self.served.asked += 1
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        api = parts[0] == "api"
        owner, name, *rest = [*parts[2 if api else 1 :], "", ""]
        kind, revision, *below = [*(part for part in rest if part), "", ""]
        data_set, path = f"{owner}/{name}", "/".join(below).strip("/")
        if data_set not in self.served.commits:
            return self._refuse(401, "RepoNotFound")
        shut = data_set in self.served.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}"
        if shut and (not api or kind == "auth-check"):
            return self._refuse(401, "GatedRepo")
        revision = revision or "main"
        commit = self.served.branches[data_set].get(revision, revision)
        if commit not in self.served.commits[data_set]:
            return self._refuse(404, "RevisionNotFound")
        files = self.served.commits[data_set][commit]
        if not api:
            return self._file(files.get(path), commit, path, body)
        if kind == "tree":
            recursive = "recursive=true" in self.path.lower()
            return self._tell([one for one in _tree(files, path) if recursive or "/" not in _below(one, path)])
        if kind == "paths-info":
            return self._tell([one for one in _tree(files, "") if one["path"] in (wanted or ())])
        siblings = [{"rfilename": file} for file in files]
        return self._tell({"id": data_set, "sha": commit, "siblings": siblings, "tags": [], "private": False})

    def _file(self, content: bytes | None, commit: str, path: str, body: bool) -> None:
        if content is None:
            self._refuse(404, "EntryNotFound", commit)
            return
        first = int(self.headers["Range"].removeprefix("bytes=").split("-")[0]) if "Range" in self.headers else 0
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        if body:
            self.served.downloads.append(path)
            cut = self.served.cuts[path] > 0
            self.served.cuts[path] -= cut
            self.wfile.write(content[first : first + (len(content) - first) // 2] if cut else content[first:])
            self.close_connection = cut

    def _tell(self, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _refuse(self, status: int, code: str, commit: str = "") -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _tree(files: Mapping[str, bytes], folder: str) -> list[dict[str, Any]]:
    folders = {"/".join(path.split("/")[:depth]) for path in files for depth in range(1, path.count("/") + 1)}
    found = [{"type": "directory", "path": path, "oid": _oid(path.encode()), "size": 0} for path in folders]
    found += [{"type": "file", "path": path, "oid": _oid(files[path]), "size": len(files[path])} for path in files]
    return sorted(
        (one for one in found if not folder or one["path"].startswith(f"{folder}/")), key=lambda one: one["path"]
    )


def _below(one: Mapping[str, Any], folder: str) -> str:
    return str(one["path"]).removeprefix(folder).strip("/")


def _oid(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
