"""Numbers of pictures that ONNX Runtime's CUDA provider computes wrong.

Attention over channels multiplies [B,1,C,C] by the weights [G,C,D] of G groups. The CUDA provider
takes the leading axes of such factors for the same axes where both have as many matrices, here B =
G, and skips the broadcast (seen with 1.31.1, in ``CanUseStridedBatchedGemm``).
"""

import math
from pathlib import Path

from florence_onnx.engine.external_data import mapped
from florence_onnx.protobuf import fields, whole_numbers

_GRAPH = 7
_INITIALIZER = 5
_DIMS = 1


def miscounted(graph: Path) -> frozenset[int]:
    """Finds the numbers of matrices, above 1, in the weights of a graph.

    A batch with one of these numbers of pictures may be computed wrong on CUDA.

    Args:
        graph: The graph's file.

    Raises:
        ProtobufError: The file is not a graph.
    """
    counts = set()
    for model_field in fields(mapped(graph)):
        if model_field.number != _GRAPH or isinstance(model_field.value, int):
            continue
        for field in fields(model_field.value):
            if field.number == _INITIALIZER and not isinstance(field.value, int):
                dims = [
                    n for f in fields(field.value) if f.number == _DIMS for n in whole_numbers(f)
                ]
                counts.add(math.prod(dims[:-2]))
    return frozenset(counts - {0, 1})
