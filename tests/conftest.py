"""Fixtures for all tests."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real Florence-2 data beside the repository, which only some machines have."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "florence2"
    if not folder.is_dir():
        pytest.skip(f"no real Florence-2 data at {folder}")
    return folder
