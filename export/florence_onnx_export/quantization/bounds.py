"""The errors at which a precision is written."""

from dataclasses import asdict, dataclass

from florence_onnx.engine import contract
from florence_onnx_export.quantization.fidelity import Fidelity


@dataclass(frozen=True)
class Bounds:
    """The largest errors at which a precision is written."""

    image_features: float
    """Relative error of the vision encoder's output."""
    first_logits: float
    """Relative error of the first step's logits, with all graphs at this precision."""


BOUNDS = {
    "fp16": Bounds(0.01, 0.01),
    "q8": Bounds(0.02, 0.03),
    "q4": Bounds(0.02, 0.16),
}
"""Per precision. Rounding a value to float16 costs 0.03 %, and happens some hundred times in a
row; rounding a Gaussian matrix to 4 bits in blocks of 32 costs 8 %, and q4 may cost twice that."""

GRAPH_LIMITS = {
    "q8": {contract.VISION_ENCODER: 0.018, contract.ENCODER: 0.02, contract.DECODER: 0.02},
    "q4": {contract.VISION_ENCODER: 0.018, contract.ENCODER: 0.02, contract.DECODER: 0.15},
}
"""The error of a graph's own outputs above which its precision becomes a mixed one, where all
graphs together are beyond the bounds. Squares of errors add up, so that graphs within these limits
are together within the bounds."""


def beyond_bounds(precision: str, fidelity: Fidelity, bounds: Bounds) -> str:
    """What is beyond the bounds, or ""."""
    for name, bound in asdict(bounds).items():
        error = getattr(fidelity, name)
        if not error <= bound:
            return (
                f"{precision}: {name} differs from float32 by {error:.2%}, and {bound:.0%} is "
                "allowed"
            )
    return ""
