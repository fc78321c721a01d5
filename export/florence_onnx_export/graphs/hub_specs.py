"""Inputs of the tracer for the graphs that transformers.js has besides those it shares with ours.

`florence_onnx.engine.hub_contract` has their tensors.
"""

from collections.abc import Mapping

from torch import Tensor

from florence_onnx.checkpoints.config import ModelConfig
from florence_onnx.engine import contract, hub_contract
from florence_onnx.engine.contract import Signature
from florence_onnx_export.graphs.specs import (
    GraphSpec,
    axes_of,
    example_sizes,
    fixed_sizes,
    head_bias,
)
from florence_onnx_export.modules.growing import FirstDecoder, LaterDecoder, StatesEncoder
from florence_onnx_export.modules.layers import Weights

_BATCH = "batch_size"
"""The axis of rows, by the name under which transformers.js knows it."""


def build_hub_specs(config: ModelConfig, weights: dict[str, Tensor]) -> list[GraphSpec]:
    """The encoder, the decoder of the first step, and that of later steps.

    Args:
        config: The checkpoint's configuration.
        weights: float32 tensors under transformers' key names.
    """
    text = Weights(weights).at("model").at("language_model")
    head, bias = weights["lm_head.weight"], head_bias(weights)
    modules = {
        contract.ENCODER: StatesEncoder(text, config.text),
        hub_contract.FIRST_DECODER: FirstDecoder(text, head, bias, config.text),
        hub_contract.LATER_DECODER: LaterDecoder(text, head, bias, config.text),
    }
    fixed: dict[str | int, str | int] = {**fixed_sizes(config, head), "batch": _BATCH}
    sizes = example_sizes(config.vision)
    specs = []
    for name, module in modules.items():
        inputs, outputs = _written(hub_contract.SPLIT[name]).of(config.text.decoder_layers)
        present = "past + tokens" if name == hub_contract.LATER_DECODER else "tokens"
        axes = (
            axes_of(inputs, fixed),
            axes_of(_by_layer(outputs), {**fixed, "past": present}),
        )
        specs.append(GraphSpec(name, module, *axes, sizes))
    return specs


def _written(signature: Signature) -> Signature:
    """The tensors without those that a graph may lack."""
    kept = {name: t for name, t in signature.inputs.items() if not t.is_optional}
    return signature._replace(inputs=kept)


def _by_layer(tensors: Mapping[str, contract.Tensor]) -> dict[str, contract.Tensor]:
    """The tensors with those of the first layer first, then those of the second, and so on."""

    def layer(name: str) -> int:
        _, dot, rest = name.partition(".")
        return int(rest.partition(".")[0]) if dot else -1

    return {name: tensors[name] for name in sorted(tensors, key=layer)}
