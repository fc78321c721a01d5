"""Options of the sessions of a model: threads, memory, packed weights."""

import math
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from florence_onnx.errors import SessionOptionsError

if TYPE_CHECKING:
    import onnxruntime as ort
    from onnxruntime import SessionOptions as SessionOptions

_MOST_THREADS = 1024


def check_options(given: "ort.SessionOptions | None", threads: int | None) -> None:
    """Refuses what is no number of threads or not session options, and one beside the other.

    Raises:
        SessionOptionsError: Either is the case.
    """
    import onnxruntime as ort

    if threads is not None and not (type(threads) is int and 1 <= threads <= _MOST_THREADS):
        raise SessionOptionsError(
            f"threads is {threads!r}; it must be a whole number from 1 to {_MOST_THREADS}, or None"
        )
    if given is None:
        return
    if threads is not None:
        raise SessionOptionsError(
            "give threads or session_options, not both: threads is the options' "
            "intra_op_num_threads"
        )
    if not isinstance(given, ort.SessionOptions):
        raise SessionOptionsError(
            f"session_options is {given!r:.80}; it must be an onnxruntime.SessionOptions"
        )


def default_options(graph: str, precision: str, threads: int | None) -> "ort.SessionOptions":
    """The options that a graph is opened with where the caller gives none."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4  # ONNX Runtime raises what it would log as an error.
    options.intra_op_num_threads = default_threads() if threads is None else threads
    _share_arena()
    options.add_session_config_entry("session.use_env_allocators", "1")
    if graph.startswith("decoder_"):
        return options
    # Idle threads go on spinning for tens of milliseconds, and take the processor from the graph
    # that runs next. Only the decoder is its own successor, and gains from them.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # Planning which tensors share memory takes the square of the nodes, half of the time to open
    # the vision encoder. It saves nothing where the arena reuses what is freed, and laying one
    # plan out for all runs of a shape takes new memory beside that of the first run.
    options.enable_mem_reuse = False
    options.enable_mem_pattern = False
    if precision == "fp32":
        # A second copy of the weights, packed ahead for float32 matmuls, pays only where they
        # have few rows. These graphs have hundreds: they read weights where the file is mapped.
        options.add_session_config_entry("session.disable_prepacking", "1")
    return options


@cache
def _share_arena() -> None:
    """Gives the process one arena on the CPU: graphs run in turn, each in the memory of the last.

    Only sessions that ask for the arena use the arena.
    """
    import onnxruntime as ort

    kind, use = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, ort.OrtMemType.DEFAULT
    ort.create_and_register_allocator(ort.OrtMemoryInfo("Cpu", kind, 0, use), None)


def default_threads(files: Path = Path("/")) -> int:
    """Threads of a session for which none were asked: 0, ONNX Runtime's choice, or fewer.

    ONNX Runtime starts a thread per physical core of the machine, whatever ``taskset`` or a
    container allows; threads beyond the allowance keep the others waiting. So a confined process
    gets a thread per physical core that the process may use, and no more threads than the quota
    of processor time.

    Args:
        files: The root of the file system, where Linux describes itself.
    """
    if not hasattr(os, "sched_getaffinity"):
        return 0
    allowed = os.sched_getaffinity(0)
    quota = _quota(files)
    if len(allowed) >= (os.cpu_count() or 1) and quota >= len(allowed):
        return 0
    cpus = files / "sys/devices/system/cpu"
    siblings = {_read(cpus / f"cpu{n}/topology/thread_siblings_list") or str(n) for n in allowed}
    return max(1, math.floor(min(len(siblings), quota)))


def _quota(files: Path) -> float:
    """Processors' worth of time that the control groups of this process allow."""
    limits = [math.inf]
    for line in _read(files / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        base = files / "sys/fs/cgroup"
        if controllers:  # Version 1 has a tree per controller, version 2 one for all.
            if "cpu" not in controllers.split(","):
                continue
            base /= "cpu"
        folder = base / group.strip("/")
        # A limit holds for the groups inside. In a container the group's own folder is at the top.
        limits += [
            _limit(place) for place in (folder, *folder.parents) if place.is_relative_to(base)
        ]
    return min(limits)


def _limit(group: Path) -> float:
    """Processors' worth of time that one control group allows."""
    old = f"{_read(group / 'cpu.cfs_quota_us')} {_read(group / 'cpu.cfs_period_us')}"
    quota, _, period = (_read(group / "cpu.max") or old).partition(" ")
    return int(quota) / int(period) if quota.isdigit() else math.inf


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
