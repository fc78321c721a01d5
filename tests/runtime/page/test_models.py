"""The model of the page in several precisions."""

import weakref

import pytest

from florence_onnx import Florence2
from florence_onnx.errors import ModelFileError, PrecisionError
from florence_onnx.page.models import Models
from tests.helpers.tiny import TINY


def load() -> Florence2:
    return Florence2.load(TINY, threads=1)


def test_one_model_is_open_at_a_time() -> None:
    opened: list[str] = []
    alive: list[bool] = []
    first = weakref.ref(model := load())

    def open_model(precision: str) -> Florence2:
        opened.append(precision)
        alive.append(first() is not None)
        return load()

    models = Models(model, "fp32", ["fp32", "q8"], open_model)
    assert models.precisions == ("fp32", "q8")
    assert models.at("fp32") is model
    del model
    assert models.at("q8") is models.at("q8")
    models.at("fp32")
    assert opened == ["q8", "fp32"]
    assert alive == [False, False]


def test_a_precision_that_cannot_be_opened() -> None:
    """The model is there again when another is asked for."""

    def open_model(precision: str) -> Florence2:
        if precision == "q8":
            raise ModelFileError("damaged")
        return load()

    models = Models(load(), "fp32", ["q8"], open_model)
    for _ in range(2):
        with pytest.raises(ModelFileError, match="damaged"):
            models.at("q8")
        assert models.at("fp32").precision == "fp32"


def test_precisions_that_are_not_offered() -> None:
    models = Models(load(), "fp32", ["q8"], lambda precision: load())
    with pytest.raises(PrecisionError, match="it must be one of fp32, q8"):
        models.at("../q4")
