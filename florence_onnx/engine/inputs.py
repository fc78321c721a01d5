"""Puts encoded pictures and the prompts behind the pictures together for the encoder."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from florence_onnx.engine.sessions import Graphs
from florence_onnx.errors import ImageError
from florence_onnx.requests import EncodedImage


def encoder_inputs(
    graphs: Graphs,
    pictures: Sequence[EncodedImage],
    input_ids: Sequence[Sequence[int]],
    pad_token_id: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Image features, then text embeddings, padded on the right to the longest prompt.

    Args:
        graphs: The opened graphs.
        pictures: One per request.
        input_ids: One prompt per request.
        pad_token_id: Fills up shorter prompts; masked.

    Returns:
        attention_mask int64 [B,S] and inputs_embeds float32 [B,S,D].

    Raises:
        ImageError: A picture was encoded by another model.
    """
    lengths = [len(ids) for ids in input_ids]
    padded = np.full((len(lengths), max(lengths)), pad_token_id, dtype=np.int64)
    for row, ids in zip(padded, input_ids, strict=True):
        row[: len(ids)] = ids
    text = graphs.embed(padded)
    shapes = {picture.image_features.shape for picture in pictures}
    if len(shapes) > 1 or any(len(s) != 2 or s[1] != text.shape[2] for s in shapes):
        raise ImageError(
            f"a picture was encoded by another model: image features {sorted(shapes)} in a batch, "
            f"where this model is {text.shape[2]} wide"
        )
    features = np.stack([picture.image_features for picture in pictures])
    embeds = np.concatenate([features, text], axis=1)
    text_mask = np.arange(padded.shape[1]) < np.array(lengths)[:, None]
    image_mask = np.ones(features.shape[:2], dtype=np.int64)
    return np.concatenate([image_mask, text_mask.astype(np.int64)], axis=1), embeds
