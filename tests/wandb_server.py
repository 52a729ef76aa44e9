"""A server as W&B's client knows it: real requests over HTTP, and what was sent to it to look at.

It answers what runs, artifacts, workspaces, reports and custom charts ask for, as far as W&B's client needs it. Every
artifact is taken as one that is there already, so that no files are sent.
"""

import gzip
import json
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = "somebody"
Variables = Mapping[str, Any]


@dataclass(kw_only=True)
class Sent:
    """What one run has sent. `exit_code` is None until it has ended."""

    about: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    made: list[dict[str, Any]] = field(default_factory=list)
    used: list[str] = field(default_factory=list)
    exit_code: int | None = None


class WandbServer:
    """Serves while the block runs. `refuses` are operations that end in an error, by a part of their name."""

    def __init__(self, *, refuses: tuple[str, ...] = ()) -> None:
        """Nothing listens before the block is entered."""
        self.refuses = refuses
        self.runs: dict[str, Sent] = {}
        self.views: list[dict[str, Any]] = []
        self.charts: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.bodies: list[bytes] = []
        self.unknown: list[str] = []
        self._lock = threading.Lock()

    def __enter__(self) -> "WandbServer":
        """Begin to listen on a free port."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, body: bytes, key: str) -> dict[str, Any]:
        """Answer a request."""
        with self._lock:
            self.bodies.append(body)
            self.keys.add(key)
            if path.startswith("/graphql"):
                return self._graphql(json.loads(body))
            if path.endswith("/file_stream"):
                self._stream(path.split("/")[-2], json.loads(body))
        return {}

    def _graphql(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        text, variables = asked["query"], asked.get("variables") or {}
        if any(name in text for name in self.refuses):
            return {"errors": [{"message": "permission denied"}]}
        answers: Mapping[str, Callable[[Variables], dict[str, Any]]] = {
            "upsertBucket(": self._run,
            "createArtifact(": self._artifact,
            "useArtifact(": self._use,
            "upsertView(": self._view,
            "createCustomChart(": self._chart,
            "createRunFiles(": self._files,
            "artifact(id:": self._known,
            "artifactType {": lambda _: {"project": {"artifact": None}},
            "viewer {": lambda _: {"viewer": _VIEWER},
            "bucket(": lambda _: {"model": None},
            "features {": lambda _: {"serverInfo": {"features": []}},
            "internalId": lambda _: {"project": {"internalId": "UHJvamVjdDox", "id": "UHJvamVjdDox"}},
            "coreWeaveOrganizationId": lambda _: {"entity": None},
            "models(": lambda _: {"models": {"edges": [], "pageInfo": {"endCursor": None, "hasNextPage": False}}},
            "upsertModel(": lambda _: {
                "upsertModel": {"project": {"name": "p", "entityName": ENTITY}, "inserted": True}
            },
        }
        for sign, answer in answers.items():
            if sign in text:
                return {"data": answer(variables)}
        self.unknown.append(f"{text} {variables}")
        return {"data": {}}

    def _run(self, variables: Variables) -> dict[str, Any]:
        sent = self.runs.setdefault(variables["name"], Sent())
        sent.about |= {name: value for name, value in variables.items() if value is not None}
        config = json.loads(variables.get("config") or "{}")
        sent.config |= {name: one.get("value") for name, one in config.items()}
        project = {"id": "p", "name": variables["project"], "entity": {"id": "e", "name": ENTITY}}
        bucket = {
            "id": f"id-of-{variables['name']}",
            "name": variables["name"],
            "displayName": sent.about.get("displayName"),
            "description": None,
            "config": variables.get("config"),
            "sweepName": None,
            "historyLineCount": 0,
            "project": project,
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}

    def _stream(self, run: str, told: Mapping[str, Any]) -> None:
        sent, files = self.runs[run], told.get("files") or {}
        sent.history += [json.loads(line) for line in files.get("wandb-history.jsonl", {}).get("content", [])]
        for line in files.get("wandb-summary.json", {}).get("content", []):
            sent.summary |= json.loads(line)
        if told.get("complete"):
            sent.exit_code = told["exitcode"]

    def _artifact(self, variables: Variables) -> dict[str, Any]:
        told = variables["input"]
        if told["runName"] is not None:  # what is only used belongs to no run
            self.runs[told["runName"]].made.append(dict(told))
        made = {
            "id": f"{told['artifactCollectionName']}@{told['digest']}",
            "state": "COMMITTED",
            "artifactSequence": {"latestArtifact": None},
        }
        return {"createArtifact": {"artifact": made}}

    def _known(self, variables: Variables) -> dict[str, Any]:
        name, _, digest = variables["id"].partition("@")
        project = {"id": "p", "internalId": "1", "name": "p", "entity": {"name": ENTITY}}
        sequence = {"__typename": "ArtifactSequence", "id": "s", "name": name, "project": project}
        known = {"id": variables["id"], "digest": digest, "artifactSequence": sequence, **_ARTIFACT}
        return {"artifact": known}

    def _use(self, variables: Variables) -> dict[str, Any]:
        told = variables.get("input", variables)
        run = told.get("runName") or told.get("run")
        self.runs[run].used.append(told.get("artifactID") or told.get("artifactId"))
        return {"useArtifact": {"artifact": {"id": self.runs[run].used[-1]}, "success": True}}

    def _files(self, variables: Variables) -> dict[str, Any]:
        files = [{"name": name, "uploadUrl": f"{self.url}/files/{name}"} for name in variables["files"]]
        return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}

    def _view(self, variables: Variables) -> dict[str, Any]:
        told = variables.get("input", variables)
        self.views.append({**told, "spec": json.loads(told["spec"])})
        number = len(self.views)
        view = {
            "id": f"view{number}",
            "name": told.get("name"),
            "displayName": told.get("displayName"),
            "description": "",
            "spec": told["spec"],
            "type": told.get("type"),
            "project": {"id": "p", "name": told.get("projectName"), "entityName": ENTITY},
        }
        return {"upsertView": {"view": view, "inserted": True}}

    def _chart(self, variables: Variables) -> dict[str, Any]:
        told = variables.get("input", variables)
        self.charts.append(dict(told))
        return {"createCustomChart": {"chart": {"id": f"{told['entity']}/{told['chartName']}"}}}


_VIEWER = {
    "id": "u",
    "entity": ENTITY,
    "username": ENTITY,
    "email": "somebody@example.org",
    "flags": "{}",
    "admin": False,
    "teams": {"edges": []},
    "apiKeys": {"edges": []},
}


_ARTIFACT = {
    "__typename": "Artifact",
    "versionIndex": 0,
    "artifactType": {"name": "dataset"},
    "description": None,
    "metadata": "{}",
    "ttlDurationSeconds": -2,
    "ttlIsInherited": True,
    "tags": [],
    "historyStep": None,
    "state": "COMMITTED",
    "size": 0,
    "digestAlgorithm": "MANIFEST_MD5",
    "commitHash": "c",
    "fileCount": 1,
    "createdAt": "2026-01-01T00:00:00Z",
    "updatedAt": None,
    "aliases": [],
}


def _handler(server: WandbServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def handle(self) -> None:
            with suppress(ConnectionError):  # who only asks whether somebody listens hangs up
                super().handle()

        def do_POST(self) -> None:
            body = self._body()
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            told = json.dumps(server.answer(self.path, body, self.headers.get("Authorization") or "")).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        do_PUT = do_GET = do_POST

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

    return Handler
