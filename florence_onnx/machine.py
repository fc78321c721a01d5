"""Description of the machine and the process for results of measurements."""

import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from florence_onnx.engine.processor import described, features

_PACKAGES = (
    "florence-onnx",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "tokenizers",
    "pillow",
    "torch",
    "torchvision",
    "transformers",
    "openvino",
)
"""Packages whose versions matter; those that are not installed are left out."""

_FLAGS = re.compile(r"avx2|avx512f|avx512_?(vnni|bf16|fp16)|avx_vnni|amx\w*|asimd\w*|sve|i8mm|bf16")
"""CPU features that decide which kernels run."""


def describe_machine() -> dict[str, Any]:
    """Describes processor, memory, system and versions of packages; holds no names of people."""
    return {
        "cpu": processor_name(),
        "cpu_flags": [name for name in features() if _FLAGS.fullmatch(name)],
        "cores": available_threads(),
        "memory_gb": _memory_gb(),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": _versions(),
    }


def processor_name() -> str:
    """Names the processor or a small Arm board; without a name, the kind of the processor."""
    name = described("model name", "Model")
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        name = subprocess.run(command, capture_output=True, text=True).stdout.strip()  # noqa: S603
    return name or platform.processor() or platform.machine()


def available_threads() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_bytes() -> int | None:
    """Measures the largest memory of this process so far, shared pages of files included.

    None where the system does not tell (Windows).
    """
    status = Path("/proc/self/status")
    if status.exists():  # The usage below starts with what the parent process held.
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _memory_gb() -> float | None:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", ()):
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
