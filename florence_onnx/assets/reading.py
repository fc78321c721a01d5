"""The files beside the graphs: preprocessing, tokenizer, generation policy."""

from dataclasses import dataclass
from pathlib import Path

from florence_onnx.checkpoints.config import ModelConfig
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
    image_tokens: int
    """What a picture takes of them: rows of the image features."""

    @classmethod
    def read(cls, folder: Path) -> "Assets":
        """Reads the files beside the graphs of a model folder.

        Raises:
            ModelFileError: A file is missing, or is not what the exporter writes.
            TokenizerError: The tokenizer lacks tokens that Florence-2 needs.
        """
        content = read_json(folder / "config.json")
        text_config = content.get("text_config")
        if not isinstance(text_config, dict) or "max_position_embeddings" not in text_config:
            raise ModelFileError(
                f"{folder / 'config.json'} has no text_config.max_position_embeddings; "
                "it is not the configuration of a Florence-2"
            )
        config = ModelConfig.from_dict(content, ModelFileError)
        tokenizer = Tokenizer.from_file(folder / "tokenizer.json")
        policy = GenerationPolicy.from_config(
            read_json(folder / "generation_config.json"),
            content,
            tokenizer,
            config.text.max_position_embeddings,
            config.text.vocab_size,
        )
        preprocessor = Preprocessor.from_config(read_json(folder / "preprocessor_config.json"))
        image_tokens = _image_tokens(preprocessor.size, config)
        return cls(preprocessor, tokenizer, policy, policy.max_positions, image_tokens)


def _image_tokens(size: tuple[int, int], config: ModelConfig) -> int:
    """How many tokens a picture becomes: one for each place of the grid, and their mean."""
    rows, columns = config.vision.grid(*size)
    places, positions = config.vision.max_position_embeddings, config.text.max_position_embeddings
    picture = (
        f"preprocessor_config.json: a picture of {size[1]}x{size[0]} pixels becomes "
        f"{columns}x{rows} image tokens"
    )
    if not 0 < min(rows, columns) <= max(rows, columns) <= places:
        raise ModelFileError(f"{picture}, but the position tables have {places} rows")
    if rows * columns + 1 >= positions:
        raise ModelFileError(f"{picture}, which leaves no room for a prompt in {positions}")
    return rows * columns + 1
