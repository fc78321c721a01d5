"""The graph contract: names of files and tensors shared by the exporter and the runtime.

Names follow the ONNX exports of Florence-2 on the model hub where a tensor exists there.
``B`` is the batch (pictures), ``R`` the decoder's rows (``B`` times the beams), ``S`` the
encoder's length (image tokens, then text tokens), ``C`` the capacity of the decoder's cache,
``D`` the hidden size, ``V`` the vocabulary.

==================  =========================================================================
graph               tensors
==================  =========================================================================
vision_encoder      pixel_values f32[B,3,H,W] -> image_features f32[B,N,D]
embed_tokens        input_ids i64[B,T] -> inputs_embeds f32[B,T,D]
encoder_model       attention_mask i64[B,S], inputs_embeds f32[B,S,D] -> last_hidden_state
                    f32[B,S,D], present.{i}.encoder.key|value f32[B,heads,S,head_dim]: the
                    cross-attention keys and values, computed once per picture
decoder_with_past_  encoder_attention_mask i64[B,S], inputs_embeds f32[R,1,D], position_ids
model               i64[1], cache_slots i64[B,beams], cache_mask bool[B,beams,C],
                    past_key_values.{i}.decoder.key|value f32[B,heads,C,head_dim],
                    past_key_values.{i}.encoder.key|value f32[B,heads,S,head_dim] ->
                    logits f32[R,1,V], topk_log_probs f32[R,K], topk_ids i64[R,K],
                    present.{i}.decoder.key|value f32[B,heads,C,head_dim]
==================  =========================================================================

The decoder's cache is a set of slots that the beams of a picture share. A step writes each row's
key and value into the slot that ``cache_slots`` names, and the row sees the slots that
``cache_mask`` allows, its own new one included. Reordering beams is a matter of the mask: nothing
in the cache moves, and a past that beams have in common is stored and read once. With ``past``
and ``present`` bound to one buffer the step writes in place.

``topk_*`` are the ``K`` most probable next tokens of each row and their log-probabilities
(log-softmax over the vocabulary), in descending order. Rows are ordered by picture.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

VISION_ENCODER = "vision_encoder"
EMBED_TOKENS = "embed_tokens"
ENCODER = "encoder_model"
DECODER = "decoder_with_past_model"
GRAPHS = (VISION_ENCODER, EMBED_TOKENS, ENCODER, DECODER)

VERSION = 2
"""Counts the changes of graphs and tensors after which a cached model has to be made again."""

PRECISIONS = {"fp32": "", "fp16": "fp16", "q8": "quantized", "q4": "q4"}
"""Precision name -> suffix of its graph files."""

ASSETS = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
"""Files beside the ``onnx`` folder that the runtime reads."""

DATA_SUFFIX = "_data"
"""What the name of a graph's file is followed by in that of its weights, where they lie apart."""

FLOAT, INT64, BOOL = "tensor(float)", "tensor(int64)", "tensor(bool)"
"""Element types, by ONNX Runtime's names."""


class Tensor(NamedTuple):
    """What the table above says of a tensor."""

    type: str
    """Its element type."""
    axes: tuple[str | int, ...]
    """Its axes: a letter, or a size that is the same in every model."""


INPUTS = {
    VISION_ENCODER: {"pixel_values": Tensor(FLOAT, ("B", 3, "H", "W"))},
    EMBED_TOKENS: {"input_ids": Tensor(INT64, ("B", "T"))},
    ENCODER: {
        "attention_mask": Tensor(INT64, ("B", "S")),
        "inputs_embeds": Tensor(FLOAT, ("B", "S", "D")),
    },
    DECODER: {
        "encoder_attention_mask": Tensor(INT64, ("B", "S")),
        "inputs_embeds": Tensor(FLOAT, ("R", 1, "D")),
        "position_ids": Tensor(INT64, (1,)),
        "cache_slots": Tensor(INT64, ("B", "beams")),
        "cache_mask": Tensor(BOOL, ("B", "beams", "C")),
    },
}
"""Graph -> the inputs it must have, besides the cache."""

OUTPUTS = {
    VISION_ENCODER: {"image_features": Tensor(FLOAT, ("B", "N", "D"))},
    EMBED_TOKENS: {"inputs_embeds": Tensor(FLOAT, ("B", "T", "D"))},
    ENCODER: {"last_hidden_state": Tensor(FLOAT, ("B", "S", "D"))},
    DECODER: {
        "logits": Tensor(FLOAT, ("R", 1, "V")),
        "topk_log_probs": Tensor(FLOAT, ("R", "K")),
        "topk_ids": Tensor(INT64, ("R", "K")),
    },
}
"""Graph -> the outputs it must have, besides the cache."""

CACHE = Tensor(FLOAT, ("B", "heads", "C or S", "head_dim"))
"""Every tensor of the cache."""

TOPK = 64
"""Most candidates per row that the decoder graph returns (fewer when the vocabulary is smaller)."""


def graph_file(graph: str, precision: str) -> str:
    """Path of a graph's file inside a model folder, with forward slashes."""
    suffix = PRECISIONS[precision]
    return f"onnx/{graph}_{suffix}.onnx" if suffix else f"onnx/{graph}.onnx"


def graph_parts(folder: Path, graph: str, precision: str) -> list[Path]:
    """The files of a graph in a model folder: its own, and that of its weights if it has one."""
    path = folder / graph_file(graph, precision)
    data = path.with_name(path.name + DATA_SUFFIX)
    return [path, data] if data.exists() else [path]


def cache_names(prefix: str, side: str, layers: int) -> Iterator[str]:
    """Names of the cache tensors of one side, in graph order.

    Args:
        prefix: ``past_key_values`` (inputs) or ``present`` (outputs).
        side: ``decoder`` (self-attention) or ``encoder`` (cross-attention).
        layers: Number of decoder layers.
    """
    for layer in range(layers):
        yield f"{prefix}.{layer}.{side}.key"
        yield f"{prefix}.{layer}.{side}.value"
