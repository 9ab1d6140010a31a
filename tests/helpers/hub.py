"""A Hugging Face Hub of our own on 127.0.0.1, for its real clients.

It serves repositories as the Hub does, takes commits, keeps a log of the requests, and fails where
a `Fault` says so. A process that is started with HF_ENDPOINT=hub.address uses it; `point_clients`
turns the clients in this process to it.
"""

import base64
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

LFS_SUFFIXES = (".safetensors", ".bin", ".parquet", ".ckpt", ".zip")
BRANCH = "main"
PARQUET_BRANCH = "refs/convert/parquet"  # every dataset has it; here it is empty
Headers = dict[str, str]
Files = dict[str, bytes]  # path → content


@dataclass
class Fault:
    """What happens to requests instead of their answer.

    Attributes:
        path: a part of the path of each request that fails.
        status: HTTP status of the answer; None to cut the connection while a file is sent.
        times: number of requests that fail; None for all.
        code: the header X-Error-Code, such as EntryNotFound or GatedRepo.
        after: number of bytes that are sent before the connection is cut.
        retry_after: the header Retry-After, in seconds.
    """

    path: str
    status: int | None = None
    times: int | None = None
    code: str = ""
    after: int = 0
    retry_after: int | None = None


class Request(NamedTuple):
    """A request with its answer; `size` is the number of bytes that were sent."""

    method: str
    path: str
    status: int
    size: int


@dataclass
class Hub:
    """What the server holds, was asked, and does wrong.

    Attributes:
        address: for HF_ENDPOINT.
        files: "models/owner/name" or "datasets/owner/name" → path → content.
        revisions: the same → name of a tag, a branch other than main, or a pull request → files.
        sizes: path → bytes that a listing claims; for a file that fits on no disk.
        faults: the first one that fits a request applies to it.
        log: the requests in the order of their answers.
        pauses: seconds for which clients in this process would have waited, each time.
    """

    address: str = ""
    files: dict[str, Files] = field(default_factory=dict)
    revisions: dict[str, dict[str, Files]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    log: list[Request] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    @property
    def asked(self) -> list[str]:
        """Method and path of each request."""
        return [f"{request.method} {request.path}" for request in self.log]

    def add(self, repository: str, folder: Path) -> None:
        """Serve a copy of a folder as a repository, such as "models/owner/name"."""
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        self.files[repository] = {
            path.relative_to(folder).as_posix(): path.read_bytes() for path in paths
        }

    def commit(self, repository: str, revision: str = BRANCH) -> str:
        """Return the commit of a revision, 40 hex digits, which depends on its content."""
        files = sorted((self.at(repository, revision) or {}).items())
        return sha1("".join(f"{path} {_digest(c)}\n" for path, c in files).encode()).hexdigest()

    def at(self, repository: str, revision: str) -> Files | None:
        """Return the files of a branch, tag, pull request or commit; None if there is none."""
        named = {BRANCH: self.files[repository], **self.revisions.get(repository, {})}
        if repository.startswith("datasets/"):
            named.setdefault(PARQUET_BRANCH, {})
        if revision in named:
            return named[revision]
        return next((named[r] for r in named if self.commit(repository, r) == revision), None)

    def fault(self, method: str, path: str) -> Fault | None:
        """Return the fault of a request, which counts as one of its times."""
        with self._lock:
            for fault in self.faults:
                cuts = fault.status is None
                fits = fault.path in path and (
                    not cuts or (method == "GET" and "/resolve/" in path)
                )
                if fits and fault.times != 0:
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return None


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


def point_clients(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn the Hub's clients in this process to a hub, with a cache of their own and a network.

    They do not wait before they ask again: `Hub.pauses` has for how long they would have.
    """
    from huggingface_hub import constants, file_download, utils

    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    template = hub.address + constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    for module in (constants, file_download):  # older clients have copies
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", hub.address)  # of its functions
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    # Before 1.0, a session that an earlier test made keeps that test's HF_HUB_OFFLINE.
    getattr(utils, "reset_sessions", lambda: None)()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("bench.machine.hub._given_up", {})  # ports are used again
    restless = SimpleNamespace(**{**vars(time), "sleep": hub.pauses.append})
    for name in (
        "huggingface_hub.utils._http",
        "huggingface_hub.file_download",
        "datasets.utils.file_utils",
        "bench.machine.hub",
    ):
        monkeypatch.setattr(f"{name}.time", restless, raising=False)


def point_datasets(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn the library `datasets` in this process to a hub, with a cache of its own."""
    from datasets import config

    point_clients(hub, cache / "hub", monkeypatch)
    monkeypatch.setattr(config, "HF_ENDPOINT", hub.address)
    files = hub.address + "/datasets/{repo_id}/resolve/{revision}/{path}"
    monkeypatch.setattr(config, "HUB_DATASETS_URL", files)
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", cache / "datasets")
    monkeypatch.setattr(config, "DOWNLOADED_DATASETS_PATH", cache / "downloads")
    monkeypatch.setattr(config, "STREAMING_READ_RETRY_INTERVAL", 0)
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setattr(config, name, False)


def leave(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the clients away from a hub, which then does not answer, and forget its log."""
    nowhere = replace(hub, address="http://127.0.0.1:9")  # a port on which nothing listens
    point_datasets(nowhere, cache, monkeypatch)
    hub.log.clear()


@lru_cache(maxsize=1024)
def _digest(content: bytes) -> str:
    return sha256(content).hexdigest()


def _entry(path: str, content: bytes) -> dict[str, Any]:
    """Return what the Hub says of a file in a listing."""
    size = len(content)
    entry: dict[str, Any] = {"type": "file", "path": path, "size": size, "oid": _oid(content)}
    if path.endswith(LFS_SUFFIXES):
        entry["lfs"] = {"oid": _digest(content), "size": size, "pointerSize": 134}
    return entry


def _sibling(path: str, content: bytes, size: int) -> dict[str, Any]:
    """Return what the Hub says of a file in a description of its repository."""
    lfs = {"sha256": _digest(content), "size": size, "pointerSize": 134}
    large = {"lfs": lfs} if path.endswith(LFS_SUFFIXES) else {}
    return {"rfilename": path, "size": size, "blobId": _oid(content), **large}


@lru_cache(maxsize=1024)
def _oid(content: bytes) -> str:
    return sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _folders(paths: list[str]) -> list[str]:
    return sorted({str(parent) for path in paths for parent in Path(path).parents} - {"."})


class _Handler(BaseHTTPRequestHandler):
    held: Hub
    cut: Fault | None = None  # of the present request
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer is one packet: a second would wait 40 ms for the client's word

    def log_message(self, *_: Any) -> None:
        """Print nothing; `Hub.log` has the requests."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self._parts()
        if parts == ["api", "agent-harnesses"]:  # asked once a day, by the library itself
            self.send_error(404)
            return
        if self._fails():
            return
        if parts == [""]:  # the front page
            self._send(b"")
        elif parts[:2] == ["api", "whoami-v2"]:
            self._refuse(401)
        elif parts[0] == "api" and parts[1] in ("models", "datasets"):
            self._get_api("/".join(parts[1:4]), parts[4:])
        else:
            names = parts if parts[0] == "datasets" else ["models", *parts]
            if names[3:4] == ["resolve"] and len(names) > 5:
                self._get_file("/".join(names[:3]), names[4], "/".join(names[5:]))
            else:
                self._refuse(404)

    def _get_api(self, repository: str, rest: list[str]) -> None:
        """Answer with a description of a repository or a listing of its files."""
        revision = rest[1] if len(rest) > 1 else BRANCH
        files = self._files(repository, revision)
        if files is None:
            return
        name = repository.partition("/")[2]
        if rest[:1] != ["tree"]:
            sizes = {path: self.held.sizes.get(path, len(c)) for path, c in files.items()}
            siblings = [_sibling(path, files[path], size) for path, size in sizes.items()]
            commit = self.held.commit(repository, revision)
            self._answer({"_id": "1", "id": name, "sha": commit, "siblings": siblings})
            return
        below = "".join(f"{part}/" for part in rest[2:])
        paths = [path for path in files if path.startswith(below)]
        folders = [folder for folder in _folders(paths) if folder.startswith(below)]
        if "recursive=true" not in self.path.lower():
            paths = [path for path in paths if "/" not in path.removeprefix(below)]
            folders = [folder for folder in folders if "/" not in folder.removeprefix(below)]
        if below and not paths and not folders:
            self._refuse(404, "EntryNotFound")
            return
        self._answer([*(_entry(path, files[path]) for path in paths), *map(_folder, folders)])

    def _get_file(self, repository: str, revision: str, path: str) -> None:
        """Answer with a file, or the range of it that is wanted."""
        files = self._files(repository, revision)
        if files is None:
            return
        content = files.get(path)
        commit = {"X-Repo-Commit": self.held.commit(repository, revision)}
        if content is None:
            self._refuse(404, "EntryNotFound", commit)
            return
        is_large = path.endswith(LFS_SUFFIXES)
        etag = f'"{_digest(content) if is_large else _oid(content)}"'
        headers = {"ETag": etag, "Accept-Ranges": "bytes", **commit}
        if is_large:
            headers |= {"X-Linked-Etag": etag, "X-Linked-Size": str(len(content))}
        wanted = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if wanted is None or self.command == "HEAD":
            self._send(content, 200, headers)
            return
        start, end = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        self._send(content[start : end + 1], 206, headers)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parts = self._parts()
        repository = "/".join(parts[1:4])
        if self._fails():
            return
        if parts[:3] == ["api", "repos", "create"]:
            wanted = json.loads(body)
            kind = "datasets" if wanted.get("type") == "dataset" else "models"
            self.held.files.setdefault(f"{kind}/{wanted['organization']}/{wanted['name']}", {})
            self._answer({"url": f"{self.held.address}/{wanted['organization']}/{wanted['name']}"})
        elif parts[:2] == ["api", "validate-yaml"]:
            self._answer({"errors": [], "warnings": []})
        else:
            revision = parts[5] if parts[4:5] == ["paths-info"] and len(parts) > 5 else BRANCH
            files = self._files(repository, revision)
            if files is not None:
                self._post_to(repository, parts[4], body, files)

    def _post_to(self, repository: str, verb: str, body: bytes, files: Files) -> None:
        if verb == "paths-info":
            is_json = "json" in self.headers.get("Content-Type", "")
            wanted = json.loads(body) if is_json else parse_qs(body.decode())
            paths = wanted["paths"] if isinstance(wanted["paths"], list) else [wanted["paths"]]
            folders = [path for path in paths if path in _folders(list(files))]
            entries = [_entry(path, files[path]) for path in paths if path in files]
            self._answer([*entries, *map(_folder, folders)])
        elif verb == "preupload":
            uploads = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self._answer({"files": uploads})
        elif verb == "commit":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            place = f"{self.held.address}/{repository.removeprefix('models/')}"
            commit = self.held.commit(repository)
            self._answer(
                {
                    "commitUrl": f"{place}/commit/{commit}",
                    "commitOid": commit,
                    "pullRequestUrl": f"{place}/discussions/1",
                }
            )

    def _fails(self) -> bool:
        """Answer with the status of a fault, if there is one. A cut is left to `_send`."""
        fault = self.held.fault(self.command, self.path)
        self.cut = fault if fault is not None and fault.status is None else None
        if fault is None or fault.status is None:
            return False
        seconds = fault.retry_after
        headers = {} if seconds is None else {"Retry-After": str(seconds)}
        self._refuse(fault.status, fault.code, headers)
        return True

    def _files(self, repository: str, revision: str) -> Files | None:
        """Return the files of a revision; if there is none, answer so."""
        if repository not in self.held.files:
            self._refuse(404, "RepoNotFound")
            return None
        files = self.held.at(repository, revision)
        if files is None:
            self._refuse(404, "RevisionNotFound")
        return files

    def _parts(self) -> list[str]:
        """Return the parts of the path. A slash within a part, as in a revision, is quoted."""
        return [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]

    def _answer(self, value: Any, status: int = 200, headers: Headers | None = None) -> None:
        more = {"Content-Type": "application/json", **(headers or {})}
        self._send(json.dumps(value).encode(), status, more)

    def _refuse(self, status: int, code: str = "", headers: Headers | None = None) -> None:
        coded = {"X-Error-Code": code, "X-Error-Message": code} if code else {}
        self._answer({"error": code or "refused"}, status, {**coded, **(headers or {})})

    def _send(self, content: bytes, status: int = 200, headers: Headers | None = None) -> None:
        size = len(content)
        if self.command == "HEAD":
            content = b""
        elif self.cut is not None:
            content, self.close_connection = content[: self.cut.after], True
        self.held.log.append(Request(self.command, self.path, status, len(content)))
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(size)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def _folder(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
