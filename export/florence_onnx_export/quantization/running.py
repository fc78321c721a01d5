"""How graphs are run while others are made from them."""

import ctypes
import sys

import onnxruntime as ort


def lean_options(packed: bool) -> ort.SessionOptions:
    """Options of a session whose memory goes back with it.

    Args:
        packed: Whether weights are copied into the order that matmuls read them in. Those of
            float32 graphs stay where their file is mapped. Graphs of 8 and 4 bits must be packed,
            as they are for users: without it MatMulNBits computes in float32, with a smaller error.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4  # What it would log as an error it raises as one too.
    options.enable_mem_reuse = False
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = False  # The memory of an arena outlives its session.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if not packed:
        options.add_session_config_entry("session.disable_prepacking", "1")
    return options


def return_freed_memory() -> None:
    """Returns to the system what has been freed, of which glibc keeps most: over a gigabyte."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # Other C libraries have none.
        if trim:
            trim(0)
