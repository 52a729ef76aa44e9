"""Keys that are in the environment, and are used, stand in nothing that is written or said."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.faulty_server import reflection

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PLANTED = {
    "OPENAI_API_KEY": "sk-planted0teacher0key0000000000000000000000",
    "HF_TOKEN": "hf_planted0hub0token0000000000000000000",
    "WANDB_API_KEY": "0planted0wandb0key0000000000000000000000",
}
SETTINGS = (
    *("data.count=12", "teacher=openai", "teacher.model=m", "tracker=wandb", "tracker.mode=offline"),
    *("selector@selector.instruction=never", "selector@selector.response=random", "keep=[response_reflected_only]"),
    "until=assemble",
)


class Echo(BaseHTTPRequestHandler):
    """Refuses every other request, and says with which key it came."""

    count = 0
    keys: set[str] = set()  # noqa: RUF012  (what all requests share)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers["Authorization"]
        self.keys.add(key)
        Echo.count += 1
        if Echo.count % 2:
            told, status = {"error": {"message": f"overloaded; you came with {key}", "code": key}}, 503
        else:
            choice = {
                "index": 0,
                "message": {"role": "assistant", "content": reflection(body)},
                "finish_reason": "stop",
            }
            usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
            told = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
            told, status = told | {"usage": usage}, 200
        content = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def test_key_that_was_used_is_neither_written_nor_said(tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"teacher.base_url=http://127.0.0.1:{server.server_address[1]}/v1"
    own = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment = own | PLANTED | {"HOME": str(tmp_path), "SRECYCLE_STORE": str(tmp_path / "store")}
    asked = [sys.executable, "-m", "srecycle", *SETTINGS, url]
    done = subprocess.run(asked, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    server.shutdown()
    assert done.returncode == 0, done.stderr
    assert Echo.keys == {f"Bearer {PLANTED['OPENAI_API_KEY']}"} and Echo.count > 20, "the key was not even used"

    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert any(path.suffix == ".wandb" for path in written) and any(path.suffix == ".sqlite" for path in written)
    for name, key in PLANTED.items():
        assert not [path for path, content in written.items() if key.encode() in content], name
        assert key not in done.stdout + done.stderr, name
