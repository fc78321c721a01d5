"""Routes of the adapters."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from florence_onnx.serving.adapters import anylabeling, labelstudio, openai
from florence_onnx.serving.bodies import json_body, read_body, responses
from florence_onnx.serving.examples import CHAT, LABELLING, Examples
from florence_onnx.serving.refusals import RefusalError
from florence_onnx.serving.service import service_of

if TYPE_CHECKING:
    from fastapi import FastAPI

BODIES = (openai.ChatBody, anylabeling.ShapesBody, labelstudio.LabellingBody)
"""Types of bodies, for the documentation."""


def add_adapters(app: "FastAPI") -> None:
    """Adds the routes of all adapters."""
    _add_openai(app)
    _add_anylabeling(app)
    _add_labelstudio(app)
    _add_health(app)


def _add_question(
    app: "FastAPI",
    path: str,
    route: Callable[..., Any],
    body: type,
    summary: str,
    examples: Examples | None = None,
    has_events: bool = False,
) -> None:
    """Adds a route that reads a body and asks the model."""
    app.add_api_route(
        path,
        route,
        methods=["POST"],
        summary=summary,
        openapi_extra={"requestBody": json_body(body, examples or {})},
        responses=responses(has_events=has_events),
    )


def _add_openai(app: "FastAPI") -> None:
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response, StreamingResponse

    async def chat(request: Request) -> Response:
        body, asked = await read_body(
            request, openai.ChatBody, lambda body: (body, openai.asked_in_chat(body))
        )
        (result,) = await service_of(app).answer(asked)
        model = body.model or service_of(app).models.names[0]
        if body.stream:
            events = openai.events(result, model)
            return StreamingResponse(events, media_type="text/event-stream")
        return JSONResponse(openai.completion(result, model))

    summary = "OpenAI: answer a message with a picture"
    _add_question(
        app, "/v1/chat/completions", chat, openai.ChatBody, summary, CHAT, has_events=True
    )


def _add_anylabeling(app: "FastAPI") -> None:
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response

    async def shapes(request: Request) -> Response:
        asked = await read_body(request, anylabeling.ShapesBody, anylabeling.asked_for_shapes)
        (result,) = await service_of(app).answer(asked)
        return JSONResponse(anylabeling.shapes(result))

    async def info(request: Request) -> Response:
        name = request.path_params["name"]
        return JSONResponse(anylabeling.model_info(service_of(app).models, name))

    summary = "X-AnyLabeling: shapes to draw"
    _add_question(app, "/v1/predict", shapes, anylabeling.ShapesBody, summary)
    parameter = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    app.add_api_route(
        "/v1/models/{name:path}/info",
        info,
        methods=["GET"],
        summary="X-AnyLabeling: a model",
        openapi_extra={"parameters": [parameter]},
        responses=responses(),
    )


def _add_labelstudio(app: "FastAPI") -> None:
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response

    async def setup(request: Request) -> Response:
        return JSONResponse({"model_version": labelstudio.VERSION})

    async def predict(request: Request) -> Response:
        body = await read_body(request, labelstudio.LabellingBody, lambda body: body)
        most = service_of(app).limits.tasks
        if len(body.tasks) > most:
            raise RefusalError(
                422, "task_error", f"tasks has {len(body.tasks)} entries; it may have {most}"
            )
        controls = labelstudio.controls(body.label_config)
        predictions = []
        for task in body.tasks:
            found: list[dict[str, Any]] = []
            for control in controls:
                asked = await run_in_threadpool(labelstudio.asked_for_control, control, task)
                found += labelstudio.regions(control, await service_of(app).answer(asked))
            predictions.append(labelstudio.prediction(found))
        return JSONResponse({"results": predictions, "model_version": labelstudio.VERSION})

    summary = "Label Studio: predictions for tasks"
    _add_question(app, "/predict", predict, labelstudio.LabellingBody, summary, LABELLING)
    app.add_api_route("/setup", setup, methods=["POST"], summary="Label Studio: set up")


def _add_health(app: "FastAPI") -> None:
    """Adds the one path that two front ends ask, told apart by a header."""
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response

    async def health(request: Request) -> Response:
        if anylabeling.HEADER in request.headers:
            return JSONResponse(anylabeling.health(service_of(app).models))
        return JSONResponse({"status": "UP", "model_class": "florence-onnx"})

    app.add_api_route("/health", health, methods=["GET"], summary="X-AnyLabeling, Label Studio")
