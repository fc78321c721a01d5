"""Which warnings are errors in the tests: pyproject.toml's filters, in force around every test."""

import warnings
from types import FunctionType

import pytest

DEPRECATIONS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)


def warn(module: str, category: type[Warning]) -> None:
    """Warns as code of a module does whose name is ``module``."""
    attributed = {"__name__": module, "warnings": warnings}
    FunctionType(_warn.__code__, attributed)(category)


def _warn(category: type[Warning]) -> None:
    warnings.warn("old", category, stacklevel=1)


@pytest.mark.parametrize("category", DEPRECATIONS)
@pytest.mark.parametrize(
    "module",
    [
        "florence_onnx.model",
        "florence_onnx_export.graphs.reference",
        "benchmarks.harness.common",
        "tests.helpers.parity",
        "numpy",
        "PIL.Image",
        "onnxruntime.capi",
        "torch_of_another",
    ],
)
def test_deprecations_are_errors(module: str, category: type[Warning]) -> None:
    with pytest.raises(category, match="old"):
        warn(module, category)


@pytest.mark.parametrize("category", DEPRECATIONS)
@pytest.mark.parametrize(
    "module", ["transformers", "transformers.utils.generic", "torch.nn.modules.module", "onnx_ir.x"]
)
def test_those_within_a_reference_library_are_told(module: str, category: type[Warning]) -> None:
    with warnings.catch_warnings(record=True) as told:
        warn(module, category)
    assert [warning.category for warning in told] == [category]


def test_other_warnings_of_a_reference_library_are_errors() -> None:
    with pytest.raises(UserWarning, match="old"):
        warn("transformers.utils.generic", UserWarning)
