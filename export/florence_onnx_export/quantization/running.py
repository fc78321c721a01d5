"""Running of graphs with little memory, for quantisation."""

import ctypes
import sys

import onnxruntime as ort

from florence_onnx.engine.options import compute_exactly


def lean_options(packed: bool) -> ort.SessionOptions:
    """Options of a session that leaves no memory behind when the session is closed.

    Args:
        packed: Whether weights are copied into the order in which matmuls read weights. The
            weights of float32 graphs are better read from the mapped file. The weights of graphs in
            8 and 4 bits must be packed, as for users: without packed weights MatMulNBits computes
            in float32, and the measured error is too small.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4  # ONNX Runtime also raises the errors that it would log.
    options.enable_mem_reuse = False
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = False  # The memory of an arena stays after the session.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    compute_exactly(options)
    if not packed:
        options.add_session_config_entry("session.disable_prepacking", "1")
    return options


def return_freed_memory() -> None:
    """Returns freed memory to the system. Otherwise glibc keeps more than a gigabyte."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only in glibc
        if trim:
            trim(0)
