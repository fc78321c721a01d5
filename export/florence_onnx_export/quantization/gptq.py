"""Weights rounded to integers so that the errors of a product's terms cancel.

After GPTQ (Frantar et al. 2022, https://arxiv.org/abs/2210.17323): the inputs of a product are
correlated, so what rounding one weight adds to a sum can be taken back by the weights after it.
"""

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]

DAMPING = 0.1
"""What is added to the moment's diagonal, over its mean. As if some noise were in all directions:
the pictures that are measured on span few, and others must not cost much more than plain rounding.
"""

_BLOCK = 128
"""Rows whose corrections reach the rows after the block in one product."""


def inverse_factor(moment: Matrix) -> Matrix:
    """The upper triangular U with U^T U the inverse of a damped second moment [n,n].

    It is the identity, which rounds to the nearest, for a moment of no inputs or beyond float32.
    """
    damped = moment.astype(np.float64)
    scale = np.trace(damped) / len(damped)
    if not 0 < scale < np.inf:
        return np.eye(len(moment), dtype=np.float32)
    damped[np.diag_indices_from(damped)] += DAMPING * scale
    return np.asarray(np.linalg.cholesky(np.linalg.inv(damped)).T, np.float32)


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
    values = np.empty(weight.shape, np.float32)
    left = weight.copy()
    for start in range(0, len(weight), _BLOCK):
        block = slice(start, start + _BLOCK)
        within, after = factor[block, block], slice(start + _BLOCK, None)
        errors = _round_rows(left[block], scale[block], limits, within, values[block])
        left[after] -= factor[block, after].T @ errors
    return values


def _round_rows(
    left: Matrix, scale: Matrix, limits: tuple[int, int], factor: Matrix, values: Matrix
) -> Matrix:
    """Rounds rows into ``values`` one after the other; returns their errors, [rows,out]."""
    errors = np.empty_like(left)
    for i, row in enumerate(left):
        values[i] = np.clip(np.rint(row / scale[i]), *limits)
        errors[i] = (row - values[i] * scale[i]) / factor[i, i]
        left[i + 1 :] -= np.outer(factor[i, i + 1 :], errors[i])
    return errors
