"""How far graphs are from float32, and which matmuls keep more bits for it."""

from typing import Any

import numpy as np
import onnx
import pytest

from florence_onnx import Florence2
from florence_onnx.engine import contract
from florence_onnx.engine.inputs import encoder_inputs
from florence_onnx.generation.search import search
from florence_onnx.requests import EncodedImage
from florence_onnx_export.quantization.fidelity import (
    STEPS,
    Answers,
    answer,
    compare,
    drawn_requests,
    relative_error,
)
from florence_onnx_export.quantization.methods import CHANNELS, FP32, STORED, STORED16, levels
from florence_onnx_export.quantization.mixed import Measured, choose, choose_together
from tests.helpers.onnx_graphs import run
from tests.helpers.tiny import TINY


class Additive:
    """Stands in for `Measured`: squares of errors that add up exactly."""

    def __init__(self, errors: dict[tuple[str, str], float]) -> None:
        self._errors = errors
        self.asked: list[dict[str, str]] = []

    def error(self, methods: dict[str, str], runs: int | None = None) -> float:
        self.asked.append(methods)
        squares = [self._errors.get(choice, 0.0) ** 2 for choice in methods.items()]
        return float(np.sqrt(sum(squares)))


LEVELS = dict.fromkeys("abcd", ("dynamic8", "blocks8", FP32))
ERRORS: dict[tuple[str, str], float] = {
    **{(name, "dynamic8"): error for name, error in zip("abcd", (3, 1, 10, 1), strict=True)},
    **{(name, "blocks8"): error for name, error in zip("abcd", (1, 1, 6, 1), strict=True)},
}


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (12, {}),
        (7, {"c": "blocks8"}),
        (6, {"c": FP32}),
        (2, {"c": FP32, "a": "blocks8"}),
        (0, dict.fromkeys("abcd", FP32)),
    ],
)
def test_the_worst_keep_more_bits_first_and_no_more_than_needed(
    limit: float, expected: dict[str, str]
) -> None:
    graph: Any = Additive(ERRORS)
    said: list[str] = []
    choice = choose(graph, LEVELS, limit, said.append)
    assert choice.methods == {**dict.fromkeys("abcd", "dynamic8"), **expected}
    assert choice.error <= limit
    # Measuring each alone takes minutes for a large graph, so only where precision is mixed.
    assert len(said) == bool(expected)
    if not expected:
        assert len(graph.asked) == 1


def test_all_matmuls_together_get_more_bits_until_the_error_is_within_the_limit() -> None:
    levels = {
        **LEVELS,
        "value": (CHANNELS, STORED, STORED16, FP32),
        "small": (CHANNELS, FP32),
    }
    graph: Any = Additive({**ERRORS, ("value", CHANNELS): 20, ("value", STORED16): 0.1})
    later = dict.fromkeys("cd", "dynamic8")
    steps = [
        {**dict.fromkeys("abcd", "dynamic8"), "value": CHANNELS, "small": CHANNELS},
        {**dict.fromkeys("abcd", "dynamic8"), "value": STORED16, "small": FP32},
        {**dict.fromkeys("ab", "blocks8"), **later, "value": STORED16, "small": FP32},
        {**dict.fromkeys("abcd", "blocks8"), "value": STORED16, "small": FP32},
        {**dict.fromkeys(levels, FP32), "d": "blocks8", "value": STORED16},
        dict.fromkeys(levels, FP32),
    ]
    for limit, count in ((23, 1), (10.6, 2), (10.2, 3), (7, 4), (2, 5), (0, 6)):
        graph.asked.clear()
        said: list[str] = []
        choice = choose_together(graph, levels, limit, said.append)
        assert choice.methods == steps[count - 1]
        assert choice.error <= limit
        assert graph.asked == steps[:count]
        assert len(said) == count - 1


class Linear(Additive):
    """Errors themselves add up, so that the squares tell too little of what more bits gain."""

    def error(self, methods: dict[str, str], runs: int | None = None) -> float:
        return sum(self._errors.get(choice, 0.0) for choice in methods.items())


def test_what_needs_no_more_bits_is_put_back() -> None:
    levels = dict.fromkeys("ab", ("dynamic8", FP32))
    graph: Any = Linear({("a", "dynamic8"): 4, ("b", "dynamic8"): 3})
    choice = choose(graph, levels, 4, lambda message: None)
    assert choice.methods == {"a": FP32, "b": "dynamic8"}
    assert choice.error == 3


@pytest.mark.parametrize("method", ["dynamic8", "blocks8"])
def test_the_error_of_a_graph_is_that_of_its_outputs(method: str) -> None:
    """Those that users get: blocks have a smaller error in sessions that do not pack weights."""
    rng = np.random.default_rng(7)
    feeds = [{"pixel_values": rng.standard_normal((1, 3, 64, 64), np.float32)} for _ in range(2)]
    path = TINY / contract.graph_file(contract.VISION_ENCODER, "fp32")
    measured = Measured(path, feeds, ["image_features"], lambda: feeds)
    assert measured.error({}) == 0
    methods = dict.fromkeys(measured.matmuls, method)
    got = [run(measured.quantized(methods), feed)[0] for feed in feeds]
    want = [run(onnx.load(path), feed)[0] for feed in feeds]
    assert measured.error(methods) == pytest.approx(relative_error(np.stack(got), np.stack(want)))
    assert measured.error(methods, runs=1) == pytest.approx(relative_error(got[0], want[0]))
    assert measured.error(dict.fromkeys(methods, FP32)) == 0


@pytest.mark.parametrize(("precision", "decoder"), [("q8", "blocks8"), ("q4", "blocks4")])
def test_blocks_are_for_the_decoder_four_bits_for_what_can_bear_them(
    precision: str, decoder: str
) -> None:
    names = ["layers.0.ffn.fc1.weight", "head.weight", "layers.0.cross.out_proj.weight"]
    for graph in (contract.VISION_ENCODER, contract.ENCODER, contract.DECODER):
        tried = levels(precision, graph, names, ["kept"])
        usual = decoder if graph == contract.DECODER else "dynamic8"
        first = {name: methods[0] for name, methods in tried.items()}
        sensitive = "blocks8" if graph == contract.DECODER else "dynamic8"
        assert first == {
            names[0]: usual,
            names[1]: sensitive,
            names[2]: sensitive,
            "kept": STORED,
        }
        assert all(methods[-1] == FP32 for methods in tried.values())


# Fidelity


def test_fidelity_counts_tokens_until_the_answer_ends() -> None:
    fed = np.array([[2, 0, 5, 2, 9], [2, 0, 6, 7, 8]])
    want = Answers(np.ones((1, 2, 2), np.float32), np.array([[3, 4]] * 2, np.float32), fed + 1, fed)
    best = fed + 1
    best[0, 3:] = 0  # after the end
    best[1, 4] = 0
    got = Answers(np.full((1, 2, 2), 1.5), np.array([[3.0, 4.0], [3.0, 5.0]]), best, fed)
    fidelity = compare(got, want, eos_token_id=2)
    assert fidelity.image_features == 0.5
    assert fidelity.first_logits == pytest.approx(1 / 50**0.5)
    assert fidelity.token_agreement == 7 / 8
    assert fidelity.requests == 2


def test_answers_are_those_of_a_greedy_search() -> None:
    model = Florence2.load(TINY, providers=["CPUExecutionProvider"])
    requests = drawn_requests(model.assets, range(2))
    answers = answer(model.graphs, model.assets, requests)
    steps = answers.fed.shape[1]
    policy = model.policy.replace(
        num_beams=1, no_repeat_ngram_size=0, forced_eos_token_id=None, max_new_tokens=STEPS
    )
    found = []
    for request in requests:
        scene = EncodedImage(model.graphs.image_features(request.pixel_values)[0], (1, 1))
        scenes = [scene] * len(request.prompts)
        mask, embeds = encoder_inputs(model.graphs, scenes, request.prompts, policy.pad_token_id)
        steps = model.graphs.decoder.start(mask, embeds)
        found += [best for (best,) in search(steps, len(scenes), policy)]
    for hypothesis, fed, best in zip(found, answers.fed, answers.best, strict=True):
        expected = (*fed, best[-1])
        length = len(hypothesis.token_ids)
        assert hypothesis.token_ids == expected[:length]
        assert length == STEPS + 1 or expected[length - 1] == policy.eos_token_id
    again = answer(model.graphs, model.assets, requests, feed=answers.fed)
    np.testing.assert_array_equal(again.best, answers.best)
