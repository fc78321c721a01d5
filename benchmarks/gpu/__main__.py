"""Checks and times a GPU in one call of at most eight minutes, on a machine without a network.

    python -m benchmarks.gpu --wheels FOLDER

GPU.md tells how to prepare the folder. The command installs the packages of the wheels into a
folder of their own, makes the checks, and measures the tables of each geometry until the time is
over. Results are written after every step, so an early end loses no results. The exit status is 1
if a check failed.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu import wheels
from benchmarks.gpu.budget import Budget, TimeOver
from benchmarks.harness.common import CUDA, make_parser, progress

GRACE = 30
"""Seconds after ``--seconds`` that the case in progress has. Wheels are installed before, in less
than the rest of eight minutes."""


def main(argv: Sequence[str]) -> int:
    """Installs, checks, measures and publishes."""
    arguments = _arguments(argv)
    if arguments.wheels:
        site = arguments.work / "gpu-packages"
        wheels.install(arguments.wheels, site)
        wheels.restart("benchmarks.gpu", site, without_wheels(argv))
    budget, run, passed = Budget(arguments.seconds), Run(arguments, argv), False
    arguments.work.mkdir(parents=True, exist_ok=True)
    try:
        with budget.enforced(GRACE):
            passed = _check(run)
            _measure(run, budget)
    except TimeOver:
        run.notes.append("The run was ended: the time was over. What is missing had no time.")
        run.publish()
    return 0 if passed else 1


@dataclass
class Run:
    """Results so far."""

    arguments: argparse.Namespace
    argv: Sequence[str]
    checks: list[dict[str, Any]] = field(default_factory=list)
    cases: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def publish(self) -> None:
        """Writes the file."""
        # The packages of the wheels are found from here on.
        from benchmarks.harness.common import publish
        from benchmarks.harness.measuring import summarise

        content = {"checks": self.checks, **summarise(self.cases), "notes": self.notes}
        publish("gpu", self.arguments, self.argv, content, self.arguments.provider)


def _check(run: Run) -> bool:
    """Makes the checks; tells whether all passed."""
    from benchmarks.gpu.checks import run_checks
    from benchmarks.gpu.models import make_setup

    arguments = run.arguments
    small = make_setup("tiny", arguments.work, arguments.provider, arguments.threads)
    for check in run_checks(small):
        progress(f"{'passed' if check.passed else 'FAILED'}: {check.name}: {check.detail}")
        run.checks.append(asdict(check))
        run.publish()
    return all(check["passed"] for check in run.checks)


def _measure(run: Run, budget: Budget) -> None:
    """Measures the tables of each geometry; the compiled peer comes last."""
    from benchmarks.gpu.models import make_setup
    from benchmarks.gpu.tables import COMPILED, OURS, THEIRS, measure

    arguments = run.arguments
    groups: list[tuple[str, Sequence[str]]]
    groups = [(model, (*OURS, *THEIRS)) for model in arguments.geometry]
    if arguments.compiled:
        groups += [(model, (OURS[1], COMPILED)) for model in arguments.geometry]
    for model, peers in groups:
        if budget.left() <= 0:
            run.notes.append(f"{model} with {', '.join(peers)} was left out: the time was over.")
            run.publish()
            continue
        setup = make_setup(model, arguments.work, arguments.provider, arguments.threads)
        told = list(run.notes)
        compiled = ", beside torch.compile" if COMPILED in peers else ""
        for found, more in measure(setup, peers, arguments.repeats, budget):
            run.cases |= {f"{model}{compiled}: {case}": sides for case, sides in found.items()}
            run.notes = [*told, *(f"{model}: {note}" for note in more)]
            run.publish()


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
        "--seconds",
        type=float,
        default=420,
        help=f"no case is begun after them, and the last is ended {GRACE} later (default: 420)",
    )
    parser.add_argument(
        "--no-compiled",
        dest="compiled",
        action="store_false",
        help="leave torch.compile out, which takes minutes to compile",
    )
    arguments = parser.parse_args(argv)
    if arguments.json:
        parser.error("--json prints one record, and this command writes its file after every step")
    return arguments


def without_wheels(argv: Sequence[str]) -> list[str]:
    """Options but ``--wheels``, in whichever form it was given."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--wheels")
    return parser.parse_known_args(argv)[1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
