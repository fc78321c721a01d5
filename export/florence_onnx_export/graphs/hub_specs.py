"""Inputs of the tracer for the graphs of transformers.js that this package's layout lacks.

`florence_onnx.engine.hub_contract` lists the tensors of these graphs.
"""

from collections.abc import Mapping

from torch import Tensor

from florence_onnx.checkpoints.config import ModelConfig
from florence_onnx.engine import contract, hub_contract
from florence_onnx.engine.contract import Signature, names_of
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
"""Name of the axis of rows that transformers.js expects."""
_PICTURES = "batch"
"""Name of the axis of tensors that the rows of a picture may share."""


def build_hub_specs(config: ModelConfig, weights: dict[str, Tensor]) -> list[GraphSpec]:
    """Makes the specs of the encoder, of the first step's decoder and of the later steps' decoder.

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
        present = "tokens"
        given = axes_of(inputs, fixed)
        if name == hub_contract.LATER_DECODER:
            present = "past + tokens"
            for shared in (hub_contract.MASK, *names_of(inputs, hub_contract.CROSS_CACHE)):
                given[shared] = (_PICTURES, *given[shared][1:])
        axes = (
            given,
            axes_of(_by_layer(outputs), {**fixed, "past": present}),
        )
        specs.append(GraphSpec(name, module, *axes, sizes))
    return specs


def _written(signature: Signature) -> Signature:
    """Drops optional tensors."""
    kept = {name: t for name, t in signature.inputs.items() if not t.is_optional}
    return signature._replace(inputs=kept)


def _by_layer(tensors: Mapping[str, contract.Tensor]) -> dict[str, contract.Tensor]:
    """Sorts tensors by layer."""

    def layer(name: str) -> int:
        _, dot, rest = name.partition(".")
        return int(rest.partition(".")[0]) if dot else -1

    return {name: tensors[name] for name in sorted(tensors, key=layer)}
