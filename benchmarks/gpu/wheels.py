"""Installation of packages from a folder of wheels, for a machine without a network."""

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
    """Installs all wheels of a folder into a new folder, whatever is installed elsewhere.

    Args:
        wheels: Folder of wheels and parts of wheels. Parts are joined in the order of the names.
        site: Folder of the packages, which replaces an earlier folder.

    Raises:
        BenchmarkError: There are no wheels, or pip cannot install them.
    """
    joined = _joined(wheels, site)
    if not joined:
        raise BenchmarkError(f"{wheels} holds no wheels and no parts of wheels")
    shutil.rmtree(site, ignore_errors=True)  # An older version of a package would stay named.
    progress(f"installing {', '.join(path.name for path in joined)}")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
    command += ["--no-compile", "--upgrade", "--target", str(site), *map(str, joined)]
    if subprocess.run(command, check=False).returncode:
        raise BenchmarkError(f"pip could not install the wheels of {wheels}")


def _joined(wheels: Path, site: Path) -> list[Path]:
    """Returns the whole wheels, after joining wheels in parts."""
    parts: dict[str, list[Path]] = {}
    for path in sorted(wheels.glob("*.whl.part*")):
        if found := PART.fullmatch(path.name):
            parts.setdefault(found["wheel"], []).append(path)
    folder = site.with_name(site.name + "-wheels")
    folder.mkdir(parents=True, exist_ok=True)
    for name, pieces in parts.items():
        with (folder / name).open("wb") as whole:
            for piece in pieces:
                with piece.open("rb") as file:
                    shutil.copyfileobj(file, whole)
    return [*sorted(wheels.glob("*.whl")), *(folder / name for name in parts)]


def restart(module: str, site: Path, argv: list[str]) -> None:
    """Replaces this process by ``python -m module argv`` that finds the packages in ``site``."""
    places = [ROOT, ROOT / "export", site, os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(str(place) for place in places if place)
    os.execv(sys.executable, [sys.executable, "-m", module, *argv])  # noqa: S606
