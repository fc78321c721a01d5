"""Reading of the bodies of requests, and their description for the documentation."""

import json
from collections.abc import AsyncGenerator, Callable, Hashable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from florence_onnx.serving.asking import Asked, asked, asked_in_json
from florence_onnx.serving.examples import ANSWER, Examples
from florence_onnx.serving.refusals import RefusalError
from florence_onnx.serving.schemas import ErrorBody, PictureQuestion, Question

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError
    from starlette.requests import Request

T = TypeVar("T")
R = TypeVar("R")

_REFERENCES = "#/components/schemas/{model}"
_JSON_FIELDS = ("tasks", "options", "min_score")
"""Fields of a form that hold JSON."""
_COMMAS = {"region": 3, "tiles": 1}
"""Fields of a form that may hold a list, as JSON or without brackets -> commas of the list."""
_MOST_FIELDS = 16
_FIELD_BYTES = 1 << 20
_MOST_SHOWN = 3
_MOST_COMMAS = 50_000
"""Commas of a body of JSON, which bound the number of values and so of errors: a megabyte of wrong
values would make errors of half a gigabyte. Pictures in base64 have no comma."""


def read_json(body: bytes, kind: type[T]) -> T:
    """Checks a body of JSON against a dataclass or typed dictionary.

    Raises:
        RefusalError: The body is no JSON, has too many values, or a field is missing, unknown or
            of another type.
    """
    from pydantic import ValidationError

    if body.count(b",") > _MOST_COMMAS:
        raise RefusalError(
            413, "too_large", f"the body has more than {_MOST_COMMAS} values, or commas in texts"
        )
    try:
        found: T = _checker(cast(Hashable, kind)).validate_json(body)
    except ValidationError as error:
        raise RefusalError(400, "invalid_request", _words(error)) from None
    return found


def make_checkers(*kinds: Any) -> None:
    """Makes the checkers of bodies, in one thread only: Python's parser fails in several."""
    for kind in kinds:
        _checker(kind)


@cache
def _checker(kind: Hashable) -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter

    return TypeAdapter(cast(Any, kind))


async def read_body(request: "Request", kind: type[T], read: Callable[[T], R]) -> R:
    """Checks a body of JSON and reads it in another thread, as pictures in it may be large.

    Args:
        request: The request, the size of whose body has been checked.
        kind: Type of the body.
        read: Function that decodes the pictures of the checked body.

    Raises:
        RefusalError: The body is no JSON, a field is missing, unknown or of another type, or
            ``read`` refuses it.
    """
    from starlette.concurrency import run_in_threadpool

    body = await request.body()
    return await run_in_threadpool(lambda: read(read_json(body, kind)))


async def read_asked(request: "Request") -> Asked:
    """Reads the body of /v1/answer: JSON or a form, whose size has been checked.

    Raises:
        RefusalError: The body is neither, or a field is missing, unknown or of another type.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _read_form(request)
    if kind not in ("application/json", ""):
        raise RefusalError(
            415,
            "unsupported_media_type",
            "the body must be application/json or multipart/form-data",
        )
    return await read_body(request, PictureQuestion, asked_in_json)


async def _read_form(request: "Request") -> Asked:
    from starlette.datastructures import UploadFile
    from starlette.formparsers import MultiPartException, MultiPartParser

    async def chunks() -> AsyncGenerator[bytes, None]:
        yield await request.body()

    parser = MultiPartParser(
        request.headers,
        chunks(),
        max_files=1,
        max_fields=_MOST_FIELDS,
        max_part_size=_FIELD_BYTES,
    )
    # Nothing is written to a disk, which may be read-only. The body in memory has a limit.
    parser.spool_max_size = 0
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise RefusalError(
            400, "invalid_request", f"the form cannot be read: {error.message}"
        ) from None
    except (ValueError, KeyError):
        raise RefusalError(400, "invalid_request", "the form cannot be read") from None
    try:
        image = form.get("image")
        if not isinstance(image, UploadFile):
            raise RefusalError(400, "invalid_request", "image: the form needs a file of this name")
        fields = [(name, value) for name, value in form.multi_items() if name != "image"]
        return asked(_question(fields), await image.read())
    finally:
        await form.close()


def _question(fields: "list[tuple[str, Any]]") -> Question:
    found: dict[str, Any] = {}
    for name, value in fields:
        if name in found or not isinstance(value, str):
            raise RefusalError(400, "invalid_request", f"{name[:80]}: give one value, and no file")
        found[name] = _value(name, value)
    return read_json(json.dumps(found).encode(), Question)


def _value(name: str, text: str) -> Any:
    is_json = name in _JSON_FIELDS
    if name in _COMMAS:
        is_list = text.lstrip().startswith("[")
        text = f"[{text}]" if text.count(",") == _COMMAS[name] and not is_list else text
        is_json = text.lstrip().startswith("[")
    if not is_json:
        return text
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise RefusalError(400, "invalid_request", f"{name}: this is no JSON") from None


def _refuse_constant(text: str) -> None:
    raise ValueError(text)


def json_body(kind: type[Any], examples: Examples) -> dict[str, Any]:
    """Describes a body of JSON for OpenAPI.

    Args:
        kind: Type of the body.
        examples: Bodies that can be sent as they are.
    """
    return {"required": True, "content": {"application/json": _json_content(kind, examples)}}


def asked_body() -> dict[str, Any]:
    """Describes the body of /v1/answer for OpenAPI."""
    fields = {
        name: {"type": "string", "contentMediaType": "application/json"}
        if name in _JSON_FIELDS
        else {"type": "string"}
        for name in ("task", "text", "region", "prompt", "answer", "model", "tiles", *_JSON_FIELDS)
    }
    form = {
        "type": "object",
        "required": ["image"],
        "properties": {"image": {"type": "string", "format": "binary"}, **fields},
    }
    content = {
        "application/json": _json_content(PictureQuestion, ANSWER),
        "multipart/form-data": {"schema": form},
    }
    return {"required": True, "content": content}


def responses(
    found: Mapping[str, Any] | None = None, has_events: bool = False
) -> dict[int | str, dict[str, Any]]:
    """Describes answers for OpenAPI.

    Args:
        found: Schema of an answer without error, if there is a schema.
        has_events: Tells whether the answer may come as events.
    """
    wrong = {"application/json": {"schema": reference(ErrorBody)}}
    told: dict[int | str, dict[str, Any]] = {
        "4XX": {"description": "The request cannot be answered", "content": wrong},
        "5XX": {"description": "The service cannot answer now", "content": wrong},
    }
    if found is not None:
        content = {"application/json": {"schema": found}}
        told[200] = {"description": "The answer", "content": content}
    if has_events:
        told[200] = {"description": "The answer", "content": {"text/event-stream": {}}}
    return told


def definitions(*kinds: Any) -> dict[str, Any]:
    """Makes the schemas of types and of all types in these, by name."""
    from pydantic import TypeAdapter

    found: dict[str, Any] = {}
    for kind in kinds:
        schema = TypeAdapter(kind).json_schema(ref_template=_REFERENCES)
        found |= schema.pop("$defs", {})
        found[kind.__name__] = schema
    return found


def reference(kind: Any) -> Mapping[str, str]:
    """Makes a reference to a type of `definitions`."""
    return {"$ref": _REFERENCES.format(model=kind.__name__)}


def _json_content(kind: type[Any], examples: Examples) -> dict[str, Any]:
    shown = {title: {"value": body} for title, body in examples.items()}
    return {"schema": reference(kind), "examples": shown}


def _words(error: "ValidationError") -> str:
    """Writes the error of a field without the given value."""
    found = error.errors(include_input=False, include_url=False, include_context=False)
    lines = [
        f"{'.'.join(map(str, one['loc']))[:80] or 'the body'}: {one['msg'][:200]}"
        for one in found[:_MOST_SHOWN]
    ]
    more = f"; and {len(found) - _MOST_SHOWN} more" if len(found) > _MOST_SHOWN else ""
    return "; ".join(lines) + more
