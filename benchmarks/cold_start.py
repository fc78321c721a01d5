"""Times a fresh process from its start to a caption of 20 tokens, the model on disk.

    python -m benchmarks.cold_start

Imports, opening the model and the answer are in it. The files are in the system's cache, because
a first round is not counted.
"""

import sys
from collections.abc import Sequence

from benchmarks.fresh import measure


def main(argv: Sequence[str]) -> None:
    """Measures and publishes."""
    measure("cold_start", __doc__, argv, lambda run: run.seconds, "s")


if __name__ == "__main__":
    main(sys.argv[1:])
