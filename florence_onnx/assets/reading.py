"""The files beside the graphs: preprocessing, tokenizer, generation policy."""

from dataclasses import dataclass
from pathlib import Path

from florence_onnx.errors import ModelFileError
from florence_onnx.files import read_json
from florence_onnx.generation.policy import GenerationPolicy
from florence_onnx.images.preprocessor import Preprocessor
from florence_onnx.tokenizer import Tokenizer


@dataclass(frozen=True)
class Assets:
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
    def read(cls, folder: Path) -> "Assets":
        """Reads the files beside the graphs of a model folder.

        Raises:
            ModelFileError: A file is missing, or is not what the exporter writes.
            TokenizerError: The tokenizer lacks tokens that Florence-2 needs.
        """
        config = read_json(folder / "config.json")
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
            read_json(folder / "generation_config.json"), config, tokenizer, max_positions
        )
        preprocessor = Preprocessor.from_config(read_json(folder / "preprocessor_config.json"))
        return cls(preprocessor, tokenizer, policy, max_positions)
