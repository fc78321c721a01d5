"""Outputs held against the graph contract."""

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from florence_onnx.engine.checks import check_output, check_value, running
from florence_onnx.engine.contract import FLOAT, INT64
from florence_onnx.errors import GraphRunError, ImageError

FILE = "onnx/vision_encoder_fp16.onnx"
FINE = np.ones((1, 5, 32), np.float32)


def with_value(value: float) -> Any:
    array = FINE.copy()
    array[0, 3, 7] = value
    return array


def test_what_fits_is_returned_as_it_is() -> None:
    assert check_output(FILE, "image_features", FINE, (1, None, 32)) is FINE
    check_value(FILE, "x", ort.OrtValue.ortvalue_from_numpy(FINE), FLOAT, (1, None, 32))


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (FINE[0], r"image_features as tensor\(float\) \[5, 32\], where .*\[1, any, 32\] is needed"),
        (FINE[None], r"tensor\(float\) \[1, 1, 5, 32\]"),
        (FINE[:, :, :31], r"tensor\(float\) \[1, 5, 31\]"),
        (FINE[:, :0], r"tensor\(float\) \[1, 0, 32\]"),
        (FINE.astype(np.float16), r"as float16 \[1, 5, 32\]"),
        (FINE.astype(np.float64), r"as float64"),
        (None, r"as object \[\]"),
        (with_value(np.nan), "NaN, infinite or impossible numbers as image_features; its weights"),
        (with_value(np.inf), "Use another precision, or export the checkpoint again$"),
        (with_value(-np.inf), "NaN, infinite"),
    ],
)
def test_what_does_not_fit_is_named_with_its_file(output: Any, words: str) -> None:
    with pytest.raises(GraphRunError, match=f"^{FILE} returned .*{words}") as raised:
        check_output(FILE, "image_features", output, (1, None, 32))
    assert isinstance(raised.value, RuntimeError)


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (np.zeros((3, 63), np.int64), INT64),
        (np.zeros((3, 64), np.int32), INT64),
        (np.zeros((3, 64, 1), np.int64), INT64),
        (np.zeros((3, 64), np.int64), FLOAT),
    ],
)
def test_values_are_checked_where_they_lie(array: Any, kind: str) -> None:
    value = ort.OrtValue.ortvalue_from_numpy(array)
    with pytest.raises(GraphRunError, match=f"^{FILE} returned topk_ids as tensor"):
        check_value(FILE, "topk_ids", value, kind, (3, 64))


def test_a_failure_becomes_one_line() -> None:
    with pytest.raises(GraphRunError, match=f"^{FILE} failed while it ran: first$"), running(FILE):
        raise ValueError("first\nsecond")
    with pytest.raises(ImageError, match="ours"), running(FILE):
        raise ImageError("ours")
    with pytest.raises(KeyboardInterrupt), running(FILE):
        raise KeyboardInterrupt
