"""Limits of the errors with which a precision is written."""

from dataclasses import asdict, dataclass

from florence_onnx.engine import contract
from florence_onnx_export.quantization.fidelity import Fidelity


@dataclass(frozen=True)
class Bounds:
    """Largest errors with which a precision is written."""

    image_features: float
    """Relative error of the vision encoder's output."""
    first_logits: float
    """Relative error of the first step's logits, with all graphs at this precision."""


BOUNDS = {
    "fp16": Bounds(0.01, 0.01),
    "q8": Bounds(0.02, 0.03),
    "q4": Bounds(0.02, 0.16),
}
"""Precision -> bounds. Rounding a value to float16 has an error of 0.03 %, and a value is rounded
about a hundred times. Rounding a Gaussian matrix to 4 bits in blocks of 32 has an error of 8 %, and
q4 may have twice this error."""

GRAPH_LIMITS = {
    "q8": {contract.VISION_ENCODER: 0.018, contract.ENCODER: 0.02, contract.DECODER: 0.02},
    "q4": {contract.VISION_ENCODER: 0.018, contract.ENCODER: 0.02, contract.DECODER: 0.15},
}
"""Precision -> graph -> largest error of the graph's own outputs in mixed precision, which is used
where all graphs together are beyond `BOUNDS`. The squares of errors add up, so graphs within these
limits are together within `BOUNDS`."""


def beyond_bounds(precision: str, fidelity: Fidelity, bounds: Bounds) -> str:
    """Sentence about the first error beyond its bound; empty where no error is."""
    for name, bound in asdict(bounds).items():
        error = getattr(fidelity, name)
        if not error <= bound:
            return (
                f"{precision}: {name} differs from float32 by {error:.2%}, and {bound:.0%} is "
                "allowed"
            )
    return ""
