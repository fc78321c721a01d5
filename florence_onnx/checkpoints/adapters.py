"""LoRA adapters in peft's format, merged into a checkpoint's weights when the weights are read."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from florence_onnx.checkpoints import key_maps, safetensors_file, torch_file
from florence_onnx.checkpoints.config import ModelConfig
from florence_onnx.checkpoints.contents import ADAPTER_CONFIG, ADAPTER_FILES
from florence_onnx.checkpoints.tensors import FLOATS, StoredTensor
from florence_onnx.errors import CheckpointError
from florence_onnx.files import read_json, refuse_lfs_pointer

_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(.+)\.lora_(A|B)(?:\.default)?\.weight")
_WRAPPER = re.compile(r"\.(?:base_layer|modules_to_save(?:\.default)?)(?=\.)")
_REFUSED = {
    "use_dora": "DoRA",
    "use_qalora": "QALoRA",
    "lora_bias": "biases of the factors",
    "layer_replication": "layers that are repeated",
    "megatron_config": "Megatron's layers",
    "trainable_token_indices": "single tokens",
    "target_parameters": "parameters that are no modules' weights",
    "alora_invocation_tokens": "words that activate them",
    "use_bdlora": "block-diagonal factors",
    "arrow_config": "Arrow's routing",
    "kasa_config": "KaSA",
    "monteclora_config": "Monte Carlo sampling",
}
"""Settings that change the meaning of the weights -> the subject of the setting, for messages."""
_KNOWN = (
    *("peft_type", "task_type", "auto_mapping", "peft_version", "inference_mode", "runtime_config"),
    *("base_model_name_or_path", "revision", "r", "lora_alpha", "lora_dropout", "use_rslora"),
    *("rank_pattern", "alpha_pattern", "target_modules", "exclude_modules", "modules_to_save"),
    *("layers_to_transform", "layers_pattern", "bias", "fan_in_fan_out", "init_lora_weights"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "qalora_group_size"),
    *("megatron_core", "velora_config", "ensure_weight_tying", "enable_lora", "merge_weights"),
)
"""Settings that are followed, that the tensors tell too, or that only training needs."""
_CHANGED_BASES = ("pissa", "olora", "loftq", "corda", "lora_ga")
"""Initialisations that also change the base model's weights, which peft does not save."""


@dataclass(frozen=True)
class Adapter:
    """Adapter's settings and tensors."""

    folder: Path
    """Folder of the adapter's files."""
    base: str
    """Base model that the adapter names; empty where the adapter names none."""
    revision: str | None
    """Revision of the base model."""
    alpha: float
    """Scale of the change, before the division by the rank or by the rank's root."""
    alphas: Mapping[str, float]
    """End of a module's name -> scale of the change of this module, in place of ``alpha``."""
    by_root: bool
    """Tells whether the scale is divided by the root of the rank, as in rsLoRA."""
    tensors: Mapping[str, StoredTensor] = field(repr=False)
    """Tensors, as the file stores them."""

    def scale(self, module: str, rank: int) -> float:
        """Scale of the factors of a module."""
        ends = (a for end, a in self.alphas.items() if f".{module}".endswith(f".{end}"))
        return next(ends, self.alpha) / (math.sqrt(rank) if self.by_root else rank)


def read_adapter(folder: Path) -> Adapter:
    """Reads an adapter. No code of the adapter is run.

    Args:
        folder: Folder with adapter_config.json and adapter_model.safetensors or adapter_model.bin.

    Raises:
        CheckpointError: The folder holds no LoRA adapter, or one of a kind that is not supported.
    """
    path = folder / ADAPTER_CONFIG
    config = read_json(path, CheckpointError)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(f"{path}: adapters of type {kind!r:.40} cannot be merged, only LORA")
    for key, about in _REFUSED.items():
        if config.get(key):
            raise CheckpointError(f"{path}: {key} is set; adapters with {about} cannot be merged")
    for key, value in config.items():
        if key not in _KNOWN and key not in _REFUSED and value:
            raise CheckpointError(
                f"{path}: {key!r:.80} is set, which is not known here; merge the adapter with "
                "peft's merge_and_unload, and export what that saves"
            )
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGED_BASES):
        raise CheckpointError(
            f"{path}: init_lora_weights is {start!r:.40}, which changes the base model too; "
            "convert the adapter to plain LoRA with peft"
        )
    alphas = config.get("alpha_pattern") or {}
    if not isinstance(alphas, dict) or not all(map(_is_number, alphas.values())):
        raise CheckpointError(f"{path}: alpha_pattern is not a map of modules to numbers")
    if any(re.search(r"[^\w.]", end) for end in alphas):
        raise CheckpointError(f"{path}: alpha_pattern has regular expressions, not names")
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    alpha: Any = config.get("lora_alpha")
    if not _is_number(alpha):
        raise CheckpointError(f"{path}: lora_alpha is {alpha!r:.40}, not a number")
    return Adapter(
        folder,
        base if isinstance(base, str) else "",
        revision if isinstance(revision, str) and revision else None,
        float(alpha),
        alphas,
        bool(config.get("use_rslora")),
        _stored(folder),
    )


def merge(adapter: Adapter, weights: dict[str, StoredTensor], config: ModelConfig) -> None:
    """Replaces the weights that an adapter changes.

    Args:
        adapter: The adapter.
        weights: Weights of the base model under native names, with embedding and head; changed.
        config: The base model's geometry.

    Raises:
        CheckpointError: A tensor of the adapter belongs to no weight, or does not fit the weight.
    """
    factors: dict[str, dict[str, StoredTensor]] = {}
    shapes = key_maps.expected_shapes(config)
    tied = weights.get(key_maps.HEAD) == weights.get(key_maps.EMBEDDING)
    whole: dict[str, StoredTensor] = {}
    for key, tensor in adapter.tensors.items():
        factor = _FACTOR.fullmatch(key)
        if factor:
            factors.setdefault(factor[1].removeprefix(_PREFIX), {})[factor[2]] = tensor
            continue
        name = _native(_WRAPPER.sub("", key.removeprefix(_PREFIX)), shapes)
        if name is None or "lora_" in key:
            raise _unused(adapter, key)
        whole[name] = tensor
    if tied and key_maps.EMBEDDING in whole:
        whole.setdefault(key_maps.HEAD, whole[key_maps.EMBEDDING])
    weights.update(whole)
    for module, pair in factors.items():
        name = _native(f"{module}.weight", shapes)
        if name is None:
            raise _unused(adapter, f"{module}.lora_{min(pair)}.weight")
        if pair.keys() != {"A", "B"}:
            raise CheckpointError(f"{adapter.folder}: {module} has lora_{min(pair)} alone")
        weights[name] = _merged(adapter, module, weights[name], pair["A"], pair["B"])


def _merged(
    adapter: Adapter, module: str, base: StoredTensor, a: StoredTensor, b: StoredTensor
) -> StoredTensor:
    rank = a.shape[0] if a.shape else 0
    columns = math.prod(base.shape[1:])
    fit = math.prod(a.shape[1:]) == columns and math.prod(b.shape) == b.shape[0] * rank
    if not rank or b.shape[:2] != (base.shape[0], rank) or not fit or len(a.shape) < 2:
        raise CheckpointError(
            f"{adapter.folder}: the factors of {module}, {list(a.shape)} and {list(b.shape)}, do "
            f"not fit the weight {list(base.shape)}; is this the adapter's base model?"
        )
    dense = StoredTensor.dense(base.path, "F32", base.shape, base.offset)
    parts = dense.path, dense.dtype, dense.shape, dense.strides, dense.offset
    return MergedTensor(*parts, base, a, b, adapter.scale(module, rank))


@dataclass(frozen=True)
class MergedTensor(StoredTensor):
    """Weight of the base model plus the adapter's change, computed when the tensor is read."""

    base: StoredTensor
    """Weight of the base model."""
    a: StoredTensor
    """Factor [rank, inputs]."""
    b: StoredTensor
    """Factor [outputs, rank]."""
    scale: float
    """Scale of the change."""

    def read(self) -> npt.NDArray[np.float32]:
        """Values as float32; see `StoredTensor.read`."""
        a = self.a.read().reshape(self.a.shape[0], -1)
        b = self.b.read().reshape(self.shape[0], -1)
        with np.errstate(over="ignore", invalid="ignore"):  # `check_values` finds infinities.
            values = b @ a
            values *= np.float32(self.scale)
            values = values.reshape(self.shape)
            values += self.base.read()
        return values

    def blocks(self) -> Iterator[npt.NDArray[np.generic]]:
        """Yields all values in one block."""
        yield self.read()


def _native(name: str, shapes: Mapping[str, object]) -> str | None:
    """Native name of a weight with a native or a Microsoft name; None for an unknown weight."""
    native = name if name in shapes else key_maps.native_name(name)
    for known in (name, native):
        if known in key_maps.EMBEDDING_COPIES:
            return key_maps.EMBEDDING
    return native if native in shapes else None


def _unused(adapter: Adapter, key: str) -> CheckpointError:
    return CheckpointError(
        f"{adapter.folder}: {key[:200]!r} belongs to no weight that an adapter can change"
    )


def _stored(folder: Path) -> dict[str, StoredTensor]:
    for name in ADAPTER_FILES:
        path = folder / name
        if path.is_file():
            refuse_lfs_pointer(path, CheckpointError)
            reader = safetensors_file if path.suffix == ".safetensors" else torch_file
            tensors: dict[str, StoredTensor] = reader.stored_tensors(path)
            for key, tensor in tensors.items():
                if tensor.dtype not in FLOATS:
                    raise CheckpointError(f"{path}: {key[:200]} is stored as {tensor.dtype}")
            return tensors
    raise CheckpointError(f"{folder} holds no {' or '.join(ADAPTER_FILES)}")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
