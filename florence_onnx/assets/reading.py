"""Reading of the files beside the graphs: preprocessing, tokenizer, generation policy."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from florence_onnx.assets.origin import Origin
from florence_onnx.checkpoints.config import ModelConfig, is_native
from florence_onnx.errors import ModelFileError, TaskError, TokenizerError
from florence_onnx.fields import Fields
from florence_onnx.files import read_json
from florence_onnx.generation.checkpoint_policy import read_policy
from florence_onnx.generation.policy import GenerationPolicy
from florence_onnx.generation.settings import notes, of_model_config, shorten
from florence_onnx.images.preprocessor import Preprocessor
from florence_onnx.picture_sizes import ImageSize, PictureSizes
from florence_onnx.tokenizer import LONGEST_TOKEN, Tokenizer

_RELEASED_IMAGE_TOKEN = 51289


@dataclass(frozen=True)
class Assets:
    """Assets of a model: the content of the folder without the graphs."""

    preprocessor: Preprocessor
    """Preprocessing of a picture to pixel_values."""
    tokenizer: Tokenizer
    """Tokenizer, from text to ids and back."""
    policy: GenerationPolicy
    """Settings of the checkpoint for the search."""
    max_positions: int
    """Rows of the tables of positions: the limit of encoder input and of answers, in tokens."""
    picture_sizes: PictureSizes
    """Sizes that pictures may have in place of the preprocessor's size."""
    origin: Origin
    """Origin of the requests that are prepared with these assets."""
    image_token_id: int | None = None
    """Token for an image feature in the prompt of transformers; None in Microsoft's format, which
    has no such token."""
    notes: tuple[str, ...] = ()
    """Sentences on settings for generation that the search does not follow."""

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
        sizes = PictureSizes(config)
        problem = sizes.problem(preprocessor.size)
        if problem is not None:
            raise ModelFileError(f"preprocessor_config.json: {problem}")
        return cls(
            preprocessor,
            tokenizer,
            policy,
            policy.max_positions,
            sizes,
            Origin.of(folder, preprocessor),
            _image_token(content),
            (*cut, *notes(said)),
        )

    @property
    def image_tokens(self) -> int:
        """Number of positions of a picture: the rows of the image features."""
        return self.picture_sizes.tokens(self.preprocessor.size)

    def at_size(self, image_size: ImageSize | None) -> "Assets":
        """Returns assets for pictures of another size; None for the checkpoint's size.

        Raises:
            InputError: The model cannot take this size.
        """
        if image_size is None:
            return self
        size = self.picture_sizes.read(image_size)
        return replace(self, preprocessor=replace(self.preprocessor, size=size))

    def encode_prompt(self, prompt: str, image_tokens: int | None = None) -> list[int]:
        """Tokenizes a prompt; see `Tokenizer.encode_text`.

        Args:
            prompt: The prompt.
            image_tokens: Positions of the picture before the prompt; None for `image_tokens`.

        Raises:
            TaskError: Picture and prompt are longer than the model's positions, or the prompt holds
                special tokens.
        """
        taken = self.image_tokens if image_tokens is None else image_tokens
        room = self.max_positions - taken
        if len(prompt) > room * LONGEST_TOKEN or self.tokenizer.least_tokens(prompt) > room:
            raise TaskError(
                f"the prompt has {len(prompt)} characters, which are more tokens than the "
                f"{room} that the model's {self.max_positions} positions leave; shorten the text"
            )
        ids = self.tokenizer.encode_text(prompt)
        if len(ids) > room:
            raise TaskError(
                f"picture and prompt are {taken + len(ids)} tokens long; the model "
                f"has {self.max_positions} positions, so shorten the text"
            )
        return ids


def _image_token(content: Mapping[str, Any]) -> int | None:
    if not is_native(content):
        return None
    fields = Fields(content, "config.json", ModelFileError)
    return fields.integer("image_token_id", 0, 1 << 31, _RELEASED_IMAGE_TOKEN)
