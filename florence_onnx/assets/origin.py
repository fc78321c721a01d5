"""What prepares requests for a model, which tells its requests from those of other models."""

from dataclasses import dataclass, field
from pathlib import Path

from florence_onnx.assets.ownership import file_digest
from florence_onnx.images.preprocessor import Preprocessor


@dataclass(frozen=True)
class Origin:
    """A model, as far as the pixels and token ids of a request depend on it."""

    folder: str = field(compare=False)
    """The model folder, for messages."""
    preprocessor: Preprocessor
    """The checkpoint's preprocessing."""
    tokenizer: str
    """SHA-256 of the tokenizer's file."""

    @classmethod
    def of(cls, folder: Path, preprocessor: Preprocessor) -> "Origin":
        """The origin of requests to the model in a folder."""
        return cls(str(folder), preprocessor, file_digest(folder / "tokenizer.json"))

    def __str__(self) -> str:
        """The folder, and what tells it from others."""
        height, width = self.preprocessor.size
        return f"{self.folder} (pictures of {width}x{height}, tokenizer {self.tokenizer[:8]})"
