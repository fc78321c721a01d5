"""Inputs of the encoder: encoded pictures, with the prompts behind."""

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
    """Joins image features and text embeddings, padded on the right to the longest prompt.

    Args:
        graphs: The opened graphs.
        pictures: One per request.
        input_ids: One prompt per request.
        pad_token_id: Id that fills shorter prompts, and is masked.

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
    if any(len(s) != 2 or s[1] != text.shape[2] for s in shapes):
        raise ImageError(
            f"a picture was encoded by another model: image features {sorted(shapes)} in a batch, "
            f"where this model is {text.shape[2]} wide"
        )
    taken = [len(picture.image_features) for picture in pictures]
    embeds = np.zeros((len(taken), max(taken) + padded.shape[1], text.shape[2]), dtype=np.float32)
    for sequence, picture, words in zip(embeds, pictures, text, strict=True):
        both = np.concatenate([picture.image_features, words])
        sequence[: len(both)] = both
    mask = np.arange(embeds.shape[1]) < (np.array(taken) + np.array(lengths))[:, None]
    return mask.astype(np.int64), embeds
