"""A Florence-2 checkpoint: its configuration, and where its weights lie."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from florence_onnx.checkpoints import key_maps
from florence_onnx.checkpoints.adapters import Adapter, merge, read_adapter
from florence_onnx.checkpoints.config import ModelConfig
from florence_onnx.checkpoints.contents import ADAPTER_CONFIG
from florence_onnx.checkpoints.finding import find_adapter, find_checkpoint
from florence_onnx.checkpoints.names import plain_names, split_extra
from florence_onnx.checkpoints.refusals import (
    quantised_as,
    refuse_foreign_weights,
    refuse_quantised_config,
)
from florence_onnx.checkpoints.tensors import FLOATS, StoredTensor, equal, is_finite
from florence_onnx.checkpoints.weights import stored_weights
from florence_onnx.errors import CheckpointError, ModelNotFoundError
from florence_onnx.files import read_json
from florence_onnx.hub import ANYHOW, Access

Format = Literal["original", "native"]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in one shape, whatever it is stored as; its weights are not in memory."""

    folder: Path
    """The folder of the checkpoint's files."""
    config: ModelConfig
    """The configuration that the graphs depend on."""
    raw_config: dict[str, Any]
    """The content of config.json."""
    weights: dict[str, StoredTensor]
    """Tensors under native names (see key_maps): the token embedding as
    ``key_maps.EMBEDDING``, the head as ``key_maps.HEAD`` (an equal entry when they are tied) and
    ``key_maps.LOGITS_BIAS`` [1, V] where the checkpoint holds one that is not zero."""
    format: Format
    """Tells whether the weights were stored under Microsoft's names or transformers'."""
    adapter: Adapter | None = None
    """What was merged into the weights."""
    notes: tuple[str, ...] = ()
    """What the user should know of how it was read."""

    @property
    def parameters(self) -> int:
        """Number of parameters, tied tensors counted once."""
        return sum(math.prod(tensor.shape) for tensor in set(self.weights.values()))


def read_checkpoint(
    source: str | Path, access: Access = ANYHOW, base: str | None = None
) -> Checkpoint:
    """Reads a checkpoint in Microsoft's or transformers' format; no code in it is run.

    Args:
        source: A folder or a hub id, of a checkpoint or of a LoRA adapter, which is merged.
        access: Which state of a hub repository is wanted.
        base: Folder or hub id of an adapter's base model, in place of the one that it names.

    Raises:
        CheckpointError: The files are not those of a Florence-2 checkpoint or of an adapter.
        ModelNotFoundError: There is no such folder, or the hub repository cannot be had.
    """
    try:
        folder = find_checkpoint(source, access, lambda folder, _: read_config(folder))
    except (CheckpointError, ModelNotFoundError) as error:
        adapter = find_adapter(source, access, fetch=isinstance(error, CheckpointError))
        if adapter is None:
            raise
        return _read_adapted(read_adapter(adapter), access, base)
    if base is not None:
        raise CheckpointError(f"{source} is no adapter, so it has no base model to be merged into")
    return _read(folder)


def _read_adapted(adapter: Adapter, access: Access, given: str | None) -> Checkpoint:
    """The base model of an adapter with the adapter's changes."""
    beside = adapter.folder / "base"  # as in packages of Roboflow
    base = given or (str(beside) if (beside / "config.json").is_file() else adapter.base)
    if not base:
        raise CheckpointError(
            f"{adapter.folder / ADAPTER_CONFIG} names no base model; name it with --base"
        )
    notes = [f"the adapter in {adapter.folder} was merged into {base}"]
    named = replace(access, revision=adapter.revision if base == adapter.base else None)
    try:
        folder = find_checkpoint(base, named, lambda folder, _: read_config(folder))
    except ModelNotFoundError:
        if named.revision is None:
            raise
        folder = find_checkpoint(base, replace(named, revision=None))
        notes.append(
            f"{base} has no revision {named.revision} any more, which the adapter names; its main "
            "branch was taken"
        )
    return _read(folder, adapter, tuple(notes))


def _read(folder: Path, adapter: Adapter | None = None, notes: tuple[str, ...] = ()) -> Checkpoint:
    raw_config = read_json(folder / "config.json", CheckpointError)
    refuse_quantised_config(raw_config)
    config = ModelConfig.from_dict(raw_config)
    weights, native, more = _named(stored_weights(folder), raw_config)
    notes += more
    _tie(weights, config)
    if adapter is not None:
        _check(weights, config)
        merge(adapter, weights, config)
    elif (folder / ADAPTER_CONFIG).is_file():
        notes += (f"an adapter lies beside the weights in {folder}, and was not merged",)
    _check(weights, config)
    form: Format = "native" if native else "original"
    return Checkpoint(folder, config, raw_config, weights, form, adapter, notes)


def read_config(folder: Path) -> ModelConfig:
    """The geometry of the checkpoint in a folder.

    Raises:
        CheckpointError: The folder's config.json is missing, or is not that of a Florence-2.
    """
    return ModelConfig.from_dict(read_json(folder / "config.json", CheckpointError))


def check_values(checkpoint: Checkpoint) -> None:
    """Reads every weight once.

    Raises:
        CheckpointError: A weight is NaN or infinite, or its file is truncated.
    """
    for name, tensor in sorted(checkpoint.weights.items(), key=lambda pair: pair[1].offset):
        if not is_finite(tensor):
            raise CheckpointError(
                f"{tensor.path}: weight {name} is NaN or infinite in places; the checkpoint is "
                "damaged, or its training has diverged"
            )


def _named(
    stored: Mapping[str, StoredTensor], raw_config: Mapping[str, Any]
) -> tuple[dict[str, StoredTensor], bool, tuple[str, ...]]:
    """Weights by native names, whether they were stored under these, and what was left out."""
    refuse_foreign_weights(stored, raw_config)
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
    return (plain if native else _to_native(plain)), native, tuple(notes)


def _to_native(stored: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    names = {name: key_maps.native_name(name) for name in stored}
    _refuse("unknown weights", [name for name, native in names.items() if native is None])
    weights = {str(names[name]): tensor for name, tensor in stored.items()}
    projection = weights.get(key_maps.IMAGE_PROJECTION)
    if projection is not None:
        weights[key_maps.IMAGE_PROJECTION] = projection.transposed
    return weights


def _tie(weights: dict[str, StoredTensor], config: ModelConfig) -> None:
    """Brings embedding and head under one name each, as loading in transformers does."""
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
        # Two different tensors stay two, whatever the configuration says.
        if (head is None and config.tie_word_embeddings) or (head and equal(head, embedding)):
            weights[key_maps.HEAD] = embedding
    bias = weights.get(key_maps.LOGITS_BIAS)
    if bias is not None and not bias.read().any():
        del weights[key_maps.LOGITS_BIAS]


def _check(weights: Mapping[str, StoredTensor], config: ModelConfig) -> None:
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
