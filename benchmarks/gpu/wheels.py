"""Packages that a machine without a network gets from a folder of wheels, some of them in parts."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.harness.common import ROOT, BenchmarkError, progress

PART = re.compile(r"(?P<wheel>.+\.whl)\.part-?\w+")
"""Parts of a wheel, as ``split -b 60M WHEEL WHEEL.part-`` names them."""


def install(wheels: Path, site: Path) -> None:
    """Installs all wheels of a folder into a folder of their own, whatever is installed elsewhere.

    Args:
        wheels: Holds wheels, and parts of wheels, which are joined in the order of their names.
        site: Where the packages go; what an earlier call left there is replaced.

    Raises:
        BenchmarkError: There are no wheels, or pip cannot install them.
    """
    site.mkdir(parents=True, exist_ok=True)
    joined = _joined(wheels, site)
    if not joined:
        raise BenchmarkError(f"{wheels} holds no wheels and no parts of wheels")
    progress(f"installing {', '.join(path.name for path in joined)}")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
    command += ["--no-compile", "--upgrade", "--target", str(site), *map(str, joined)]
    if subprocess.run(command, check=False).returncode:
        raise BenchmarkError(f"pip could not install the wheels of {wheels}")


def _joined(wheels: Path, site: Path) -> list[Path]:
    """The whole wheels, those that came in parts put together beside the packages."""
    parts: dict[str, list[Path]] = {}
    for path in sorted(wheels.glob("*.whl.part*")):
        if found := PART.fullmatch(path.name):
            parts.setdefault(found["wheel"], []).append(path)
    folder = site.with_name(site.name + "-wheels")
    folder.mkdir(exist_ok=True)
    for name, pieces in parts.items():
        with (folder / name).open("wb") as whole:
            for piece in pieces:
                with piece.open("rb") as file:
                    shutil.copyfileobj(file, whole)
    return [*sorted(wheels.glob("*.whl")), *(folder / name for name in parts)]


def restart(module: str, site: Path, argv: list[str]) -> None:
    """Replaces this process by ``python -m module argv`` that finds the packages in ``site``."""
    places = [site, ROOT, ROOT / "export", os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(str(place) for place in places if place)
    os.execv(sys.executable, [sys.executable, "-m", module, *argv])  # noqa: S606
