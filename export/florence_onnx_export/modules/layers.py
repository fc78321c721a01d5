"""Weights by prefix, and layers of both the vision and the text modules."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from florence_onnx_export.modules import operators

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": operators.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
    "silu": F.silu,
}
"""Activation functions by the names in transformers' configurations."""


class Weights:
    """View of the part of a state dict below a prefix."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str = "") -> None:
        self._tensors = tensors
        self._prefix = prefix

    def at(self, name: str) -> "Weights":
        """Returns the weights below ``name``."""
        return Weights(self._tensors, f"{self._prefix}{name}.")

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[self._prefix + name]

    def get(self, name: str) -> Tensor | None:
        """Returns the tensor called ``name``; None where the checkpoint has no such tensor."""
        return self._tensors.get(self._prefix + name)


def constant(tensor: Tensor) -> nn.Parameter:
    """Makes a graph's weight of a tensor: contiguous, and without a gradient."""
    return nn.Parameter(tensor.clone(memory_format=torch.contiguous_format), requires_grad=False)


class Linear(nn.Module):
    """Linear layer ``x @ weight + bias`` with a weight [in, out], the order that is read fastest.

    All tokens go through one matmul. The engine fuses this matmul with the addition of the bias, or
    of another tensor.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Takes ``weight`` in the order of checkpoints: [out, in]."""
        super().__init__()
        self.weight = constant(weight.t())
        self.bias = None if bias is None else constant(bias)

    @classmethod
    def of(cls, weights: Weights, scale: float = 1.0) -> "Linear":
        """Makes the layer of ``weights``, with outputs multiplied by ``scale``."""
        bias = weights.get("bias")
        return cls(weights["weight"] * scale, None if bias is None else bias * scale)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [..., in] to [..., out]."""
        y = self.flat(x.reshape(-1, x.shape[-1]))
        return y.reshape(*x.shape[:-1], self.weight.shape[1])

    def flat(self, x: Tensor) -> Tensor:
        """Maps [tokens, in] to [tokens, out]."""
        if self.bias is None:
            return torch.matmul(x, self.weight)
        return torch.addmm(self.bias, x, self.weight)

    def onto(self, x: Tensor, residual: Tensor) -> Tensor:
        """Maps [..., in] to [..., out] and adds a tensor of that shape."""
        flat = torch.addmm(
            residual.reshape(-1, self.weight.shape[1]), x.reshape(-1, x.shape[-1]), self.weight
        )
        y = flat if self.bias is None else flat + self.bias
        return y.reshape(residual.shape)


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.weight = constant(weights["weight"])
        self.bias = constant(weights["bias"])

    def forward(self, x: Tensor) -> Tensor:
        """Maps [..., C] to the same shape."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-5)


class FeedForward(nn.Module):
    """Pair of linear layers with an activation function between."""

    def __init__(self, weights: Weights, activation: str) -> None:
        super().__init__()
        self.fc1 = Linear.of(weights.at("fc1"))
        self.fc2 = Linear.of(weights.at("fc2"))
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        """Maps [..., C] to the same shape."""
        return self.flat(x.reshape(-1, x.shape[-1])).reshape(x.shape)

    def flat(self, x: Tensor) -> Tensor:
        """Maps [tokens, C] to the same shape."""
        return self.fc2.flat(self.hidden(x))

    def hidden(self, x: Tensor) -> Tensor:
        """Maps [tokens, C] to [tokens, hidden]."""
        return self.activation(self.fc1.flat(x))

    def onto(self, x: Tensor, residual: Tensor) -> Tensor:
        """Maps [..., C] to the same shape and adds the residual."""
        return self.fc2.onto(self.hidden(x.reshape(-1, x.shape[-1])), residual)

    def in_parts_onto(self, x: Tensor, residual: Tensor) -> Tensor:
        """Computes `onto` in parts, so that only a part of the hidden layer is in memory."""
        flat = x.reshape(-1, x.shape[-1])
        return residual + in_parts(self.flat, flat).reshape(residual.shape)


def in_parts(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Runs a layer that keeps shapes on parts of the first axis of ``x``, part by part."""
    return operators.join([layer(part) for part in operators.split(x)], x)


def attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Softmax attention over [..., tokens, channels]; the scale is folded into the query."""
    scores = torch.matmul(query, key.transpose(-1, -2)) + bias
    return torch.matmul(torch.softmax(scores, dim=-1), value)
