"""Description of the machine and the versions of a benchmark."""

import datetime
import subprocess
from typing import Any

from florence_onnx.machine import describe_machine


def environment(command: str, provider: str, threads: int) -> dict[str, Any]:
    """Describes this machine and this run.

    Args:
        command: The command line.
        provider: Provider on which our side ran.
        threads: Threads of every side.
    """
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "command": command,
        "provider": provider,
        "threads": threads,
        "gpu": _gpu() if provider.startswith("CUDA") else None,
        **describe_machine(),
    }


def _gpu() -> str | None:
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
