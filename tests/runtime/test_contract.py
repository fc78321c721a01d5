"""The tensors of the graphs as data, and the page made of it."""

from florence_onnx.engine import contract
from florence_onnx.engine.contract import CROSS_CACHE, OWN_CACHE, Signature, Tensor, names_of
from tests.helpers.graph_docs import PAGE, page


def test_the_page_says_what_the_contract_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m tests.helpers.graph_docs"


def test_every_axis_is_explained_and_used() -> None:
    used = {
        axis
        for signature in contract.SIGNATURES.values()
        for tensors in signature
        for tensor in tensors.values()
        for axis in tensor.axes
        if isinstance(axis, str)
    }
    assert used == contract.DYNAMIC.keys() | contract.FIXED.keys()
    assert not contract.DYNAMIC.keys() & contract.FIXED.keys()


def test_tensors_of_every_layer_stand_together() -> None:
    """Keys and values alternate; the decoder's own come before those of the encoder."""
    other = Tensor(contract.FLOAT, (1,))
    signature = Signature(
        {"a": other, "p.{i}.x.key": other, "p.{i}.x.value": other, "p.{i}.y.key": other},
        {"b": other, "c": other},
    )
    inputs, outputs = signature.of(2)
    assert list(inputs) == [
        *("a", "p.0.x.key", "p.0.x.value", "p.1.x.key", "p.1.x.value", "p.0.y.key", "p.1.y.key")
    ]
    assert list(outputs) == ["b", "c"]
    assert list(signature.of(0).inputs) == ["a"]


def test_the_encoder_gives_the_cross_attention_that_the_decoder_takes() -> None:
    given = names_of(contract.SIGNATURES[contract.ENCODER].of(3).outputs, CROSS_CACHE)
    inputs, outputs = contract.SIGNATURES[contract.DECODER].of(3)
    taken = names_of(inputs, CROSS_CACHE)
    assert [name.replace("present", "past_key_values") for name in given] == taken
    assert len(taken) == 6
    past, present = names_of(inputs, OWN_CACHE), names_of(outputs, OWN_CACHE)
    assert [name.replace("present", "past_key_values") for name in present] == past
