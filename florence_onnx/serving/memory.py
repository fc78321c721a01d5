"""Memory that is free, given back to the system."""

import ctypes
import gc
import sys


def give_back() -> None:
    """Collects what nobody refers to, and has the C library return free pages.

    Without the latter, glibc keeps most of what a closed model leaves. Other libraries return
    pages on their own.
    """
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
