"""The versions that the tests run on are pinned, whole and in step with pyproject.toml."""

import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

tomllib = pytest.importorskip("tomllib")

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


def required(*extras: str) -> list[Requirement]:
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    found = [Requirement(line) for line in lines]
    own = {extra for one in found if one.name == PROJECT["name"] for extra in one.extras}
    others = [one for one in found if one.name != PROJECT["name"]]
    return [*others, *(Requirement(line) for extra in sorted(own) for line in EXTRAS[extra])]


def pins(name: str) -> dict[str, str]:
    """Package -> its one version on this Python and system."""
    found = {}
    for line in (ROOT / "tests" / name).read_text().splitlines():
        requirement = line.partition("#")[0].strip()
        if requirement:
            pin = Requirement(requirement)
            if pin.marker is None or pin.marker.evaluate():
                (specifier,) = pin.specifier
                assert specifier.operator == "==" and "*" not in specifier.version, line
                assert pin.name not in found, line
                found[pin.name] = specifier.version
    return found


def installed(requirements: list[Requirement]) -> Iterator[str]:
    """Names of what is installed for requirements, and of what those in turn require."""
    seen: set[tuple[str, frozenset[str]]] = set()
    while requirements:
        requirement = requirements.pop()
        key = (re.sub(r"[-_.]+", "-", requirement.name).lower(), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        yield key[0]
        for line in metadata.requires(requirement.name) or []:
            needed = Requirement(line)
            environments = [{"extra": extra} for extra in (*requirement.extras, "")]
            if needed.marker is None or any(map(needed.marker.evaluate, environments)):
                requirements.append(needed)


def test_everything_that_the_tests_install_has_one_version() -> None:
    names = set(installed(required("cpu", "cli", "export", "test")))
    assert {"transformers", "regex", "mypy", "pluggy"} <= names
    assert names - pins("constraints.txt").keys() == set()


@pytest.mark.parametrize(
    ("name", "extras"),
    [
        ("constraints.txt", ("cpu", "cli", "export", "test", "docs")),
        ("demo.txt", ("cpu", "cli", "demo")),
        ("tools.txt", ("cpu", "cli", "annotate", "video", "parquet", "supervision")),
        ("cluster.txt", ("cpu", "cli", "annotate", "ray")),
        ("fiftyone.txt", ("cpu", "cli")),
        ("floors.txt", ("cpu", "cli")),
        ("export-floors.txt", ("export",)),
    ],
)
def test_pins_are_in_step_with_the_requirements(name: str, extras: tuple[str, ...]) -> None:
    """After a change of pyproject.toml, ``.ci/pin`` writes them again."""
    pinned, requirements = pins(name), required(*extras)
    assert len(requirements) > 3
    for requirement in requirements:
        assert requirement.specifier.contains(pinned[requirement.name]), requirement


@pytest.mark.parametrize(
    ("name", "requirements"),
    [
        ("floors.txt", required("cpu", "cli")),
        # Of what the runtime needs too, transformers needs newer ones.
        ("export-floors.txt", [Requirement(line) for line in EXTRAS["export"]]),
    ],
)
def test_floors_are_the_oldest_versions_admitted(
    name: str, requirements: list[Requirement]
) -> None:
    pinned = pins(name)
    for requirement in requirements:
        (floor,) = (s.version for s in requirement.specifier if s.operator == ">=")
        assert Version(pinned[requirement.name]) == Version(floor), requirement


def test_what_users_install_is_not_pinned() -> None:
    assert [
        str(one) for one in required(*EXTRAS) if any(s.operator == "==" for s in one.specifier)
    ] == []


def test_the_workflow_runs_the_steps_of_the_command() -> None:
    """Test files, packages beside the requirements, and what npm installs."""
    steps = re.compile(r"tests/(?:runtime|export)/test_\w+\.py|[\w-]+==[\d.]+\d|npm --prefix .*")
    command, workflow = (
        set(steps.findall((ROOT / path).read_text()))
        for path in (".ci/run", ".github/workflows/tests.yml")
    )
    assert {"tests/runtime/test_convert_tools.py", "torch==2.13.0"} < command
    assert workflow == command


def test_every_environment_of_the_command_has_pins_for_what_it_names() -> None:
    command = (ROOT / ".ci" / "run").read_text().replace("\\\n", " ")
    made = re.findall(r"^environment \S+ \S+ (.*)$", command, re.M)
    assert len(made) > 8
    for packages in made:
        (name,) = re.findall(r"-c tests/(\S+)", packages)
        named = {word for word in packages.split() if re.fullmatch(r"[a-z][a-z-]+", word)}
        assert named <= pins(name).keys(), packages


def test_the_readme_installs_the_pins() -> None:
    commands = re.findall(r"^pip install .*\[.*test.*\].*$", (ROOT / "README.md").read_text(), re.M)
    assert commands == [
        "pip install torch==2.13.0 -c tests/constraints.txt -e '.[cpu,cli,export,test]'"
    ]
    assert pins("constraints.txt")["torch"] == "2.13.0"
