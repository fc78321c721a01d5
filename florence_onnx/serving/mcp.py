"""Tools for assistants by the Model Context Protocol: ``florence-onnx mcp``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from florence_onnx import __version__
from florence_onnx.errors import FlorenceError, ImageError
from florence_onnx.generation.options import GenerationOptions
from florence_onnx.model import Florence2
from florence_onnx.results import Result
from florence_onnx.serving.asking import picture_bytes
from florence_onnx.serving.refusals import RefusalError
from florence_onnx.tasks import Task
from florence_onnx.terminal import one_line

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

_CAPTIONS = {
    "short": Task.CAPTION,
    "long": Task.DETAILED_CAPTION,
    "longest": Task.MORE_DETAILED_CAPTION,
}


def make_server(model: Florence2, folder: Path | None) -> "MCPServer[Any]":
    """Makes the server.

    Args:
        model: The model that answers.
        folder: The only folder with pictures that paths may name; None for no paths.
    """
    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError

    where = f" or the path of a picture in {folder}" if folder else ""
    server: MCPServer[Any] = MCPServer(
        "florence-onnx",
        version=__version__,
        instructions="Florence-2 looks at pictures. A picture is given as a data URI, base64 of a "
        f"picture file{where}. Boxes are [x1, y1, x2, y2] in pixels.",
    )

    def ask(image: str, task: Task, text: str | None = None, **options: Any) -> Result:
        given: GenerationOptions = {**options}  # type: ignore[typeddict-item]
        try:
            return model(_picture(image, folder), task, text, **given)
        except FlorenceError as error:  # The words of other errors are kept from the client.
            raise ToolError(one_line(error)) from None

    def caption(image: str, detail: Literal["short", "long", "longest"] = "short") -> str:
        """Describe a picture. detail: short, long or longest."""
        return ask(image, _CAPTIONS[detail]).text

    def detect(image: str, labels: list[str] | None = None) -> dict[str, Any]:
        """Detect the objects of a picture, with their boxes; labels: the only ones to look for."""
        return _located(ask(image, Task.OD, labels=labels or None))

    def read_text(image: str) -> dict[str, Any]:
        """Read the text of a picture, line by line, with the box of each line."""
        return _located(ask(image, Task.OCR_WITH_REGION))

    def locate(image: str, text: str) -> dict[str, Any]:
        """Locate what a text names or describes in a picture, with its boxes."""
        return _located(ask(image, Task.CAPTION_TO_PHRASE_GROUNDING, text))

    for tool in (caption, detect, read_text, locate):
        server.tool()(tool)
    return server


def _located(result: Result) -> dict[str, Any]:
    """Returns the size of the picture, and the located things."""
    record = result.record()
    found: Sequence[dict[str, Any]] = record["detections"]
    return {
        "size": record["size"],
        "found": [
            {
                "label": one["label"],
                "box": one["box"],
                "score": one["scores"]["score"] if "scores" in one else None,
            }
            for one in found
        ],
    }


def _picture(image: str, folder: Path | None) -> bytes | str:
    """Reads a picture in base64, or a picture in the folder by its path.

    Raises:
        ImageError: The text is neither base64 nor the path of a picture in the folder.
    """
    path = None if folder is None else _path(image, folder)
    if path is not None:
        return path
    try:
        return picture_bytes(image)
    except RefusalError:
        where = f", or the path of one in {folder}" if folder else ""
        raise ImageError(
            f"the image must be a picture file in base64, or a data URI of it{where}"
        ) from None


def _path(image: str, folder: Path) -> str | None:
    """Finds a file in the folder; None where the text names none, as base64 of a small picture."""
    if len(image) >= _LONGEST_PATH:
        return None
    try:
        path = (folder / image).resolve()
        return str(path) if path.is_relative_to(folder) and path.is_file() else None
    except (OSError, ValueError):  # A name that is too long, or has a zero.
        return None


_LONGEST_PATH = 4096
