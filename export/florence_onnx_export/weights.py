"""Weights of a checkpoint as torch tensors."""

import torch
from torch import Tensor

from florence_onnx.checkpoints.checkpoint import Checkpoint
from florence_onnx.checkpoints.tensors import StoredTensor


def torch_weights(checkpoint: Checkpoint, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Reads the weights into memory, by native names. Tied weights are one tensor."""
    read: dict[StoredTensor, Tensor] = {}
    for stored in checkpoint.weights.values():
        if stored not in read:
            read[stored] = torch.from_numpy(stored.read().copy()).to(dtype)
    return {name: read[stored] for name, stored in checkpoint.weights.items()}
