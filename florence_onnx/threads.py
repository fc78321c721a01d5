"""How many threads an operator gets where the process may not use the whole machine."""

import math
import os
from pathlib import Path


def default_threads(files: Path = Path("/")) -> int:
    """Threads of a session for which none were asked: 0, ONNX Runtime's choice, or fewer.

    ONNX Runtime starts a thread per physical core of the machine, whatever ``taskset`` or a
    container allows; those beyond the allowance keep the others waiting. So a confined process
    gets a thread per physical core that it may use, and no more than its quota of processor time.

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
