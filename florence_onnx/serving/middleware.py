"""Middleware before the routes: ids, logs, keys and limits of requests."""

import asyncio
import base64
import hmac
import json
import logging
import re
import time
import uuid
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from florence_onnx.serving.limits import Limits
from florence_onnx.serving.logs import log, log_failure
from florence_onnx.serving.metrics import Metrics
from florence_onnx.serving.refusals import RefusalError, refusal

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN_PATHS = ("/healthz", "/readyz", "/health")
"""Routes that need no key, because they tell no more than that the service runs."""

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_METHODS = ("GET", "HEAD", "POST")
_KEY_HEADERS = ("x-api-key", "token")


class Requests:
    """Middleware that gives requests ids, counts and logs requests, and answers errors."""

    def __init__(self, app: "ASGIApp", metrics: Metrics) -> None:
        """Wraps an application.

        Args:
            app: The application.
            metrics: Metrics of every request.
        """
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Handles a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = _header(scope, "x-request-id")
        identity = given if _ID.fullmatch(given) else uuid.uuid4().hex
        start, status, code = time.perf_counter(), 0, ""

        async def answer(message: "Message") -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", identity.encode()),
                ]
            await send(message)

        # The server sends no body after HEAD.
        asked = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        try:
            await self._app(asked, receive, answer)
        except Exception as error:
            refused = refusal(error)
            code = refused.code
            if refused.status in (500, 503) and not isinstance(error, RefusalError):
                log_failure("failure", error, request=identity)
            if not status:
                await send_refusal(refused, answer)
        except asyncio.CancelledError:
            code = "cancelled"
            raise
        finally:
            seconds = time.perf_counter() - start
            route = getattr(asked.get("route"), "path", "none")
            self._metrics.answered(route, status or 499, seconds)
            level = logging.DEBUG if route in OPEN_PATHS else logging.INFO
            extra = {"code": code} if code else {}
            log(
                "request",
                level,
                request=identity,
                method=scope["method"] if scope["method"] in _METHODS else "other",
                route=route,
                status=status or 499,
                seconds=round(seconds, 4),
                bytes=asked.get("florence_onnx.bytes", 0),
                **extra,
            )


class Keys:
    """Middleware for keys: ``Authorization: Bearer KEY``, ``X-API-Key: KEY`` or ``Token: KEY``.

    The key may also be the password of ``Authorization: Basic``, as in Label Studio.
    """

    def __init__(self, app: "ASGIApp", keys: Collection[str]) -> None:
        """Wraps an application.

        Args:
            app: The application.
            keys: The keys, any of which is enough.
        """
        self._app, self._keys = app, [key.encode() for key in keys]

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Handles a request.

        Raises:
            RefusalError: The request has none of the keys.
        """
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            scheme, _, bearer = _header(scope, "authorization").partition(" ")
            given = [_header(scope, name) for name in _KEY_HEADERS]
            given += [bearer.strip()] if scheme.lower() == "bearer" else []
            given += [_password(bearer)] if scheme.lower() == "basic" else []
            matches = [
                hmac.compare_digest(one.encode(), key) for one in given for key in self._keys
            ]
            if not any(matches):
                raise RefusalError(
                    401,
                    "unauthorized",
                    "give the key of this service as Authorization: Bearer KEY",
                    {"WWW-Authenticate": "Bearer"},
                )
        await self._app(scope, receive, send)


class Bounds:
    """Middleware for limits of requests with a body; cancels requests whose client has gone."""

    def __init__(self, app: "ASGIApp", limits: Limits, metrics: Metrics) -> None:
        """Wraps an application.

        Args:
            app: The application.
            limits: The limits.
            metrics: Metrics of the number of requests.
        """
        self._app, self._limits, self._metrics = app, limits, metrics
        self._count = 0

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Handles a request.

        Raises:
            RefusalError: The request goes beyond a limit.
        """
        if scope["type"] != "http" or scope["method"] not in ("POST", "PUT", "PATCH"):
            await self._app(scope, receive, send)
            return
        if self._count >= self._limits.queue:
            raise RefusalError(
                429,
                "queue_full",
                f"{self._limits.queue} requests are being answered; try again later",
                {"Retry-After": "1"},
            )
        self._count += 1
        self._metrics.queue.set(self._count)
        try:
            await self._bounded(scope, receive, send)
        finally:
            self._count -= 1
            self._metrics.queue.set(self._count)

    async def _bounded(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        end = time.monotonic() + self._limits.seconds
        try:
            body = await asyncio.wait_for(self._body(scope, receive), self._limits.seconds)
        except asyncio.TimeoutError:
            raise RefusalError(
                408, "upload_timeout", f"the body took longer than {self._limits.seconds:g} s"
            ) from None
        self._metrics.stage("read", self._limits.seconds - (end - time.monotonic()))
        given = [body]
        del body

        async def replay() -> "Message":
            if given:
                return {"type": "http.request", "body": given.pop(), "more_body": False}
            await asyncio.Event().wait()  # After the body, the application waits for nothing more.
            return {"type": "http.disconnect"}

        work = asyncio.ensure_future(self._app(scope, replay, send))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait(
                {work, gone},
                timeout=max(0.0, end - time.monotonic()),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if work.done():
                work.result()
            elif not gone.done():
                raise RefusalError(
                    504, "timeout", f"the answer took longer than {self._limits.seconds:g} s"
                )
        finally:
            gone.cancel()
            work.cancel()
            await asyncio.wait({work, gone})

    async def _body(self, scope: "Scope", receive: "Receive") -> bytes:
        most = self._limits.body_mib << 20
        length = _header(scope, "content-length")
        if length.isdecimal() and int(length[:20]) > most:
            raise self._too_large()
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RefusalError(400, "disconnected", "the client has gone")
            part = message.get("body", b"")
            size, more = size + len(part), message.get("more_body", False)
            if size > most:
                raise self._too_large()
            parts.append(part)
        scope["florence_onnx.bytes"] = size
        return b"".join(parts)

    def _too_large(self) -> RefusalError:
        # The rest is not read, so the connection cannot be used again.
        return RefusalError(
            413,
            "too_large",
            f"the body has more than {self._limits.body_mib} MiB",
            {"Connection": "close"},
        )


async def send_refusal(refused: RefusalError, send: "Send") -> None:
    """Answers with an error."""
    body = json.dumps(refused.body()).encode()
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **refused.headers,
    }
    lines = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": lines})
    await send({"type": "http.response.body", "body": body})


async def _disconnected(receive: "Receive") -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _password(credentials: str) -> str:
    try:
        text = base64.b64decode(credentials.strip(), validate=True).decode("latin-1")
    except ValueError:
        return ""
    return text.partition(":")[2]


def _header(scope: "Scope", name: str) -> str:
    wanted = name.encode()
    values: list[Any] = [value for key, value in scope["headers"] if key == wanted]
    return values[0].decode("latin-1") if values else ""
