"""Return of free memory to the system."""

import ctypes
import gc
import sys


def give_back() -> None:
    """Collects garbage, and makes the C library return free pages to the system.

    Otherwise glibc keeps most of the memory of a closed model. Other C libraries return free pages
    by themselves.
    """
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
