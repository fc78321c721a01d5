"""Precisions of graphs: the precision that is asked for, or one that suits the machine."""

import re
from collections.abc import Iterable, Mapping, Sequence

from florence_onnx.engine.hub_contract import FIRST_DECODER, LATER_DECODER, MERGED_DECODER
from florence_onnx.engine.processor import has_int8_dot_products, is_x86
from florence_onnx.engine.providers import (
    CPU,
    CUDA,
    OTHERS,
    Provider,
    provider_name,
)
from florence_onnx.errors import PrecisionError
from florence_onnx.terminal import say

AUTO = "auto"

Precision = str | Mapping[str, str]
"""Precision of all graphs; or graph name -> precision, ``"*"`` for other graphs (else fp32)."""


def by_graph(precision: Precision, graphs: Iterable[str]) -> dict[str, str]:
    """Finds the precision of each graph; the merged decoder's is also that of the two decoders."""
    if isinstance(precision, str):
        return dict.fromkeys(graphs, precision)
    usual = precision.get(OTHERS, "fp32")
    pair = dict.fromkeys((FIRST_DECODER, LATER_DECODER), precision.get(MERGED_DECODER, usual))
    return {graph: precision.get(graph, pair.get(graph, usual)) for graph in graphs}


def one_of(precisions: Mapping[str, str]) -> str:
    """Joins the precisions of graphs: one name, or several such as ``"fp16+q4"``."""
    return "+".join(dict.fromkeys(precisions.values()))


NEEDS = {"q8": (1, 22), "q4": (1, 22)}
"""Precision -> first ONNX Runtime with the operators of the precision: MatMulNBits with 8 bits. The
extras require this version too, but an older ONNX Runtime may come from elsewhere."""


def suitable_precisions(providers: Mapping[str, Sequence[Provider]]) -> tuple[str, ...]:
    """Lists the precisions that suit the providers of the graphs and the processor, best first.

    Without 8-bit dot products (AVX2 without VNNI) float32 is alone in the list for the CPU: 8 bits
    are exact there by slower instructions only (`compute_exactly`), whose gain is not known. The
    precision q4 is never in the list, because 4 bits cost accuracy: a caller has to ask for q4.
    """
    first = {provider_name(wanted[0]) for wanted in providers.values()}
    if first == {CUDA}:
        return ("fp16", "fp32")
    if first == {CPU} and has_int8_dot_products():
        return ("q8", "fp32")
    return ("fp32",)


EXACT = (1, 30)
"""First ONNX Runtime that `options.compute_exactly` makes exact in our 8-bit graphs."""


def check_runtime(precision: str) -> None:
    """Raises PrecisionError if the installed ONNX Runtime lacks operators of a precision.

    A note on stderr tells that sums of 8-bit numbers may saturate, where the processor and the ONNX
    Runtime are such.
    """
    import onnxruntime as ort

    needed = NEEDS.get(precision)
    numbers = re.match(r"(\d+)\.(\d+)", ort.__version__)
    if needed is None or numbers is None:
        return
    found = (int(numbers[1]), int(numbers[2]))
    if needed <= found < EXACT and is_x86() and not has_int8_dot_products():
        say(
            f"note: precision {precision} may be wrong here: this processor tells of no VNNI, and "
            f"onnxruntime {ort.__version__} lets sums saturate; upgrade to 1.30, or use fp32"
        )
    if found < needed:
        raise PrecisionError(
            f"precision {precision} needs onnxruntime >= {needed[0]}.{needed[1]}, and "
            f"{ort.__version__} is installed; run pip install -U 'florence-onnx[cpu]' (or [gpu], "
            "[openvino] for these builds), or use precision fp32"
        )
