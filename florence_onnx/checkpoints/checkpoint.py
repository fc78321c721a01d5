"""Florence-2 checkpoint: the configuration, and the places of the weights in files."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from florence_onnx.checkpoints.adapters import Adapter, MergedTensor, merge, read_adapter
from florence_onnx.checkpoints.config import ModelConfig
from florence_onnx.checkpoints.contents import ADAPTER_CONFIG, Contents
from florence_onnx.checkpoints.finding import (
    AssetSource,
    find_adapter,
    find_assets,
    find_bare_weights,
    find_checkpoint,
)
from florence_onnx.checkpoints.findings import told_type
from florence_onnx.checkpoints.left_weights import weights_left
from florence_onnx.checkpoints.native import check, fit, native_weights, tie
from florence_onnx.checkpoints.refusals import refuse_foreign_weights, refuse_quantised_config
from florence_onnx.checkpoints.tensors import StoredTensor, is_finite
from florence_onnx.checkpoints.weights import present_weights, stored_weights
from florence_onnx.errors import CheckpointError, ModelNotFoundError
from florence_onnx.files import read_json
from florence_onnx.hub import ANYHOW, Access
from florence_onnx.resolver import local_folder

Format = Literal["original", "native"]

_SHOWN = 5


@dataclass(frozen=True)
class Checkpoint:
    """Checkpoint in one form, whatever the format of the files. The weights are not in memory."""

    folder: Path
    """Folder of the checkpoint's files."""
    config: ModelConfig
    """Configuration that the graphs depend on."""
    raw_config: dict[str, Any]
    """Content of config.json."""
    weights: dict[str, StoredTensor]
    """Tensors under native names (see key_maps): the token embedding as
    ``key_maps.EMBEDDING``, the head as ``key_maps.HEAD`` (an equal entry when embedding and head
    are tied), and ``key_maps.LOGITS_BIAS`` [1, V] where the checkpoint has a bias that is not
    zero."""
    format: Format
    """Tells whether the weights were stored under Microsoft's names or transformers'."""
    adapter: Adapter | None = None
    """Adapter that was merged into the weights."""
    file: Path | None = None
    """File of all weights, where the caller named a file and not a folder."""
    assets: AssetSource | None = None
    """Model whose files replace the files that are missing beside the weights."""
    notes: tuple[str, ...] = ()
    """Sentences for the user about the reading of the checkpoint."""

    @property
    def parameters(self) -> int:
        """Number of parameters, tied tensors counted once."""
        return sum(math.prod(tensor.shape) for tensor in set(self.weights.values()))


def read_checkpoint(
    source: str | Path,
    access: Access = ANYHOW,
    base: str | None = None,
    companions: str | None = None,
) -> Checkpoint:
    """Reads a checkpoint in Microsoft's or transformers' format. No code of the checkpoint is run.

    Args:
        source: Folder or hub id of a checkpoint or of a LoRA adapter, which is merged; or a
            safetensors file.
        access: Which state of a hub repository is wanted.
        base: Folder or hub id of an adapter's base model, in place of the base model that the
            adapter names.
        companions: Folder or hub id of the model whose config.json, tokenizer and preprocessing are
            taken where the checkpoint has none.

    Raises:
        CheckpointError: The files are not the files of a Florence-2 checkpoint or of an adapter.
        ModelNotFoundError: There is no such folder, or the hub repository cannot be had.
    """
    assets = None if companions is None else find_assets(companions, replace(access, revision=None))
    if base is not None:
        file = find_bare_weights(source, access)
        adapter = None if file else find_adapter(source, access, fetch=True, beside_weights=True)
        if adapter is None:
            raise CheckpointError(
                f"{source} is no adapter, so it has no base model to be merged into"
            )
        state = access.revision if str(base) == str(source) else None
        return _read_adapted(read_adapter(adapter), access, base, assets, state)
    try:
        place = find_bare_weights(source, access) or find_checkpoint(
            source, access, _accept, is_completed=assets is not None
        )
    except (CheckpointError, ModelNotFoundError) as error:
        adapter = find_adapter(source, access, fetch=isinstance(error, CheckpointError))
        if adapter is None:
            raise
        return _read_adapted(read_adapter(adapter), access, None, assets)
    return _read(place, assets, notes=_left_on_hub(source, place))


def _accept(folder: Path, coming: int) -> None:
    read_config(folder)


def _read_adapted(
    adapter: Adapter,
    access: Access,
    given: str | None,
    assets: AssetSource | None,
    revision: str | None = None,
) -> Checkpoint:
    """Reads the base model of an adapter and merges the adapter.

    Args:
        adapter: The adapter.
        access: Access to the hub.
        given: Base model that the user names.
        assets: Model for missing files.
        revision: Revision of ``given``.
    """
    beside = adapter.folder / "base"  # as Roboflow packages adapters
    base = given or (str(beside) if (beside / "config.json").is_file() else adapter.base)
    if not base:
        raise CheckpointError(
            f"{adapter.folder / ADAPTER_CONFIG} names no base model; name it with --base"
        )
    notes = [f"the adapter in {adapter.folder} was merged into {base}"]
    named = replace(access, revision=adapter.revision if base == adapter.base else revision)
    find = partial(find_checkpoint, base, accept=_accept, is_completed=assets is not None)
    try:
        folder = find(named)
    except ModelNotFoundError as error:
        if named.revision is None:
            raise
        folder = find(replace(named, revision=None))
        gone = "has no revision" in str(error)
        notes.append(
            f"{base} has no revision {named.revision} any more, which the adapter names; its main "
            "branch was taken"
            if gone
            else f"the revision {named.revision} of {base}, which the adapter names, could not be "
            f"had ({error}); its main branch was taken"
        )
    return _read(folder, assets, adapter, [*notes, *_left_on_hub(base, folder)])


def _left_on_hub(source: str | Path, place: Path) -> list[str]:
    """Says which weights of a repository were not fetched."""
    if place.is_file() or local_folder(source) is not None:
        return []
    left = weights_left(str(source), place)
    if not left:
        return []
    shown = ", ".join(left[:_SHOWN])
    more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
    return [
        f"{present_weights(place)[0]} was read; {source} also holds {shown}{more}, which may be "
        "another model, and was not fetched"
    ]


def _read(
    place: Path,
    assets: AssetSource | None,
    adapter: Adapter | None = None,
    notes: Sequence[str] = (),
) -> Checkpoint:
    """Reads the checkpoint in a folder, or in one file of weights."""
    folder = place.parent if place.is_file() else place
    lender = None if os.path.lexists(folder / "config.json") else assets
    if place.is_file() and not (lender or os.path.lexists(folder / "config.json")):
        raise CheckpointError(
            f"{place} has no config.json beside it; take that of the model that was fine-tuned, as "
            "with --companions microsoft/Florence-2-base"
        )
    told = folder if lender is None else lender.folder
    try:
        raw_config = read_json(told / "config.json", CheckpointError)
        refuse_quantised_config(raw_config)
        config = ModelConfig.from_dict(raw_config)
    except CheckpointError as error:
        raise CheckpointError(f"{error}{Contents.of_folder(folder).hint()}") from error
    stored = stored_weights(place)
    refuse_foreign_weights(stored, raw_config)
    weights, native, more = native_weights(stored, raw_config)
    said = [*notes, *more]
    if lender is None:
        said += told_type(raw_config, weights)
    tie(weights, config)
    if lender is not None:
        raw_config = fit(raw_config, weights)
        config = ModelConfig.from_dict(raw_config)
        said.append(f"config.json was taken from {lender.source}")
    if adapter is not None:
        check(weights, config)
        merge(adapter, weights, config)
    elif (folder / ADAPTER_CONFIG).is_file():
        said.append(
            f"an adapter lies beside the weights in {folder}, and was not merged; to merge the "
            "adapter into these weights, name the same checkpoint with --base too"
        )
    check(weights, config)
    form: Format = "native" if native else "original"
    file = place if place.is_file() else None
    return Checkpoint(folder, config, raw_config, weights, form, adapter, file, assets, tuple(said))


def read_config(folder: Path) -> ModelConfig:
    """Reads the geometry of the checkpoint in a folder.

    Raises:
        CheckpointError: The folder's config.json is missing or does not describe a Florence-2.
    """
    return ModelConfig.from_dict(read_json(folder / "config.json", CheckpointError))


def check_values(checkpoint: Checkpoint) -> None:
    """Reads every weight once.

    Raises:
        CheckpointError: A weight holds NaN or infinite values, or a file of weights is truncated.
    """
    weights = sorted(checkpoint.weights.items(), key=lambda pair: pair[1].offset)
    bad = [(name, tensor) for name, tensor in weights if not is_finite(tensor)]
    if bad:
        name, tensor = bad[0]
        more = f" and {len(bad) - 1} more are" if len(bad) > 1 else " is"
        raise CheckpointError(
            f"{_culprit(tensor)}: weight {name}{more} NaN or infinite in places; the checkpoint is "
            "damaged, or its training has diverged"
        )


def _culprit(tensor: StoredTensor) -> Path:
    """Finds the file of values that are not finite: the adapter's where the base's are finite."""
    if isinstance(tensor, MergedTensor) and is_finite(tensor.base):
        return tensor.a.path
    return tensor.path
