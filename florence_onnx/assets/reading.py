"""The files beside the graphs: preprocessing, tokenizer, generation policy."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from florence_onnx.checkpoints.config import ModelConfig, is_native
from florence_onnx.errors import ModelFileError, TaskError, TokenizerError
from florence_onnx.fields import Fields
from florence_onnx.files import read_json
from florence_onnx.generation.checkpoint_policy import read_policy
from florence_onnx.generation.policy import GenerationPolicy
from florence_onnx.generation.settings import notes, of_model_config, shorten
from florence_onnx.images.preprocessor import Preprocessor
from florence_onnx.tokenizer import LONGEST_TOKEN, Tokenizer

_RELEASED_IMAGE_TOKEN = 51289

_MOST_PLACES = 1 << 20
"""Tokens of the largest grid in the vision encoder; the released models have 36,864."""


@dataclass(frozen=True)
class Assets:
    """The content of a model folder besides its graphs."""

    preprocessor: Preprocessor
    """Picture to pixel_values."""
    tokenizer: Tokenizer
    """Text to ids and back."""
    policy: GenerationPolicy
    """The checkpoint's settings for the search."""
    max_positions: int
    """Rows of the position tables: the longest encoder input and the longest answer, in tokens."""
    image_tokens: int
    """Positions that a picture takes: the rows of its image features."""
    image_token_id: int | None = None
    """The token that stands for each of these positions in the prompt of transformers; None in
    Microsoft's format, where no token does."""
    notes: tuple[str, ...] = ()
    """Settings for generation that the search does not follow; a sentence for each."""

    @classmethod
    def read(cls, folder: Path) -> "Assets":
        """Reads the files beside the graphs of a model folder.

        Raises:
            ModelFileError: A file is missing, or is not what the exporter writes.
            TokenizerError: The tokenizer lacks tokens that Florence-2 needs, or has more than
                the model.
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
        if tokenizer.highest_id >= config.text.vocab_size:
            raise TokenizerError(
                f"{folder / 'tokenizer.json'} is of another model: its ids go up to "
                f"{tokenizer.highest_id}, but config.json: text_config.vocab_size is "
                f"{config.text.vocab_size}"
            )
        generation = read_json(folder / "generation_config.json")
        given = {name: value for name, value in generation.items() if value is not None}
        said = {**of_model_config(text_config), **given}
        cut = shorten(said, config.text.max_position_embeddings)[1]
        policy = read_policy(
            generation,
            content,
            tokenizer,
            config.text.max_position_embeddings,
            config.text.vocab_size,
        )
        preprocessor = Preprocessor.from_config(read_json(folder / "preprocessor_config.json"))
        image_tokens = _image_tokens(preprocessor.size, config)
        return cls(
            preprocessor,
            tokenizer,
            policy,
            policy.max_positions,
            image_tokens,
            _image_token(content),
            (*cut, *notes(said)),
        )

    def encode_prompt(self, prompt: str) -> list[int]:
        """The ids of a prompt, as `Tokenizer.encode_text` gives them.

        Raises:
            TaskError: With a picture before it, the prompt is longer than the model's positions;
                or the prompt holds what is no text.
        """
        room = self.max_positions - self.image_tokens
        if len(prompt) > room * LONGEST_TOKEN or self.tokenizer.least_tokens(prompt) > room:
            raise TaskError(
                f"the prompt has {len(prompt)} characters, which are more tokens than the "
                f"{room} that the model's {self.max_positions} positions leave; shorten the text"
            )
        ids = self.tokenizer.encode_text(prompt)
        if len(ids) > room:
            raise TaskError(
                f"picture and prompt are {self.image_tokens + len(ids)} tokens long; the model "
                f"has {self.max_positions} positions, so shorten the text"
            )
        return ids


def _image_token(content: Mapping[str, Any]) -> int | None:
    if not is_native(content):
        return None
    fields = Fields(content, "config.json", ModelFileError)
    return fields.integer("image_token_id", 0, 1 << 31, _RELEASED_IMAGE_TOKEN)


def _image_tokens(size: tuple[int, int], config: ModelConfig) -> int:
    """Counts the tokens of a picture: one for each place of the grid, and their mean."""
    rows, columns = config.vision.grid(*size)
    places, positions = config.vision.max_position_embeddings, config.text.max_position_embeddings
    picture = (
        f"preprocessor_config.json: a picture of {size[1]}x{size[0]} pixels becomes "
        f"{columns}x{rows} image tokens"
    )
    most = min(math.prod(size), _MOST_PLACES)
    if max(map(math.prod, config.vision.grids(*size))) > most:
        raise ModelFileError(f"{picture} by way of a grid of more than {most} places")
    if not 0 < min(rows, columns) <= max(rows, columns) <= places:
        raise ModelFileError(f"{picture}, but the position tables have {places} rows")
    if rows * columns + 1 >= positions:
        raise ModelFileError(f"{picture}, which leaves no room for a prompt in {positions}")
    return rows * columns + 1
