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
    """Refuses a wrong number of threads, wrong session options, and threads beside session options.

    Raises:
        SessionOptionsError: An argument is wrong, or both are given.
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
    """Makes the options for a graph where the caller gives no options."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4  # ONNX Runtime raises what it would log as an error.
    options.intra_op_num_threads = default_threads() if threads is None else threads
    _share_arena()
    options.add_session_config_entry("session.use_env_allocators", "1")
    if graph.startswith("decoder_"):
        return options
    # Idle threads spin for tens of milliseconds, and take the processor from the graph that runs
    # next. Only the decoder runs again and again, and gains from spinning threads.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # The plan of shared memory for tensors takes time with the square of the nodes: half of the
    # time to open the vision encoder. The plan saves nothing, because the arena reuses freed
    # memory, and a plan for all runs of a shape takes new memory beside that of the first run.
    options.enable_mem_reuse = False
    options.enable_mem_pattern = False
    if precision == "fp32":
        # A second copy of the weights, packed for float32 matmuls, helps only matmuls of few rows.
        # These graphs have hundreds of rows, and read weights from the mapped file.
        options.add_session_config_entry("session.disable_prepacking", "1")
    return options


@cache
def _share_arena() -> None:
    """Gives the process one arena on the CPU: a graph uses the memory of the graph before.

    Only sessions that ask for the arena use the arena.
    """
    import onnxruntime as ort

    kind, use = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, ort.OrtMemType.DEFAULT
    ort.create_and_register_allocator(ort.OrtMemoryInfo("Cpu", kind, 0, use), None)


def default_threads(files: Path = Path("/")) -> int:
    """Chooses the threads of a session: 0 for ONNX Runtime's choice, or fewer.

    ONNX Runtime starts a thread per physical core of the machine, whatever ``taskset`` or a
    container allows. Threads beyond this allowance make all threads wait. So a confined process
    gets a thread per physical core that the process may use, and no more threads than its quota of
    processor time.

    Args:
        files: Root of the file system, with the files in which Linux describes the machine.
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
    """Quota of processor time that the control groups of this process allow, in processors."""
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
    """Quota of processor time that one control group allows, in processors."""
    old = f"{_read(group / 'cpu.cfs_quota_us')} {_read(group / 'cpu.cfs_period_us')}"
    quota, _, period = (_read(group / "cpu.max") or old).partition(" ")
    return int(quota) / int(period) if quota.isdigit() else math.inf


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
