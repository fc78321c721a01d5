"""Protocol of a decoder for the search, which hides how a layout keeps the cache."""

from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from florence_onnx.engine.checks import check_value, running
from florence_onnx.engine.contract import FLOAT
from florence_onnx.engine.providers import Device
from florence_onnx.generation.search import Step

if TYPE_CHECKING:
    import onnxruntime as ort

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class Decoder(Protocol):
    """Decoder of an opened model, on which several threads may start searches."""

    def start(self, attention_mask: Ids, inputs_embeds: Floats) -> Step:
        """Encodes a batch of requests.

        Args:
            attention_mask: int64 [B,S], 0 for padding.
            inputs_embeds: Image features, then text embeddings, float32 [B,S,D].

        Returns:
            The steps of one search over the requests, for one thread. A step raises GraphRunError
            where a graph fails, or returns another shape or impossible numbers.

        Raises:
            GraphRunError: A graph fails, or returns another shape.
        """


class TokenEmbedding:
    """Embedding of the tokens of a step, on the device from which the decoder reads embeddings."""

    def __init__(
        self, session: "ort.InferenceSession", file: str, width: int, device: Device
    ) -> None:
        """Prepares the runs of one search.

        Args:
            session: The graph embed_tokens.
            file: The path of the graph inside the model folder.
            width: The size of an embedding.
            device: The device of the embeddings.
        """
        self._session = session
        self._file = file
        self._width = width
        self._device = device
        self._binding = session.io_binding()

    def __call__(self, token_ids: Ids) -> "ort.OrtValue":
        """Maps token_ids [R] to embeddings, float32 [R,1,D].

        Raises:
            GraphRunError: The graph fails, or returns another shape.
        """
        with running(self._file):
            self._binding.bind_cpu_input("input_ids", token_ids[:, None])
            self._binding.bind_output("inputs_embeds", *self._device)
            self._session.run_with_iobinding(self._binding)
        value: ort.OrtValue = self._binding.get_outputs()[0]
        check_value(self._file, "inputs_embeds", value, FLOAT, (len(token_ids), 1, self._width))
        return value
