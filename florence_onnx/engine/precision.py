"""Precisions of graphs: the precision that is asked for, or one that suits the machine."""

import platform
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from florence_onnx.engine.providers import (
    CPU,
    CUDA,
    OTHERS,
    Provider,
    provider_name,
)
from florence_onnx.errors import PrecisionError

AUTO = "auto"

Precision = str | Mapping[str, str]
"""Precision of all graphs; or graph name -> precision, ``"*"`` for other graphs (else fp32)."""


def by_graph(precision: Precision, graphs: Iterable[str]) -> dict[str, str]:
    """Finds the precision of each graph."""
    if isinstance(precision, str):
        return dict.fromkeys(graphs, precision)
    return {graph: precision.get(graph, precision.get(OTHERS, "fp32")) for graph in graphs}


def one_of(precisions: Mapping[str, str]) -> str:
    """Joins the precisions of graphs: one name, or several such as ``"fp16+q4"``."""
    return "+".join(dict.fromkeys(precisions.values()))


NEEDS = {"q8": (1, 22), "q4": (1, 22)}
"""Precision -> first ONNX Runtime with the operators of the precision: MatMulNBits with 8 bits. The
extras require this version too, but an older ONNX Runtime may come from elsewhere."""


def suitable_precisions(providers: Mapping[str, Sequence[Provider]]) -> tuple[str, ...]:
    """Lists the precisions that suit the providers of the graphs and the processor, best first.

    The precision q4 is never in the list, because 4 bits cost accuracy: a caller has to ask for q4.
    """
    first = {provider_name(wanted[0]) for wanted in providers.values()}
    if first == {CUDA}:
        return ("fp16", "fp32")
    if first == {CPU} and has_int8_dot_products():
        return ("q8", "fp32")
    return ("fp32",)


def check_runtime(precision: str) -> None:
    """Raises PrecisionError if the installed ONNX Runtime lacks operators of a precision."""
    import onnxruntime as ort

    needed = NEEDS.get(precision, (0, 0))
    found = re.match(r"(\d+)\.(\d+)", ort.__version__)
    if found and (int(found[1]), int(found[2])) < needed:
        raise PrecisionError(
            f"precision {precision} needs onnxruntime >= {needed[0]}.{needed[1]}, and "
            f"{ort.__version__} is installed; run pip install -U 'florence-onnx[cpu]' (or [gpu], "
            "[openvino] for these builds), or use precision fp32"
        )


_DOT_PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}
"""Features for 8-bit dot products on x86 and Arm, by the names in Linux."""


def has_int8_dot_products(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tells whether the processor multiplies and adds 8-bit numbers in one instruction.

    Without such instructions, ONNX Runtime needs several instructions, which on x86 use 16-bit sums
    that may saturate. Where the system does not tell (Windows), the answer is no.

    Args:
        cpuinfo: File in which Linux lists the features of the processor.
    """
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return not _DOT_PRODUCTS.isdisjoint(value.split())
    return False
