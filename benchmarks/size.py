"""Measures the installed size of the runtime with dependencies, and of torch with transformers.

    python -m benchmarks.size

The size is the sum of the files that pip has written, byte-compiled files included, over all
distributions that are required on this machine. The environment needs the CPU builds of both.
"""

import compileall
import importlib.metadata as metadata
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.harness.common import make_parser, publish
from benchmarks.harness.measuring import summarise

OURS = "florence-onnx[cpu]"
THEIRS = ("torch", "transformers")


def main(argv: Sequence[str]) -> None:
    """Measures and publishes."""
    arguments = make_parser(__doc__, repeats=1, precisions=False).parse_args(argv)
    ours, theirs = required([OURS]), required(THEIRS)
    each = {name: installed_bytes(name) / 1e6 for name in sorted(ours | theirs)}
    distributions = {"ours": sorted(ours), " and ".join(THEIRS): sorted(theirs)}
    sides = {side: [sum(each[name] for name in names)] for side, names in distributions.items()}
    content = {
        **summarise({"installed": sides}, "MB"),
        "distributions": distributions,
        "megabytes": {name: round(value, 1) for name, value in each.items()},
    }
    publish("size", arguments, argv, content)


def required(requirements: Sequence[str]) -> set[str]:
    """Finds the distributions that the requirements bring on this machine."""
    found: dict[str, set[str]] = {}
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        extras = requirement.extras - found.get(name, set())
        if name in found and not extras:
            continue
        known = found.setdefault(name, set())
        known |= extras
        for text in metadata.requires(name) or ():
            dependency = Requirement(text)
            if _applies(dependency, known):
                waiting.append(dependency)
    return set(found)


def installed_bytes(name: str) -> int:
    """Bytes of the files that an installed distribution lists."""
    distribution = metadata.distribution(name)
    paths = [Path(str(file.locate())) for file in distribution.files or ()]
    if canonicalize_name(name) == "florence-onnx":
        paths += _our_files()  # An editable installation lists no files.
    return sum(path.stat().st_size for path in {path.resolve() for path in paths} if path.is_file())


def _our_files() -> Iterator[Path]:
    for package in ("florence_onnx", "florence_onnx_export"):
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            compileall.compile_dir(folder, quiet=2)  # as pip does where pip does not link
            for path in Path(folder).rglob("*"):
                if "__pycache__" not in path.parts:
                    yield path
                    yield Path(importlib.util.cache_from_source(str(path)))


def _applies(requirement: Requirement, extras: set[str]) -> bool:
    if requirement.marker is None:
        return True
    return any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras))


if __name__ == "__main__":
    main(sys.argv[1:])
