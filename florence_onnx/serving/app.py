"""Application of the service: routes and middleware."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from florence_onnx import __version__
from florence_onnx.serving.adapters import anylabeling
from florence_onnx.serving.adapters.routes import BODIES, add_adapters
from florence_onnx.serving.bodies import (
    asked_body,
    definitions,
    make_checkers,
    read_asked,
    reference,
    responses,
)
from florence_onnx.serving.limits import Limits
from florence_onnx.serving.logs import log_failure
from florence_onnx.serving.metrics import Metrics
from florence_onnx.serving.middleware import Bounds, Keys, Requests
from florence_onnx.serving.models import Models
from florence_onnx.serving.refusals import RefusalError
from florence_onnx.serving.schemas import Answers, ErrorBody, PictureQuestion, Question, Record
from florence_onnx.serving.service import Service, service_of

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.responses import Response


_ROUTING = {
    404: ("not_found", "there is no such path; /docs and /openapi.json list all paths"),
    405: ("method_not_allowed", "this path takes another method; see /docs or /openapi.json"),
}
"""Status of an error of the routes -> code and message."""


@dataclass(frozen=True)
class Access:
    """Access to the service."""

    keys: Collection[str] = ()
    """Keys, any of which is enough; empty for access without a key."""
    origins: Collection[str] = ()
    """Origins of pages in browsers that have access; empty for no page."""


def make_app(
    make_models: Callable[[Metrics], Models],
    limits: Limits,
    access: Access,
    on_failure: Callable[[BaseException], None] = lambda error: None,
) -> "FastAPI":
    """Makes the application.

    Args:
        make_models: Makes the models; called on the event loop.
        limits: Limits of every request.
        access: Access to the service.
        on_failure: Called with the error when the first models cannot be opened.
    """
    from fastapi_offline import FastAPIOffline
    from starlette.middleware.cors import CORSMiddleware

    metrics = Metrics()
    make_checkers(PictureQuestion, Question, *BODIES)
    # FastAPI's own page of documentation fetches its program from the web.
    app = FastAPIOffline(
        title="florence-onnx",
        version=__version__,
        summary="Florence-2: captions, boxes, grounding, polygons and OCR",
        lifespan=_lifespan(lambda: Service(make_models(metrics), limits, metrics), on_failure),
        redoc_url=None,
    )
    _add_routes(app)
    _add_status(app)
    add_adapters(app)
    _describe(app)
    # The middleware that is added last sees a request first.
    app.add_middleware(Bounds, limits=limits, metrics=metrics)
    if access.keys:
        app.add_middleware(Keys, keys=access.keys)
    app.add_middleware(Requests, metrics=metrics)
    if access.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(access.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
        )
    return app


def _lifespan(
    make_service: Callable[[], Service], on_failure: Callable[[BaseException], None]
) -> Callable[["FastAPI"], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: "FastAPI") -> AsyncIterator[None]:
        service = make_service()
        app.state.service = service
        tasks = [
            asyncio.create_task(_open_first(service.models, on_failure)),
            asyncio.create_task(service.models.close_idle()),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await asyncio.to_thread(service.close)

    return lifespan


async def _open_first(models: Models, on_failure: Callable[[BaseException], None]) -> None:
    try:
        await models.open_first()
    except Exception as error:
        log_failure("model cannot be opened", error)
        on_failure(error)


def _add_routes(app: "FastAPI") -> None:
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import Response

    async def answer(request: Request) -> Response:
        asked = await read_asked(request)
        records = [result.record() for result in await service_of(app).answer(asked)]
        return json_response({"answers": records} if asked.is_list else records[0])

    async def models(request: Request) -> Response:
        if anylabeling.HEADER in request.headers:
            return json_response(anylabeling.model_list(service_of(app).models))
        return json_response(listed(service_of(app).models))

    async def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        code, message = _ROUTING.get(error.status_code, ("refused", str(error.detail)))
        raise RefusalError(error.status_code, code, message, error.headers)

    found = {"anyOf": [reference(Record), reference(Answers)]}
    app.add_api_route(
        "/v1/answer",
        answer,
        methods=["POST"],
        summary="Answer one or several tasks on a picture",
        openapi_extra={"requestBody": asked_body()},
        responses=responses(found),
    )
    app.add_api_route(
        "/v1/models", models, methods=["GET"], summary="List the models", responses=responses()
    )
    app.add_exception_handler(HTTPException, refuse)


def _add_status(app: "FastAPI") -> None:
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse, Response

    async def live(request: Request) -> Response:
        return json_response({"status": "ok"})

    async def ready(request: Request) -> Response:
        if not service_of(app).models.is_ready:
            raise RefusalError(503, "not_ready", "the model is being opened", {"Retry-After": "1"})
        return json_response({"status": "ok"})

    async def metrics(request: Request) -> Response:
        content, kind = service_of(app).metrics.page()
        return Response(content, media_type=kind)

    for path, route, summary, kind in (
        ("/healthz", live, "Tell that the process is there", JSONResponse),
        ("/readyz", ready, "Tell whether a model is open and warmed up", JSONResponse),
        ("/metrics", metrics, "Metrics for Prometheus", PlainTextResponse),
    ):
        app.add_api_route(
            path,
            route,
            methods=["GET"],
            summary=summary,
            response_class=kind,
            responses=responses(),
        )


def listed(models: Models) -> dict[str, Any]:
    """Lists the models as OpenAI's interface does, and whether each is open."""
    rows = [
        {
            "id": name,
            "object": "model",
            "created": 0,
            "owned_by": "florence-onnx",
            "open": models.is_open(name),
        }
        for name in models.names
    ]
    return {"object": "list", "data": rows}


def json_response(content: Any) -> "Response":
    """Makes a response of JSON."""
    from starlette.responses import Response

    return Response(json.dumps(content, allow_nan=False), media_type="application/json")


def _describe(app: "FastAPI") -> None:
    """Adds the types of bodies, which FastAPI does not see, to the documentation of routes."""
    original = app.openapi

    def described() -> dict[str, Any]:
        schema = original()
        components = schema.setdefault("components", {}).setdefault("schemas", {})
        components |= definitions(PictureQuestion, Record, Answers, ErrorBody, *BODIES)
        return schema

    app.openapi = described  # type: ignore[method-assign]
