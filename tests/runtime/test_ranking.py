"""The best tokens against a full sort."""

import numpy as np
import numpy.typing as npt
import pytest

from florence_onnx.generation.ranking import best_ids


def rows(size: int) -> dict[str, npt.NDArray[np.float32]]:
    draw = np.random.default_rng(size)
    values = draw.standard_normal((4, size), dtype=np.float32)
    allowed = draw.random(values.shape) < 0.1
    return {
        "no two equal": values,
        "many equal": np.round(values),
        "all equal": np.zeros_like(values),
        "most excluded": np.where(allowed, values, -np.inf).astype(np.float32),
        "sorted": np.sort(values, axis=1),
    }


@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 200, 5_129])
@pytest.mark.parametrize("kind", rows(1))
def test_the_order_is_that_of_a_stable_sort(size: int, kind: str) -> None:
    """So the lower id comes first among equal values, at the last place too."""
    values = rows(size)[kind]
    expected = np.argsort(-values, axis=1, kind="stable")
    for k in (1, 2, 3, 6, 100, size):
        np.testing.assert_array_equal(best_ids(values, k), expected[:, :k])


def test_rows_of_no_numbers_have_ids_all_the_same() -> None:
    """Rules that exclude every token leave nothing else."""
    values = np.full((2, 300), np.nan, dtype=np.float32)
    values[1, 7] = 1
    found = best_ids(values, 3)
    assert found.shape == (2, 3)
    assert found[1, 0] == 7


def test_a_batch_of_no_rows() -> None:
    assert best_ids(np.zeros((0, 300), dtype=np.float32), 3).shape == (0, 3)
