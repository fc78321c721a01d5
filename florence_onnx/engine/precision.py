"""Precisions of the graphs: the one that is asked for, or one that suits the machine."""

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
"""A precision of all graphs; or graph name -> precision, ``"*"`` for other graphs (else fp32)."""


def by_graph(precision: Precision, graphs: Iterable[str]) -> dict[str, str]:
    """The precision of each graph."""
    if isinstance(precision, str):
        return dict.fromkeys(graphs, precision)
    return {graph: precision.get(graph, precision.get(OTHERS, "fp32")) for graph in graphs}


def one_of(precisions: Mapping[str, str]) -> str:
    """The precision of all graphs, or the several precisions, such as ``"fp16+q4"``."""
    return "+".join(dict.fromkeys(precisions.values()))


NEEDS = {"q8": (1, 22), "q4": (1, 22)}
"""The first ONNX Runtime that has the operators of a precision: MatMulNBits with 8 bits. The extras
require this version too, but an older ONNX Runtime may come from elsewhere."""


def suitable_precisions(providers: Mapping[str, Sequence[Provider]]) -> tuple[str, ...]:
    """The precisions that suit the providers of the graphs and the processor, best first.

    The precision q4 is never one of these, because 4 bits cost accuracy: a caller has to ask for
    q4.
    """
    first = {provider_name(wanted[0]) for wanted in providers.values()}
    if first == {CUDA}:
        return ("fp16", "fp32")
    if first == {CPU} and has_int8_dot_products():
        return ("q8", "fp32")
    return ("fp32",)


def check_runtime(precision: str) -> None:
    """Raises PrecisionError if the ONNX Runtime there is lacks operators of a precision."""
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
"""8-bit dot products of x86 and Arm, by the names that Linux has."""


def has_int8_dot_products(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tells whether the processor multiplies and adds 8-bit numbers in one instruction.

    Without, ONNX Runtime needs several, which on x86 go through 16-bit sums that may saturate.
    Where the system does not tell (Windows), the answer is no.

    Args:
        cpuinfo: Where Linux lists the processor's features.
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
