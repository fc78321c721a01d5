"""The files beside the graphs: preprocessing, tokenizer, generation policy."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from florence_onnx.errors import ModelFileError
from florence_onnx.image import Preprocessor
from florence_onnx.policy import GenerationPolicy
from florence_onnx.tokenizer import Tokenizer


@dataclass(frozen=True)
class Companions:
    """What a model folder says besides its graphs."""

    preprocessor: Preprocessor
    """Picture to pixel_values."""
    tokenizer: Tokenizer
    """Text to ids and back."""
    policy: GenerationPolicy
    """How the checkpoint wants its answers searched."""
    max_positions: int
    """Rows of the position tables: the longest encoder input and the longest answer, in tokens."""

    @classmethod
    def read(cls, folder: Path) -> "Companions":
        """Reads the companion files of a model folder.

        Raises:
            ModelFileError: A file is missing, or is not what the exporter writes.
            TokenizerError: The tokenizer lacks tokens that Florence-2 needs.
        """
        config = _read_json(folder / "config.json")
        text_config = config.get("text_config")
        if not isinstance(text_config, dict):
            text_config = {}
        max_positions = text_config.get("max_position_embeddings")
        if not isinstance(max_positions, int):
            raise ModelFileError(
                f"{folder / 'config.json'} has no text_config.max_position_embeddings; "
                "it is not the configuration of a Florence-2"
            )
        tokenizer = Tokenizer.from_file(folder / "tokenizer.json")
        policy = GenerationPolicy.from_config(
            _read_json(folder / "generation_config.json"), config, tokenizer, max_positions
        )
        preprocessor = Preprocessor.from_config(_read_json(folder / "preprocessor_config.json"))
        return cls(preprocessor, tokenizer, policy, max_positions)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelFileError(
            f"{path} is missing; a model folder needs it beside the onnx folder"
        ) from error
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelFileError(f"{path} holds {type(content).__name__}, not a JSON object")
    return content
