"""Origin of prepared requests, by which a model refuses the requests of another model."""

from dataclasses import dataclass, field
from pathlib import Path

from florence_onnx.assets.ownership import file_digest
from florence_onnx.images.preprocessor import Preprocessor


@dataclass(frozen=True)
class Origin:
    """Parts of a model on which the pixels and token ids of a request depend."""

    folder: str = field(compare=False)
    """Model folder, for messages."""
    preprocessor: Preprocessor
    """Preprocessing of the checkpoint."""
    tokenizer: str
    """SHA-256 of the tokenizer's file."""

    @classmethod
    def of(cls, folder: Path, preprocessor: Preprocessor) -> "Origin":
        """Reads the origin of requests to the model in a folder."""
        return cls(str(folder), preprocessor, file_digest(folder / "tokenizer.json"))

    def __str__(self) -> str:
        """Names the folder, the picture size and the tokenizer."""
        height, width = self.preprocessor.size
        return f"{self.folder} (pictures of {width}x{height}, tokenizer {self.tokenizer[:8]})"
