"""Matmuls in 8 bits with one scale for all activations of a call: the fastest method."""

import numpy as np
import onnx
from onnx import helper

from florence_onnx_export.quantization.gptq import round_weight
from florence_onnx_export.quantization.matmuls import MICROSOFT, Matrix, Tensors


def dynamic_matmul(
    x: str, name: str, weight: Matrix, bias: str, y: str, factor: Matrix | None = None
) -> tuple[onnx.NodeProto, Tensors]:
    """DynamicQuantizeMatMul: activations u8 with one scale per call, weights s8 per column.

    Weights are symmetric and signed: ONNX Runtime's kernels for VNNI and AMX take no unsigned
    weights. See `matmuls.Method`.
    """
    scale = np.abs(weight).max(axis=0) / 127
    scale[scale == 0] = 1
    values = round_weight(weight, scale, (-127, 127), factor).astype(np.int8)
    added: Tensors = {f"{name}.int8": values, f"{name}.scale": scale.astype(np.float32)}
    node = helper.make_node(
        "DynamicQuantizeMatMul",
        [x, *added, "", bias],
        [y],
        name=f"{y}_quantized",
        domain=MICROSOFT,
    )
    return node, added
