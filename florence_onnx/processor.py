"""What the processor can do that decides which graphs suit it."""

import platform
import sys
from pathlib import Path

_DOT_PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}
"""8-bit dot products of x86 and Arm, as Linux names them."""


def has_int8_dot_products(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor multiplies and adds 8-bit numbers in one instruction.

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
