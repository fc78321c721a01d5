"""Description of the machine and the versions of a benchmark."""

import datetime
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
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
"""Packages whose versions matter. Packages that are not installed are left out."""

FLAGS = re.compile(r"avx2|avx512f|avx512_?(vnni|bf16|fp16)|avx_vnni|amx\w*|asimd|sve|i8mm|bf16")
"""Features of the CPU that decide which kernels run."""


def environment(command: str, provider: str, threads: int) -> dict[str, Any]:
    """Describes this machine and this run.

    Args:
        command: The command line.
        provider: Provider on which our side ran.
        threads: Threads of every side.
    """
    model, flags = _cpu()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "command": command,
        "provider": provider,
        "cpu": model,
        "cpu_flags": flags,
        "cores": available_threads(),
        "threads": threads,
        "memory_gb": _memory_gb(),
        "gpu": _gpu() if provider.startswith("CUDA") else None,
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": _versions(),
    }


def available_threads() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu() -> tuple[str, list[str]]:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine(), []
    fields = dict(re.findall(r"^(model name|flags|Features)\s*: (.*)$", info.read_text(), re.M))
    flags = str(fields.get("flags") or fields.get("Features") or "").split()
    return fields.get("model name", platform.machine()), [f for f in flags if FLAGS.fullmatch(f)]


def _memory_gb() -> float | None:
    if "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)


def _gpu() -> str | None:
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
