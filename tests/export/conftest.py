"""Exports that several tests share: tracing takes most of a minute."""

import pytest

from tests.helpers.checkpoints import save_native, save_original
from tests.helpers.exports import SQUARE, WIDE, Exported, export_random


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A checkpoint in transformers' format; not to be changed."""
    return export_random(SQUARE, 3, save_native, tmp_path_factory.mktemp("native"))


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A checkpoint in Microsoft's format, of another geometry; not to be changed."""
    return export_random(WIDE, 5, save_original, tmp_path_factory.mktemp("original"))
