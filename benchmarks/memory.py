"""Measures the peak resident memory of a fresh process that writes a caption of 20 tokens.

    python -m benchmarks.memory

Pages of files that are mapped into the process count too. On CUDA this is the host's memory.
"""

import sys
from collections.abc import Sequence

from benchmarks.fresh import measure


def main(argv: Sequence[str]) -> None:
    """Measures and publishes."""
    measure("memory", __doc__, argv, lambda run: run.megabytes, "MB")


if __name__ == "__main__":
    main(sys.argv[1:])
