"""What Linux says about a processor."""

import platform
import sys
from pathlib import Path

import pytest

from florence_onnx.engine import processor
from florence_onnx.engine.processor import has_bfloat16_matmuls, has_int8_dot_products

linux = pytest.mark.skipif(sys.platform == "darwin", reason="does not read files")


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the processor is described, by a test."""
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    return tmp_path / "cpuinfo"


@linux
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("flags\t\t: fpu sse2 avx2 avx512f avx512_vnni hypervisor", True),
        ("flags\t\t: fpu sse2 avx2 avx_vnni", True),
        ("flags\t\t: fpu amx_tile amx_int8", True),
        ("flags\t\t: fpu sse2 avx2 avx512f amx_tile", False),
        ("vmx flags\t: avx512_vnni\nflags\t\t: fpu avx2", False),
        ("Features\t: fp asimd atomics asimdrdm asimddp", True),
        ("Features\t: fp asimd i8mm", True),
        ("Features\t: fp asimd", False),
        ("isa\t: rv64imafdc", False),
        ("", False),
    ],
)
def test_features_of_processors(cpuinfo: Path, line: str, expected: bool) -> None:
    cpuinfo.write_text(f"processor\t: 0\nmodel name\t: avx_vnni\n{line}\n\nprocessor\t: 1\n")
    assert has_int8_dot_products() is expected


@linux
def test_a_system_that_does_not_tell(cpuinfo: Path) -> None:
    assert not cpuinfo.exists()
    assert not has_int8_dot_products()
    assert not has_bfloat16_matmuls()


@pytest.mark.parametrize(("machine", "expected"), [("arm64", True), ("x86_64", False)])
def test_macs(monkeypatch: pytest.MonkeyPatch, machine: str, expected: bool) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert has_int8_dot_products() is expected


@linux
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Features\t: fp asimd asimddp i8mm bf16 sve", True),
        ("Features\t: fp asimd asimddp i8mm", False),
        ("flags\t\t: fpu avx2 avx512_bf16 amx_bf16", False),
        ("", False),
    ],
)
def test_matmuls_in_bfloat16(cpuinfo: Path, line: str, expected: bool) -> None:
    cpuinfo.write_text(f"processor\t: 0\n{line}\n")
    assert has_bfloat16_matmuls() is expected
