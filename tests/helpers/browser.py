"""A page of docs/ in a headless Chromium, with its packages and its model from this machine."""

import json
import queue
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

_VERSION = re.compile(r"(?<=\w)@[0-9][^/]*")
_LONGEST = 300
"""Seconds after which a browser has failed."""
_WATCH = """<!doctype html><iframe id="frame"></iframe><script>
const frame = document.getElementById('frame');
frame.addEventListener('load', () => {
  const page = frame.contentDocument;
  const [status, answer] = ['status', 'answer'].map((id) => page.getElementById(id));
  const look = () => {
    if (!/^(Done|Failed|The model cannot)/.test(status.textContent)) return;
    const body = JSON.stringify([status.textContent, answer.textContent]);
    fetch('/ended', { method: 'POST', body });
  };
  new MutationObserver(look).observe(status, { childList: true, characterData: true });
  look();
});
frame.src = decodeURIComponent(location.hash.slice(1));
</script>"""


class _Handler(SimpleHTTPRequestHandler):
    """Serves folders by the first part of a path; versions in names of packages are dropped."""

    def __init__(self, folders: Mapping[str, Path], ended: "queue.Queue[Any]", *args: Any) -> None:
        self._folders = folders
        self._ended = ended
        self.extensions_map = {**self.extensions_map, ".mjs": "text/javascript"}
        super().__init__(*args)

    def translate_path(self, path: str) -> str:
        first, _, rest = unquote(path.partition("?")[0]).lstrip("/").partition("/")
        return str(self._folders.get(first, Path("nowhere")) / _VERSION.sub("", rest))

    def do_GET(self) -> None:
        if self.path != "/watch":
            super().do_GET()
            return
        self._answer(_WATCH.encode())

    def do_POST(self) -> None:
        self._ended.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self._answer(b"")

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Says nothing."""


def chromium() -> str | None:
    """The program, None where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


def answer_of_page(
    program: str, page: str, folders: Mapping[str, Path], profile: Path
) -> tuple[str, str]:
    """Opens a page and waits for its end; gives the texts of ``status`` and ``answer`` in it.

    Args:
        program: From `chromium`.
        page: Its path with a query, where ``{url}`` stands for the server's address.
        folders: What the server has, by the first part of a path.
        profile: A folder for the program.

    Raises:
        queue.Empty: There was no end.
    """
    ended: queue.Queue[Any] = queue.Queue()
    with _served(partial(_Handler, folders, ended)) as url:
        address = f"{url}/watch#{url}/{page.replace('{url}', url)}"
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        with subprocess.Popen(
            [program, *options, f"--user-data-dir={profile}", address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as browser:
            try:
                status, answer = ended.get(timeout=_LONGEST)
            finally:
                browser.terminate()
    return status, answer


@contextmanager
def _served(handler: Any) -> Iterator[str]:
    """Serves until the block ends; gives the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
