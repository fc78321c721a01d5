"""Application of the page, with a limit of the size of requests."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from florence_onnx.page.blocks import SCRIPT
from florence_onnx.page.form import LIMITS
from florence_onnx.serving.middleware import send_refusal
from florence_onnx.serving.refusals import RefusalError

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Receive, Scope, Send

_FORM_BYTES = 1 << 20
"""Bytes of a request without the picture."""
_STYLE = """
#picture img { object-fit: contain; }
#drawings .thumbnail-lg { aspect-ratio: 4 / 3; }
#region-box { position: absolute; border: 2px solid #d55e00; pointer-events: none; }
"""


@contextmanager
def folder_for_files() -> Iterator[Path]:
    """Yields a folder for Gradio's pictures and drawings, which is removed at the end."""
    variable = "GRADIO_TEMP_DIR"
    before = os.environ.get(variable)
    with TemporaryDirectory(prefix="florence-onnx-") as folder:
        os.environ[variable] = folder
        try:
            yield Path(folder)
        finally:
            os.environ.pop(variable)
            if before is not None:
                os.environ[variable] = before


def make_app(page: Any) -> "FastAPI":
    """Makes the application.

    Args:
        page: Result of `make_page`.
    """
    import gradio as gr
    from fastapi import FastAPI

    most = LIMITS.body_mib << 20
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=most,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=gr.themes.Default(),  # Gradio brings the fonts of this theme.
        css=_STYLE,
        head=f"<script>{SCRIPT.read_text(encoding='utf-8')}</script>",
    )
    # Gradio holds the paths in requests against its folder only where it believes it was launched.
    page.has_launched = True
    app.add_middleware(BodyLimit, most=most + _FORM_BYTES)
    return app


class BodyLimit:
    """Middleware that refuses a request whose body is too large, or of unknown size."""

    def __init__(self, app: "ASGIApp", most: int) -> None:
        """Wraps an application.

        Args:
            app: The application.
            most: Limit of a body in bytes.
        """
        self._app, self._most = app, most

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Handles a request."""
        if scope["type"] == "http" and scope["method"] == "POST":
            length = dict(scope["headers"]).get(b"content-length", b"")
            if not length.isdigit():
                refused = RefusalError(411, "length_required", "give the body's Content-Length")
                return await send_refusal(refused, send)
            if int(length[:20]) > self._most:
                words = f"the body has more than {self._most >> 20} MiB"
                refused = RefusalError(413, "too_large", words, {"Connection": "close"})
                return await send_refusal(refused, send)
        return await self._app(scope, receive, send)
