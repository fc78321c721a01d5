"""The routes of the adapters."""

from typing import TYPE_CHECKING, Any

from florence_onnx.serving.adapters import anylabeling, labelstudio, openai
from florence_onnx.serving.bodies import json_body, read_json, responses
from florence_onnx.serving.refusals import RefusalError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from florence_onnx.serving.service import Service

BODIES = (openai.ChatBody, anylabeling.ShapesBody, labelstudio.LabellingBody)
"""The types of bodies, for the documentation."""


def add_adapters(app: "FastAPI") -> None:
    """Adds the routes."""
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response, StreamingResponse

    def service() -> "Service":
        found: Service = app.state.service
        return found

    async def chat(request: Request) -> Response:
        body = read_json(await request.body(), openai.ChatBody)
        (result,) = await service().answer(openai.asked_in_chat(body))
        model = body.model or service().models.names[0]
        if body.stream:
            events = openai.events(result, model)
            return StreamingResponse(events, media_type="text/event-stream")
        return JSONResponse(openai.completion(result, model))

    async def shapes(request: Request) -> Response:
        body = read_json(await request.body(), anylabeling.ShapesBody)
        (result,) = await service().answer(anylabeling.asked_for_shapes(body))
        return JSONResponse(anylabeling.shapes(result))

    async def info(request: Request) -> Response:
        name = request.path_params["name"]
        return JSONResponse(anylabeling.model_info(service().models, name))

    async def health(request: Request) -> Response:
        if anylabeling.HEADER in request.headers:
            return JSONResponse(anylabeling.health(service().models))
        return JSONResponse({"status": "UP", "model_class": "florence-onnx"})

    async def setup(request: Request) -> Response:
        return JSONResponse({"model_version": labelstudio.VERSION})

    async def predict(request: Request) -> Response:
        body = read_json(await request.body(), labelstudio.LabellingBody)
        most = service().limits.tasks
        if len(body.tasks) > most:
            raise RefusalError(
                422, "task_error", f"tasks has {len(body.tasks)} entries; it may have {most}"
            )
        controls = labelstudio.controls(body.label_config)
        predictions = []
        for task in body.tasks:
            found: list[dict[str, Any]] = []
            for control in controls:
                asked = labelstudio.asked_for_control(control, task)
                found += labelstudio.regions(control, await service().answer(asked))
            predictions.append(labelstudio.prediction(found))
        return JSONResponse({"results": predictions, "model_version": labelstudio.VERSION})

    for path, route, body, summary in (
        ("/v1/chat/completions", chat, openai.ChatBody, "OpenAI: answer a message with a picture"),
        ("/v1/predict", shapes, anylabeling.ShapesBody, "X-AnyLabeling: shapes to draw"),
        ("/predict", predict, labelstudio.LabellingBody, "Label Studio: predictions for tasks"),
    ):
        extra = {"requestBody": json_body(body)}
        app.add_api_route(
            path,
            route,
            methods=["POST"],
            summary=summary,
            openapi_extra=extra,
            responses=responses(),
        )
    app.add_api_route("/setup", setup, methods=["POST"], summary="Label Studio: set up")
    app.add_api_route("/health", health, methods=["GET"], summary="X-AnyLabeling, Label Studio")
    parameter = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    app.add_api_route(
        "/v1/models/{name:path}/info",
        info,
        methods=["GET"],
        summary="X-AnyLabeling: a model",
        openapi_extra={"parameters": [parameter]},
        responses=responses(),
    )
