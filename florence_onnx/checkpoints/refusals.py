"""Kinds of checkpoints that cannot be exported. The message names the kind and what to use instead.

Quantised checkpoints hold rounded weights in other layouts. Checkpoints of MLX hold convolutions
with the channels last. Retrieval models made of a Florence-2 have no decoder.
"""

import re
from collections.abc import Mapping
from typing import Any

from florence_onnx.checkpoints.tensors import StoredTensor
from florence_onnx.errors import CheckpointError

_QUANTISERS = {
    "bitsandbytes": r"\.(?:absmax|quant_map|nested_absmax|nested_quant_map|SCB|weight_format)"
    r"(?:\.|$)|\.quant_state\.",
    "quanto": r"\._(?:data|scale|shift|zeropoint)$|\.(?:input|output)_scale$",
    "GPTQ or AWQ": r"\.(?:qweight|qzeros|g_idx)$",
    "HQQ": r"\.W_q$",
    "compressed-tensors": r"\.weight_(?:packed|scale|zero_point)$",
}
"""Library -> pattern of the tensor names that only this library's checkpoints have."""

_RELEASED = {768: "microsoft/Florence-2-base", 1024: "microsoft/Florence-2-large"}
"""Hidden size of the text model -> released checkpoint."""
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_DECODER = re.compile(r"(?:^|\.)decoder\.layers\.")
_CONVOLUTION = re.compile(r"\.(?:convs\.\d+\.(?:conv|proj)|conv[12](?:\.fn\.dw)?)\.weight$")


def base_model(config: Mapping[str, Any]) -> str:
    """Checkpoint that another was made of, as far as the config.json of the other tells."""
    named = config.get("_name_or_path")
    if isinstance(named, str) and _HUB_ID.fullmatch(named):
        return named
    text = config.get("text_config")
    width = text.get("d_model") if isinstance(text, dict) else None
    released = _RELEASED.get(width) if isinstance(width, int) else None
    return released or "microsoft/Florence-2-base"


def refuse_quantised_config(config: Mapping[str, Any]) -> None:
    """Refuses a checkpoint whose config.json says how the weights are quantised.

    Raises:
        CheckpointError: The config.json says so.
    """
    quantised = config.get("quantization_config")
    if isinstance(quantised, dict):
        method = quantised.get("quant_method")
        raise _quantised(method if isinstance(method, str) else "another library", config)
    mlx = config.get("quantization")
    if isinstance(mlx, dict) and "group_size" in mlx:
        raise _mlx(config)


def refuse_foreign_weights(weights: Mapping[str, StoredTensor], config: Mapping[str, Any]) -> None:
    """Refuses quantised weights, weights of MLX, unmerged adapters, and encoders without decoder.

    Args:
        weights: Weights by stored names.
        config: The content of config.json.

    Raises:
        CheckpointError: The weights are of one of these kinds.
    """
    for library, pattern in _QUANTISERS.items():
        if any(re.search(pattern, name) for name in weights):
            raise _quantised(library, config)
    if any(map(_is_channels_last, weights, weights.values())):
        raise _mlx(config)
    factor = next((name for name in weights if ".lora_A." in name), None)
    if factor is not None:
        raise CheckpointError(
            f"the checkpoint holds the factors of an adapter ({factor[:200]}) beside the weights "
            "that they change; save it again after peft's merge_and_unload, or export the adapter "
            "alone"
        )
    is_florence = any("vision_tower." in name or "encoder.layers." in name for name in weights)
    if is_florence and not any(map(_DECODER.search, weights)):
        raise CheckpointError(
            "the checkpoint has no decoder, so it generates no text: it is an encoder, as "
            "embedding models such as ColFlor are; export a whole Florence-2, such as "
            f"{base_model(config)}"
        )


def quantised_as(path: object, name: str, dtype: str, config: Mapping[str, Any]) -> CheckpointError:
    """Error for a weight that is stored as integers or in 8 bits."""
    return CheckpointError(
        f"{path}: weight {name[:200]} is stored as {dtype}; quantised checkpoints cannot be "
        f"exported, only float32, float16 and bfloat16; {_instead(config)}"
    )


def _quantised(library: str, config: Mapping[str, Any]) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint is quantised ({library[:80]}), so its own weights are lost; "
        f"{_instead(config)}"
    )


def _mlx(config: Mapping[str, Any]) -> CheckpointError:
    return CheckpointError(
        "the checkpoint is in the layout of MLX (convolutions with their channels last), which "
        "only MLX reads; export the checkpoint that it was converted from, such as "
        f"{base_model(config)}"
    )


def _instead(config: Mapping[str, Any]) -> str:
    return (
        f"export the checkpoint that was quantised, such as {base_model(config)}, with --precision "
        "q8 or q4"
    )


def _is_channels_last(name: str, tensor: StoredTensor) -> bool:
    """Tells whether a convolution's weight is [outputs, height, width, inputs]."""
    shape = tensor.shape
    if len(shape) != 4 or not _CONVOLUTION.search(name):
        return False
    return shape[1] == shape[2] != shape[3]
