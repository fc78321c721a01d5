"""GPTQ: rounding of weights to integers, so that the rounding errors in a matmul's sums cancel.

The method is that of Frantar et al. 2022, https://arxiv.org/abs/2210.17323. The inputs of a matmul
are correlated, so changes of the later weights can cancel the rounding error of a weight.
"""

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]

DAMPING = 0.1
"""Damping: a constant on the diagonal of the Hessian, as a share of the mean of the diagonal. The
calibration pictures span few directions. With damping, inputs in other directions have errors that
are not much larger than with plain rounding."""

_FEW = 16
"""Rows that are rounded one by one. A larger block is halved: the first half is rounded, then a
matmul corrects the second half."""

_COLUMNS = 2048
"""Columns that are rounded at once, so that the arrays fit a cache."""


def inverse_factor(hessian: Matrix) -> Matrix:
    """Factors the inverse of a damped Hessian [n,n] into U^T U with an upper triangular U.

    For a Hessian of no inputs, or beyond float32, U is the identity: rounding is to the nearest.
    """
    scale = float(np.trace(hessian, dtype=np.float64)) / len(hessian)
    if not 0 < scale < np.inf:
        return np.eye(len(hessian), dtype=np.float32)
    # Damping bounds the condition number by 10 n, so float32 is enough.
    damped = np.asarray(hessian * (1 / scale), np.float32)
    damped[np.diag_indices_from(damped)] += np.float32(DAMPING)
    inverse = np.zeros_like(damped)
    _factor(damped, inverse)
    inverse /= np.float32(np.sqrt(scale))
    return inverse


def _factor(hessian: Matrix, inverse: Matrix) -> None:
    """Writes U of `inverse_factor` into ``inverse``, mostly by matmuls; ``hessian`` is used up.

    With a Hessian R R^T and an upper triangular R, U is the inverse of R. Halves of R and U follow
    from the quarters of the Hessian, the last half first.
    """
    half = len(hessian) // 2
    if half < 32:
        lower = np.linalg.cholesky(hessian[::-1, ::-1])
        inverse[:] = np.triu(np.linalg.inv(lower[::-1, ::-1]))
        return
    first, corner, last = np.s_[:half, :half], np.s_[:half, half:], np.s_[half:, half:]
    _factor(hessian[last], inverse[last])
    upper = hessian[corner] @ inverse[last].T
    hessian[first] -= upper @ upper.T
    _factor(hessian[first], inverse[first])
    np.matmul(inverse[first] @ upper, -inverse[last], out=inverse[corner])


def round_weight(
    weight: Matrix, scale: Matrix, limits: tuple[int, int], factor: Matrix | None = None
) -> npt.NDArray[np.float32]:
    """Rounds ``weight / scale`` to integers.

    Args:
        weight: Weight [in,out].
        scale: Quantisation step, of a shape that broadcasts to [in,out].
        limits: Least and largest integer.
        factor: `inverse_factor` of the Hessian. Without a factor, every value is rounded to the
            nearest integer.

    Returns:
        The integers, [in,out].
    """
    if factor is None:
        return np.asarray(np.clip(np.rint(weight / scale), *limits))
    scale = np.broadcast_to(scale, weight.shape)
    # Rows are divided by the diagonal of the factor, so that a correction is error times row.
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
    """Rounds rows of ``left`` into ``values``, which is returned; ``left`` becomes the errors."""
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
