"""Threads of a confined process, told from files as Linux writes them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from florence_onnx.engine.options import default_threads

Machine = Callable[..., Path]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Makes a machine of 8 cores with two processors each: n and n + 8 are one core."""

    def make(allowed: set[int], **contents: str) -> Path:
        monkeypatch.setattr(os, "cpu_count", lambda: 16)
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: allowed, raising=False)
        files = {
            f"sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list": f"{n % 8},{n % 8 + 8}\n"
            for n in range(16)
        }
        for name, content in {**files, **contents}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return tmp_path

    return make


ALL = set(range(16))
V2 = {"proc/self/cgroup": "0::/\n"}
DEEP = {"proc/self/cgroup": "0::/user.slice/job\n"}
V1 = {"proc/self/cgroup": "3:cpuset:/\n2:cpu,cpuacct:/docker/ab\n1:memory:/x\n0::/\n"}


@pytest.mark.parametrize("limit", [{}, {"sys/fs/cgroup/cpu.max": "max 100000\n"}])
def test_an_unconfined_process_leaves_the_choice_to_onnxruntime(
    machine: Machine, limit: dict[str, str]
) -> None:
    assert default_threads(machine(ALL, **V2, **limit)) == 0


@pytest.mark.parametrize(
    ("allowed", "threads"),
    [({0, 1, 2, 3}, 4), ({0, 8}, 1), ({0, 1, 8, 9}, 2), ({5}, 1), (ALL - {15}, 8)],
)
def test_physical_cores_of_the_affinity(machine: Machine, allowed: set[int], threads: int) -> None:
    assert default_threads(machine(allowed)) == threads


@pytest.mark.parametrize(
    ("cpu_max", "threads"),
    [
        ("200000 100000", 2),
        ("350000 100000", 3),
        ("50000 100000", 1),
        ("1200000 100000", 8),
        ("1600000 100000", 0),
        ("100000 50000", 2),
    ],
)
def test_the_quota_of_a_container(machine: Machine, cpu_max: str, threads: int) -> None:
    """Rounded down, because a thread that is put to sleep keeps the others waiting."""
    assert default_threads(machine(ALL, **V2, **{"sys/fs/cgroup/cpu.max": cpu_max})) == threads


@pytest.mark.parametrize("group", ["user.slice/job/", "user.slice/", ""])
def test_the_quota_of_an_outer_group_holds_too(machine: Machine, group: str) -> None:
    inner = {"sys/fs/cgroup/user.slice/job/cpu.max": "900000 100000"}
    outer = {f"sys/fs/cgroup/{group}cpu.max": "200000 100000\n"}
    assert default_threads(machine(ALL, **{**DEEP, **inner, **outer})) == 2


@pytest.mark.parametrize(("quota", "threads"), [("300000\n", 3), ("-1\n", 0)])
@pytest.mark.parametrize("group", ["docker/ab/", ""])
def test_the_first_version_of_control_groups(
    machine: Machine, quota: str, threads: int, group: str
) -> None:
    folder = f"sys/fs/cgroup/cpu/{group}"
    limit = {f"{folder}cpu.cfs_quota_us": quota, f"{folder}cpu.cfs_period_us": "100000\n"}
    assert default_threads(machine(ALL, **V1, **limit)) == threads


def test_affinity_and_quota_together(machine: Machine) -> None:
    limit = {"sys/fs/cgroup/cpu.max": "300000 100000"}
    assert default_threads(machine({0, 1}, **V2, **limit)) == 2
    assert default_threads(machine({0, 1, 2, 3, 4}, **V2, **limit)) == 3


def test_a_machine_that_hides_its_cores(machine: Machine, tmp_path: Path) -> None:
    machine({0, 1, 2})
    assert default_threads(tmp_path / "nothing") == 3


def test_a_system_without_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert default_threads() == 0
