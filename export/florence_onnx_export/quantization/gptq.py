"""Weights rounded to integers so that the errors of a matmul's terms cancel.

After GPTQ (Frantar et al. 2022, https://arxiv.org/abs/2210.17323): the inputs of a matmul are
correlated, so what rounding one weight adds to a sum can be taken back by the weights after it.
"""

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]

DAMPING = 0.1
"""What is added to the moment's diagonal, over its mean. As if some noise were in all directions:
the pictures that are measured on span few, and others must not cost much more than plain rounding.
"""

_FEW = 16
"""Rows that are rounded one after the other; the corrections of more are one matmul."""

_COLUMNS = 2048
"""Columns that are rounded at once: what is worked on should fit a cache."""


def inverse_factor(moment: Matrix) -> Matrix:
    """The upper triangular U with U^T U the inverse of a damped second moment [n,n].

    It is the identity, which rounds to the nearest, for a moment of no inputs or beyond float32.
    """
    scale = float(np.trace(moment, dtype=np.float64)) / len(moment)
    if not 0 < scale < np.inf:
        return np.eye(len(moment), dtype=np.float32)
    # The inverse of R R^T is U^T U with U the inverse of R, and the R that is upper triangular is
    # the usual factor of the moment with its rows and columns in the opposite order. Damping
    # bounds the condition by 10 n, so that float32 does.
    damped = np.asarray(moment[::-1, ::-1] * (1 / scale), np.float32)
    damped[np.diag_indices_from(damped)] += np.float32(DAMPING)
    upper = np.ascontiguousarray(np.linalg.cholesky(damped)[::-1, ::-1])
    inverse = np.zeros_like(upper)
    _invert(upper, inverse)
    inverse /= np.float32(np.sqrt(scale))
    return inverse


def _invert(upper: Matrix, inverse: Matrix) -> None:
    """Writes the inverse of an upper triangular matrix over zeros, mostly by matmuls."""
    half = len(upper) // 2
    if half < 32:
        inverse[:] = np.triu(np.linalg.inv(upper))
        return
    first, last = np.s_[:half, :half], np.s_[half:, half:]
    _invert(upper[first], inverse[first])
    _invert(upper[last], inverse[last])
    np.matmul(inverse[first] @ upper[:half, half:], -inverse[last], out=inverse[:half, half:])


def round_weight(
    weight: Matrix, scale: Matrix, limits: tuple[int, int], factor: Matrix | None = None
) -> npt.NDArray[np.float32]:
    """Rounds ``weight / scale`` to integers.

    Args:
        weight: [in,out].
        scale: The step, of a shape that broadcasts to [in,out].
        limits: Least and largest integer.
        factor: `inverse_factor` of what the columns are multiplied with; without it every value
            goes to its nearest integer.

    Returns:
        The integers, [in,out].
    """
    if factor is None:
        return np.asarray(np.clip(np.rint(weight / scale), *limits))
    scale = np.broadcast_to(scale, weight.shape)
    # An error counts as a share of its row's part in the inverse, so that corrections are whole.
    shares = factor / np.diag(factor)[:, None]
    values = np.empty(weight.shape, np.float32)
    for start in range(0, weight.shape[1], _COLUMNS):
        part = np.s_[:, start : start + _COLUMNS]
        left = np.array(weight[part], np.float32, order="C")
        values[part] = _round_rows(left, scale[part], limits, shares, np.empty_like(left))
    return values


def _round_rows(
    left: Matrix, scale: Matrix, limits: tuple[int, int], shares: Matrix, values: Matrix
) -> Matrix:
    """Rounds rows into ``values``, which is returned; of ``left`` there remain the errors."""
    half = len(left) // 2
    if len(left) > _FEW:
        _round_rows(left[:half], scale[:half], limits, shares[:half, :half], values[:half])
        left[half:] -= shares[:half, half:].T @ left[:half]
        _round_rows(left[half:], scale[half:], limits, shares[half:, half:], values[half:])
        return values
    least, largest = limits
    for i, (row, step, rounded) in enumerate(zip(left, scale, values, strict=True)):
        np.divide(row, step, out=rounded)
        np.rint(rounded, out=rounded)
        np.maximum(rounded, least, out=rounded)
        np.minimum(rounded, largest, out=rounded)
        row -= rounded * step
        left[i + 1 :] -= shares[i, i + 1 :, None] * row
    return values
