"""Arena on the CPU that all graphs of a process share."""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from florence_onnx.engine.gather import gather_graph

if TYPE_CHECKING:
    import onnxruntime as ort

_SHARED = ("session.use_env_allocators", "1")
"""Session option with which a graph uses the arena."""


def use_arena(options: "ort.SessionOptions") -> None:
    """Has a graph use the arena of the process: the memory of the graph before.

    Args:
        options: Options of the graph's session.
    """
    _make_arena()
    options.add_session_config_entry(*_SHARED)


def shrink_arena() -> None:
    """Returns the memory of the arena that no open graph uses.

    The arena belongs to the process, and would keep the memory of closed graphs. ONNX Runtime
    shrinks the arena at the end of a run only, so a graph of one operator runs.
    """
    if not _make_arena.cache_info().currsize:
        return
    import onnxruntime as ort

    session_options, run_options = ort.SessionOptions(), ort.RunOptions()
    session_options.intra_op_num_threads = 1
    session_options.add_session_config_entry(*_SHARED)
    run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    session = ort.InferenceSession(
        gather_graph(count=1, rank=1), session_options, providers=["CPUExecutionProvider"]
    )
    given = {"indices": np.zeros(1, np.int64), "data_0": np.zeros(1, np.float32)}
    session.run(None, given, run_options)


@cache
def _make_arena() -> None:
    import onnxruntime as ort

    kind, use = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, ort.OrtMemType.DEFAULT
    ort.create_and_register_allocator(ort.OrtMemoryInfo("Cpu", kind, 0, use), None)
