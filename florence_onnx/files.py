"""Files that are read whole, with one line that says what is wrong with them."""

import json
from pathlib import Path
from typing import Any

from florence_onnx.errors import FlorenceError, ModelFileError


def read_json(path: Path, error: type[FlorenceError] = ModelFileError) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: The file.
        error: What is raised when the file is missing or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(f"{path} is missing; a model folder or checkpoint needs it") from None
    except (OSError, ValueError) as reason:
        raise error(f"{path} cannot be read as JSON: {reason}") from reason
    if not isinstance(content, dict):
        raise error(f"{path} holds {type(content).__name__}, not a JSON object")
    return content
