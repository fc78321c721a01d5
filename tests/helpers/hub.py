"""A server on 127.0.0.1 that answers like the model hub, as far as downloads go."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
from huggingface_hub import constants, file_download

COMMIT = "c0ffee" + "0" * 34


class Hub(ThreadingHTTPServer):
    """Serves ``files`` of the one repository ``name`` and notes what was asked.

    With ``silent``, requests that contain this text get no answer, or half of a file ("body").
    """

    daemon_threads = True

    def __init__(self, name: str, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.name = name
        self.files = files
        self.gated = False
        self.silent = ""
        self.closing = threading.Event()
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def fetched(self) -> set[str]:
        """Names of the files whose content was asked for."""
        prefix = f"GET /{self.name}/resolve/{COMMIT}/"
        return {line.removeprefix(prefix) for line in self.requests if line.startswith(prefix)}


@contextmanager
def serve_hub(name: str, files: dict[str, bytes]) -> Iterator[Hub]:
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
        if hub.silent and hub.silent in line:
            hub.closing.wait()
            return
        api, files = f"/api/models/{hub.name}", f"/{hub.name}/resolve/{COMMIT}/"
        if hub.gated:
            self._send(b"", 403, {"X-Error-Code": "GatedRepo"}, body)
        elif path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
            siblings = [_sibling(*item) for item in hub.files.items()]
            info = {"id": hub.name, "modelId": hub.name, "sha": COMMIT, "siblings": siblings}
            self._send(json.dumps(info).encode(), 200, {}, body)
        elif path.startswith(f"{api}/tree/"):
            self._send(json.dumps([_tree_entry(*item) for item in hub.files.items()]).encode())
        elif path.startswith(files) and path.removeprefix(files) in hub.files:
            content = hub.files[path.removeprefix(files)]
            headers = {"ETag": f'"{_blob_id(content)}"', "X-Repo-Commit": COMMIT}
            if hub.silent == "xet":
                headers |= {"X-Xet-Hash": "a" * 64, "X-Xet-Refresh-Route": f"{hub.url}/xet-token"}
            self._send(content, 200, headers, body)
        else:
            known = path.startswith((f"{api}/", f"/{hub.name}/"))
            error = "RevisionNotFound" if known else "RepoNotFound"
            self._send(b"", 404, {"X-Error-Code": error}, body)

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
        elif body:
            self.wfile.write(content)


def _blob_id(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:40]


def _sibling(path: str, content: bytes) -> dict[str, object]:
    return {"rfilename": path, "size": len(content), "blobId": _blob_id(content)}


def _tree_entry(path: str, content: bytes) -> dict[str, object]:
    return {"type": "file", "path": path, "size": len(content), "oid": _blob_id(content)}
