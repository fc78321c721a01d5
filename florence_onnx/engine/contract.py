"""Graph contract: the files and the tensors of a model, for the exporter and the runtime.

docs/graphs.md is made from these data.
"""

from collections.abc import Mapping
from itertools import groupby
from typing import NamedTuple

VISION_ENCODER = "vision_encoder"
EMBED_TOKENS = "embed_tokens"
ENCODER = "encoder_model"
DECODER = "decoder_with_past_slots"

VERSION = 3
"""Version of graphs and tensors. After a change, cached models are made again."""

PRECISIONS = {"fp32": "", "fp16": "fp16", "q8": "quantized", "q4": "q4"}
"""Precision name -> suffix of the graph files."""

ASSETS = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
"""Files beside the ``onnx`` folder that the runtime reads."""

DATA_SUFFIX = "_data"
"""Suffix of the weights' file, behind the name of the graph's file."""

FLOAT, FLOAT16 = "tensor(float)", "tensor(float16)"
INT64, BOOL = "tensor(int64)", "tensor(bool)"
"""Element types, by ONNX Runtime's names."""

DYNAMIC = {
    "batch": "pictures",
    "height": "of the picture, in pixels",
    "width": "of the picture, in pixels",
    "image_tokens": "features of a picture",
    "tokens": "tokens to embed",
    "sequence": "the encoder's length: image tokens, then text tokens",
    "beams": "rows of a picture in the decoder",
    "rows": "batch times beams, ordered by picture",
    "slots": "capacity of the decoder's cache, in tokens",
}
"""Axis whose size may differ between runs -> meaning of the size."""

FIXED = {
    "hidden_size": "width of the embeddings",
    "decoder_heads": "attention heads of a decoder layer",
    "head_dim": "width of an attention head",
    "vocabulary": "rows of the output head",
    "candidates": "most probable next tokens that the decoder graph returns",
}
"""Axis whose size a model's graphs declare -> meaning of the size."""


class Tensor(NamedTuple):
    """Input or output of a graph."""

    type: str
    """Element type of the tensor, or several with "or" between the types."""
    axes: tuple[str | int, ...]
    """Axes of the tensor: keys of `DYNAMIC` or `FIXED`, or sizes that all models have."""
    is_optional: bool = False
    """Tells whether there are graphs without this tensor."""


class Signature(NamedTuple):
    """Inputs and outputs of a graph, in order.

    Names with ``{i}`` stand for a tensor of every decoder layer. Tensors whose names differ in the
    last part only, such as key and value, alternate: key and value of the first layer, then of the
    second layer, and so on.
    """

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]

    def of(self, layers: int) -> "Signature":
        """Lists the tensors of a model with this number of decoder layers."""
        return Signature(*(_of_layers(tensors, layers) for tensors in self))


def _of_layers(tensors: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for cache, members in groupby(tensors, lambda name: name.rpartition(".")[0]):
        names = list(members)
        for layer in range(layers if cache else 1):
            found |= {name.replace("{i}", str(layer)): tensors[name] for name in names}
    return found


OWN_CACHE = Tensor(FLOAT, ("batch", "decoder_heads", "slots", "head_dim"))
"""Keys or values of the decoder's self-attention."""
CROSS_CACHE = Tensor(FLOAT, ("batch", "decoder_heads", "sequence", "head_dim"))
"""Keys or values of the cross-attention, which the encoder computes once per picture."""

SIGNATURES = {
    VISION_ENCODER: Signature(
        inputs={"pixel_values": Tensor(FLOAT, ("batch", 3, "height", "width"))},
        outputs={"image_features": Tensor(FLOAT, ("batch", "image_tokens", "hidden_size"))},
    ),
    EMBED_TOKENS: Signature(
        inputs={"input_ids": Tensor(INT64, ("batch", "tokens"))},
        outputs={"inputs_embeds": Tensor(FLOAT, ("batch", "tokens", "hidden_size"))},
    ),
    ENCODER: Signature(
        inputs={
            "attention_mask": Tensor(INT64, ("batch", "sequence")),
            "inputs_embeds": Tensor(FLOAT, ("batch", "sequence", "hidden_size")),
        },
        outputs={
            "last_hidden_state": Tensor(FLOAT, ("batch", "sequence", "hidden_size")),
            "present.{i}.encoder.key": CROSS_CACHE,
            "present.{i}.encoder.value": CROSS_CACHE,
        },
    ),
    DECODER: Signature(
        inputs={
            "encoder_attention_mask": Tensor(INT64, ("batch", "sequence")),
            "inputs_embeds": Tensor(FLOAT, ("rows", 1, "hidden_size")),
            "position_ids": Tensor(INT64, (1,)),
            "cache_slots": Tensor(INT64, ("batch", "beams")),
            "cache_mask": Tensor(BOOL, ("batch", "beams", "slots")),
            "past_key_values.{i}.decoder.key": OWN_CACHE,
            "past_key_values.{i}.decoder.value": OWN_CACHE,
            "past_key_values.{i}.encoder.key": CROSS_CACHE,
            "past_key_values.{i}.encoder.value": CROSS_CACHE,
        },
        outputs={
            "logits": Tensor(FLOAT, ("rows", 1, "vocabulary")),
            "topk_log_probs": Tensor(FLOAT, ("rows", "candidates")),
            "topk_ids": Tensor(INT64, ("rows", "candidates")),
            "present.{i}.decoder.key": OWN_CACHE,
            "present.{i}.decoder.value": OWN_CACHE,
        },
    ),
}
"""Graph -> tensors. Names follow the ONNX exports of Florence-2 on the model hub where these
exports have the tensor."""

GRAPHS = tuple(SIGNATURES)
"""Graphs of a model."""

TOPK = 64
"""Limit of the candidates per row that the decoder graph returns (a small vocabulary has fewer)."""


def graph_file(graph: str, precision: str, suffixes: Mapping[str, str] = PRECISIONS) -> str:
    """Makes the path of a graph's file inside a model folder, with forward slashes.

    Args:
        graph: The name of the graph.
        precision: A key of ``suffixes``.
        suffixes: Precision -> suffix of the graph's name.
    """
    suffix = suffixes[precision]
    return f"onnx/{graph}_{suffix}.onnx" if suffix else f"onnx/{graph}.onnx"


def names_of(tensors: Mapping[str, Tensor], kind: Tensor) -> list[str]:
    """Lists the names of the tensors of one kind, such as `OWN_CACHE`, in order."""
    return [name for name, tensor in tensors.items() if tensor == kind]
