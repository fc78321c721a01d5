"""Checks and times a GPU in one call of at most eight minutes, on a machine without a network.

    python -m benchmarks.gpu --wheels FOLDER

GPU.md tells how to prepare the folder. The command installs the packages of the wheels into a
folder of their own, makes the checks, and measures the tables of each geometry until the time is
over. Results are written after every step, so an early end loses no results. The exit status is 1
if a check failed.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu import wheels
from benchmarks.harness.common import CUDA, make_parser, progress


def main(argv: Sequence[str]) -> int:
    """Installs, checks, measures and publishes."""
    arguments = _arguments(argv)
    if arguments.wheels:
        site = arguments.work / "gpu-packages"
        wheels.install(arguments.wheels, site)
        at = list(argv).index("--wheels")
        wheels.restart("benchmarks.gpu", site, [*argv[:at], *argv[at + 2 :]])
    # The packages of the wheels are found from here on.
    from benchmarks.gpu.checks import run_checks, told
    from benchmarks.gpu.models import make_setup
    from benchmarks.gpu.tables import Budget

    budget = Budget(arguments.seconds)
    arguments.work.mkdir(parents=True, exist_ok=True)
    small = make_setup("tiny", arguments.work, arguments.provider, arguments.threads)
    checks = run_checks(small)
    for check in checks:
        progress(f"{'passed' if check.passed else 'FAILED'}: {check.name}: {check.detail}")
    content: dict[str, Any] = {"checks": told(checks)}
    _publish(arguments, argv, content, {}, [])
    _measure(arguments, argv, content, budget)
    return 0 if all(check.passed for check in checks) else 1


def _measure(
    arguments: argparse.Namespace, argv: Sequence[str], content: dict[str, Any], budget: Any
) -> None:
    """Measures the tables of each geometry; the compiled peer comes last."""
    from benchmarks.gpu.models import make_setup
    from benchmarks.gpu.tables import COMPILED, OURS, THEIRS, measure

    cases: dict[str, Any] = {}
    notes: list[str] = []
    groups: list[tuple[str, Sequence[str]]]
    groups = [(model, (*OURS, *THEIRS)) for model in arguments.geometry]
    if arguments.compiled:
        groups += [(model, (OURS[1], COMPILED)) for model in arguments.geometry]
    for model, peers in groups:
        if budget.left() <= 0:
            notes.append(f"{model} with {', '.join(peers)} was left out: the time was over.")
            _publish(arguments, argv, content, cases, notes)
            continue
        setup = make_setup(model, arguments.work, arguments.provider, arguments.threads)
        before, told = dict(cases), list(notes)
        compiled = ", beside torch.compile" if COMPILED in peers else ""
        for found, more in measure(setup, peers, arguments.repeats, budget):
            named = {f"{model}{compiled}: {case}": sides for case, sides in found.items()}
            cases, notes = {**before, **named}, [*told, *(f"{model}: {note}" for note in more)]
            _publish(arguments, argv, content, cases, notes)


def _publish(
    arguments: argparse.Namespace,
    argv: Sequence[str],
    content: Mapping[str, Any],
    cases: Mapping[str, Any],
    notes: Sequence[str],
) -> None:
    from benchmarks.harness.common import publish
    from benchmarks.harness.measuring import summarise

    publish(
        "gpu",
        arguments,
        argv,
        {**content, **summarise(cases), "notes": list(notes)},
        arguments.provider,
    )


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = make_parser(__doc__, repeats=3, precisions=False)
    parser.set_defaults(provider=CUDA, model="random")
    parser.add_argument("--wheels", type=Path, help="folder of wheels and of parts of wheels")
    parser.add_argument(
        "--geometry",
        nargs="+",
        default=["base", "large"],
        choices=["base", "large", "tiny"],
        help="models that are timed (default: base large)",
    )
    parser.add_argument(
        "--seconds", type=float, default=420, help="no case is begun after them (default: 420)"
    )
    parser.add_argument(
        "--no-compiled",
        dest="compiled",
        action="store_false",
        help="leave torch.compile out, which takes minutes to compile",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
