"""Features of the processor, by the names that Linux has for features."""

import platform
import sys
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
"""File in which Linux describes the processor."""

_DOT_PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}
"""8-bit dot products of x86 and Arm."""


def described(*names: str) -> str:
    """Reads the first entry of Linux's description under one of these names; "" without one.

    Names of entries differ between kinds of processors.
    """
    try:
        with CPUINFO.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() in names:
                    return value.strip()
    except OSError:
        pass
    return ""


def features() -> list[str]:
    """Lists the features of the processor; none on Windows and macOS, which name no features."""
    return described("flags", "Features").split()


def has_int8_dot_products() -> bool:
    """Tells whether the processor multiplies and adds 8-bit numbers in one instruction.

    On x86 without that instruction, ONNX Runtime adds in 16 bits, where sums may saturate. On
    Windows, which names no features, the result is False.
    """
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    return not _DOT_PRODUCTS.isdisjoint(features())


def is_x86() -> bool:
    """Tells whether the processor is one of x86."""
    return platform.machine().lower() in ("x86_64", "amd64")


def has_bfloat16_matmuls() -> bool:
    """Tells whether this is an Arm processor that multiplies matrices in bfloat16, on Linux."""
    return "bf16" in features()  # The flags of x86 are called avx512_bf16 and amx_bf16.
