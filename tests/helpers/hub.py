"""A server on 127.0.0.1 that answers like the model hub, as far as downloads go."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
from huggingface_hub import constants, file_download

COMMIT = "c0ffee" + "0" * 34


Files = dict[str, bytes]


class Hub(ThreadingHTTPServer):
    """Serves ``files`` of the repository ``name``, and ``others``, and notes what was asked.

    With ``silent``, requests that contain this text get no answer, or half of a file ("body").
    The next ``breaks`` connections end in the middle of a file that is no JSON. ``event`` is called
    before every answer. With ``refusal``, a status and headers, requests are refused that contain
    the text ``refused``.
    """

    daemon_threads = True

    def __init__(self, name: str, files: Files) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.name = name
        self.files = files
        self.commit = COMMIT
        self.earlier: dict[str, Files] = {}
        self.tags: dict[str, str] = {}
        self.others: dict[str, Files] = {}
        self.breaks = 0
        self.event: Callable[[str], object] = lambda line: None
        self.refusal: tuple[int, dict[str, str]] | None = None
        self.refused = ""
        self.silent = ""
        self.closing = threading.Event()
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def fetched(self) -> set[str]:
        """Names of the files whose content was asked for."""
        prefix = f"GET /{self.name}/resolve/"
        lines = [line.removeprefix(prefix) for line in self.requests if line.startswith(prefix)]
        return {line.partition("/")[2] for line in lines}

    def move(self, commit: str, files: Files) -> None:
        """Makes another commit that of the main branch; the one before can be had by its hash."""
        self.earlier[self.commit] = self.files
        self.commit, self.files = commit, files

    def commits(self, name: str) -> dict[str, Files]:
        """What every commit of a repository holds."""
        if name == self.name:
            return {**self.earlier, self.commit: self.files}
        return {COMMIT: self.others[name]}

    def revisions(self, name: str) -> dict[str, str]:
        """Branch, tag or commit -> commit."""
        known = {commit: commit for commit in self.commits(name)}
        if name == self.name:
            return {**known, "main": self.commit, **self.tags}
        return {**known, "main": COMMIT}


@contextmanager
def serve_hub(name: str, files: Files) -> Iterator[Hub]:
    """Runs a hub with one repository until the block ends."""
    with Hub(name, files) as hub:
        thread = threading.Thread(target=hub.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield hub
        finally:
            hub.closing.set()
            hub.shutdown()
            thread.join()


def use_empty_cache(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Has downloads go to ``folder``, so that no test sees or fills the user's cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setenv("FLORENCE_ONNX_CACHE", f"{folder}-models")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def limit_waits(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Has the hub library give up after ``seconds`` instead of ten, and try again at once."""
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", seconds)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", seconds)
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def use_hub(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Has the hub library talk to ``url``, as HF_ENDPOINT would if it were set from the start."""
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    for module in (constants, file_download):  # older versions copy constants by name
        monkeypatch.setattr(module, "ENDPOINT", url, raising=False)
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the test output clean."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        hub, path = self.server, unquote(self.path).partition("?")[0]
        line = f"{self.command} {path}"
        hub.requests.append(line)
        hub.event(line)
        if hub.silent and hub.silent in line:
            hub.closing.wait()
            return
        if hub.refusal is not None and hub.refused in line:
            status, headers = hub.refusal
            self._send(b"", status, headers, body)
            return
        for name in (hub.name, *hub.others):
            for start, answer in (
                (f"/api/models/{name}/", self._answer_api),
                (f"/{name}/resolve/", self._answer_file),
            ):
                if f"{path}/".startswith(start):
                    if not answer(name, path.removeprefix(start[:-1]).strip("/"), body):
                        self._send(b"", 404, {"X-Error-Code": "RevisionNotFound"}, body)
                    return
        self._send(b"", 404, {"X-Error-Code": "RepoNotFound"}, body)

    def _answer_api(self, name: str, rest: str, body: bool) -> bool:
        """Lists the files of a revision."""
        kind, _, revision = rest.partition("/")
        commit = self.server.revisions(name).get(revision or "main")
        if commit is None:
            return False
        files = self.server.commits(name)[commit]
        content: object = [_tree_entry(*item) for item in files.items()]
        if kind != "tree":
            siblings = [_sibling(*item) for item in files.items()]
            content = {"id": name, "modelId": name, "sha": commit, "siblings": siblings}
        self._send(json.dumps(content).encode(), 200, {}, body)
        return True

    def _answer_file(self, name: str, rest: str, body: bool) -> bool:
        """Gives a file of a commit, from the byte on that is asked for."""
        hub = self.server
        commit, _, file = rest.partition("/")
        content = hub.commits(name).get(commit, {}).get(file)
        if content is None:
            return False
        headers = {"ETag": f'"{_blob_id(content)}"', "X-Repo-Commit": commit}
        if hub.silent == "xet":
            headers |= {"X-Xet-Hash": "a" * 64, "X-Xet-Refresh-Route": f"{hub.url}/xet-token"}
        start = self.headers.get("Range", "").removeprefix("bytes=").partition("-")[0]
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            content = content[int(start) :]
        self._send(content, 206 if start else 200, headers, body)
        return True

    def _send(
        self,
        content: bytes,
        status: int = 200,
        headers: dict[str, str] | None = None,
        body: bool = True,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body and self.server.silent == "body" and "ETag" in (headers or {}):
            self.wfile.write(content[: len(content) // 2])
            self.server.closing.wait()
        elif body and self.server.breaks and "/resolve/" in self.path and ".json" not in self.path:
            self.server.breaks -= 1
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        elif body:
            self.wfile.write(content)


@lru_cache(maxsize=32)
def _blob_id(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:40]


def _sibling(path: str, content: bytes) -> dict[str, object]:
    return {"rfilename": path, "size": len(content), "blobId": _blob_id(content)}


def _tree_entry(path: str, content: bytes) -> dict[str, object]:
    return {"type": "file", "path": path, "size": len(content), "oid": _blob_id(content)}
