"""Compares generation on ONNX Runtime with transformers' generate, token for token.

Usage: ``python tests/parity.py [--cases 300] [--seed 7] [--folder build/parity]``. Exports a
small random model per geometry and model seed (kept in the folder), runs every case on both
sides, as it is and once more with settings that checkpoints seldom have, and prints what differed
and what the cases exercised. Exit status 1 if anything differed.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "parity")
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))  # where Python puts the script's own folder instead
    import torch

    from tests.helpers.onnx_runner import OnnxRunner
    from tests.helpers.parity import cases, compare, with_settings

    torch.set_num_threads(1)
    usual = list(cases(arguments.cases, arguments.seed))
    seldom = with_settings(usual, arguments.seed)
    report = compare([*usual, *seldom], OnnxRunner(arguments.folder))
    print("\n".join(report.lines()))
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
