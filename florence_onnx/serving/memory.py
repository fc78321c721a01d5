"""Return of free memory to the system."""

import ctypes
import gc
import sys

from florence_onnx.engine.arena import shrink_arena


def give_back() -> None:
    """Collects garbage, and makes the engine and the C library return free memory to the system.

    Otherwise the engine and glibc keep most of the memory of a closed model. Other C libraries
    return free pages by themselves.
    """
    gc.collect()
    shrink_arena()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
