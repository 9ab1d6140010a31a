"""A Hugging Face Hub of our own on 127.0.0.1: it takes commits and gives files, and keeps all."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

SHA = "c" * 40  # of every commit


@dataclass
class Hub:
    """What the server was asked and what it holds.

    Attributes:
        address: for HF_ENDPOINT.
        files: "models/owner/name" or "datasets/owner/name" → path → content.
        asked: method and path of each request.
    """

    address: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@contextmanager
def a_hub() -> Iterator[Hub]:
    """Serve a hub until the block ends."""
    hub = Hub()

    class Handler(_Handler):
        held = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    held: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parts = self._parts()
        repository = "/".join(parts[1:4])
        if parts[:3] == ["api", "repos", "create"]:
            asked = json.loads(body)
            kind = "datasets" if asked.get("type") == "dataset" else "models"
            self.held.files.setdefault(f"{kind}/{asked['organization']}/{asked['name']}", {})
            self._answer({"url": f"{self.held.address}/{asked['organization']}/{asked['name']}"})
        elif parts[:2] == ["api", "validate-yaml"]:
            self._answer({"errors": [], "warnings": []})
        elif repository not in self.held.files:
            self._answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        elif parts[4] == "preupload":
            self._answer(
                {
                    "files": [
                        {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for f in json.loads(body)["files"]
                    ]
                }
            )
        elif parts[4] == "commit":
            for line in body.splitlines():
                said = json.loads(line)
                if said["key"] == "file":
                    content = base64.b64decode(said["value"]["content"])
                    self.held.files[repository][said["value"]["path"]] = content
            where = repository.removeprefix("models/")
            self._answer(
                {
                    "commitUrl": f"{self.held.address}/{where}/commit/{SHA}",
                    "commitOid": SHA,
                    "pullRequestUrl": f"{self.held.address}/{where}/discussions/1",
                }
            )

    def do_GET(self) -> None:
        parts = self._parts()
        if parts[0] == "api":
            files = self.held.files.get("/".join(parts[1:4]))
            if files is None:
                self._answer({"error": "not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            elif parts[4:5] == ["tree"]:
                self._answer(
                    [
                        {"type": "file", "path": p, "size": len(c), "oid": sha1(c).hexdigest()}
                        for p, c in files.items()
                    ]
                )
            else:
                siblings = [{"rfilename": path} for path in files]
                self._answer({"id": "/".join(parts[2:4]), "sha": SHA, "siblings": siblings})
        elif parts == [""]:  # its front page
            self._send(b"", 200, {})
        else:
            content = self.held.files["/".join(parts[:3])]["/".join(parts[5:])]
            found = {"ETag": f'"{sha1(content).hexdigest()}"', "X-Repo-Commit": SHA}
            self._send(content, 200, found)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _parts(self) -> list[str]:
        self.held.asked.append(f"{self.command} {self.path}")
        return unquote(urlsplit(self.path).path).strip("/").split("/")

    def _answer(self, value: Any, code: int = 200, more: dict[str, str] | None = None) -> None:
        headers = {"Content-Type": "application/json", **(more or {})}
        self._send(json.dumps(value).encode(), code, headers)

    def _send(self, content: bytes, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
