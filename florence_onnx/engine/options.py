"""Options of the sessions of a model: threads, memory, packed weights."""

import math
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from florence_onnx.engine import contract
from florence_onnx.engine.arena import use_arena
from florence_onnx.engine.processor import has_bfloat16_matmuls, has_int8_dot_products
from florence_onnx.errors import SessionOptionsError

if TYPE_CHECKING:
    import onnxruntime as ort
    from onnxruntime import SessionOptions as SessionOptions

_MOST_THREADS = 1024
_FAST = "mlas.enable_gemm_fastmath_arm64_bfloat16"


def check_options(
    given: "ort.SessionOptions | None", threads: int | None, fast_math: bool = False
) -> None:
    """Refuses wrong options, and ``threads`` or ``fast_math`` beside session options.

    Raises:
        SessionOptionsError: An argument is wrong, or both are given.
    """
    import onnxruntime as ort

    if threads is not None and not (type(threads) is int and 1 <= threads <= _MOST_THREADS):
        raise SessionOptionsError(
            f"threads is {threads!r}; it must be a whole number from 1 to {_MOST_THREADS}, or None"
        )
    check_fast_math(fast_math)
    if given is None:
        return
    if fast_math:
        raise SessionOptionsError(
            f"give fast_math or session_options, not both: fast_math is the options' entry {_FAST}"
        )
    if threads is not None:
        raise SessionOptionsError(
            "give threads or session_options, not both: threads is the options' "
            "intra_op_num_threads"
        )
    if not isinstance(given, ort.SessionOptions):
        raise SessionOptionsError(
            f"session_options is {given!r:.80}; it must be an onnxruntime.SessionOptions"
        )


def check_fast_math(fast_math: bool) -> None:
    """Refuses ``fast_math`` on a processor that has no use for it.

    Raises:
        SessionOptionsError: The processor has none, or ``fast_math`` is no bool.
    """
    if type(fast_math) is not bool:
        raise SessionOptionsError(f"fast_math is {fast_math!r:.80}; it must be True or False")
    if fast_math and not has_bfloat16_matmuls():
        raise SessionOptionsError(
            "fast_math is for Arm processors with bfloat16 on Linux (bf16 in /proc/cpuinfo), and "
            f"this is {platform.machine()} on {platform.system()} without; leave it out"
        )


def default_options(
    graph: str, precision: str, threads: int | None, fast_math: bool = False
) -> "ort.SessionOptions":
    """Makes the options for a graph where the caller gives no options."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4  # ONNX Runtime raises what it would log as an error.
    options.intra_op_num_threads = default_threads() if threads is None else threads
    use_arena(options)
    compute_exactly(options)
    if fast_math:
        options.add_session_config_entry(_FAST, "1")
        # A scale that ONNX Runtime fuses into a matmul is left out by its bfloat16 kernel
        # (https://github.com/microsoft/onnxruntime/pull/32152).
        options.add_session_config_entry(
            "optimization.disable_specified_optimizers", "MatMulScaleFusion"
        )
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


def options_for_one_request() -> "ort.SessionOptions":
    """Makes options with which float32 graphs open fast and read weights from the mapped files.

    ONNX Runtime's last level of optimization copies the weights of convolutions to another order,
    and makes further copies on the way: 300 MB and most of the time to open a large model.
    """
    import onnxruntime as ort

    options = default_options(contract.ENCODER, "fp32", None)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    return options


def compute_exactly(options: "ort.SessionOptions") -> None:
    """Has sums of 8-bit numbers not saturate where the processor has no 8-bit dot products.

    The instructions of AVX2 and AVX-512 without VNNI add pairs of such numbers in 16 bits, and
    activations times weights do not fit. The option makes weights unsigned, for which ONNX Runtime
    has slower instructions that are exact. Other processors know no such fault.
    """
    if not has_int8_dot_products():
        options.add_session_config_entry("session.x64quantprecision", "1")


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
