"""Weights under transformers' names and of the expected shapes, whatever the stored names."""

from collections.abc import Iterable, Mapping
from typing import Any

from florence_onnx.checkpoints import key_maps
from florence_onnx.checkpoints.config import ModelConfig
from florence_onnx.checkpoints.names import plain_names, split_extra
from florence_onnx.checkpoints.refusals import quantised_as
from florence_onnx.checkpoints.tensors import FLOATS, StoredTensor, equal
from florence_onnx.errors import CheckpointError

_POSITIONS = "model.language_model.encoder.embed_positions.weight"


def native_weights(
    stored: Mapping[str, StoredTensor], raw_config: Mapping[str, Any]
) -> tuple[dict[str, StoredTensor], bool, list[str]]:
    """Renames stored weights to native names.

    Args:
        stored: Weights by stored names.
        raw_config: The content of config.json.

    Returns:
        The weights, whether the stored names were native, and sentences for the user about removed
        parts of names and left-out weights.

    Raises:
        CheckpointError: A weight belongs to no Florence-2, or is not floating-point.
    """
    plain, notes = plain_names(stored)
    extra = split_extra(plain)
    for name in extra.names:
        del plain[name]
    if extra.names:
        notes.append(str(extra))
    for name, tensor in plain.items():
        if tensor.dtype not in FLOATS:
            raise quantised_as(tensor.path, name, tensor.dtype, raw_config)
    native = any(name.startswith("model.") for name in plain)
    return (plain if native else _to_native(plain)), native, notes


def _to_native(stored: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    names = {name: key_maps.native_name(name) for name in stored}
    _refuse("unknown weights", [name for name, native in names.items() if native is None])
    weights = {str(names[name]): tensor for name, tensor in stored.items()}
    projection = weights.get(key_maps.IMAGE_PROJECTION)
    if projection is not None:
        weights[key_maps.IMAGE_PROJECTION] = projection.transposed
    return weights


def tie(weights: dict[str, StoredTensor], config: ModelConfig) -> None:
    """Gives embedding and head one name each, as loading in transformers does.

    Raises:
        CheckpointError: Encoder and decoder have different embeddings.
    """
    copies = [weights.pop(name) for name in key_maps.EMBEDDING_COPIES if name in weights]
    embedding, head = weights.get(key_maps.EMBEDDING), weights.get(key_maps.HEAD)
    if embedding is None:
        embedding = copies[0] if copies else head if config.tie_word_embeddings else None
    if embedding is not None:
        weights[key_maps.EMBEDDING] = embedding
        if not all(equal(copy, embedding) for copy in copies):
            raise CheckpointError(
                "encoder and decoder have different token embeddings; only one shared embedding "
                "can be exported"
            )
        # Different tensors stay apart, whatever the configuration says.
        if (head is None and config.tie_word_embeddings) or (head and equal(head, embedding)):
            weights[key_maps.HEAD] = embedding
    bias = weights.get(key_maps.LOGITS_BIAS)
    if bias is not None and not bias.read().any():
        del weights[key_maps.LOGITS_BIAS]


def fit(raw_config: dict[str, Any], weights: Mapping[str, StoredTensor]) -> dict[str, Any]:
    """Copies another model's config.json, with the weights' sizes of vocabulary and positions."""
    sizes = {}
    for field, name, unused in (
        ("vocab_size", key_maps.EMBEDDING, 0),
        ("max_position_embeddings", _POSITIONS, 2),  # the unused rows, as in `key_maps`
    ):
        shape = weights[name].shape if name in weights else ()
        if len(shape) == 2:
            sizes[field] = shape[0] - unused
    return {**raw_config, "text_config": {**raw_config["text_config"], **sizes}}


def check(weights: Mapping[str, StoredTensor], config: ModelConfig) -> None:
    """Compares the names and shapes of weights with a geometry.

    Raises:
        CheckpointError: A weight is missing, unknown, or has another shape.
    """
    shapes = key_maps.expected_shapes(config)
    allowed = {**shapes, key_maps.LOGITS_BIAS: (1, config.text.vocab_size)}
    _refuse("unknown weights", [name for name in weights if name not in allowed])
    _refuse("no weights called", [name for name in shapes if name not in weights])
    _refuse(
        "weights that do not fit config.json:",
        [
            f"{name} is {list(tensor.shape)} instead of {list(allowed[name])} in {tensor.path.name}"
            for name, tensor in weights.items()
            if tensor.shape != allowed[name]
        ],
    )


def _refuse(what: str, names: Iterable[str]) -> None:
    names = sorted(names)
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        shown = ", ".join(name[:200] for name in names[:3])
        raise CheckpointError(f"the checkpoint has {what} {shown}{more}")
