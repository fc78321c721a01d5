"""The decoder's steps against one request at a time with its cache in numpy."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from florence_onnx import Florence2
from florence_onnx.engine.contract import DECODER
from florence_onnx.engine.inputs import encoder_inputs
from florence_onnx.engine.slot_decoder import SlotDecoder
from florence_onnx.errors import GraphRunError
from tests.helpers.tiny import TINY, picture, plain_logits

PROMPTS = ("What does the image describe?", "?", "Locate a green car in the image.")


@pytest.fixture(scope="module")
def model() -> Florence2:
    return Florence2.load(TINY, threads=1)


@pytest.fixture(scope="module")
def inputs(model: Florence2) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Three requests of different lengths: mask and embeddings."""
    scenes = [model.encode(picture(seed)) for seed in range(len(PROMPTS))]
    ids = [model.assets.tokenizer.encode(prompt) for prompt in PROMPTS]
    return encoder_inputs(model.graphs, scenes, ids, pad_token_id=1)


def logits_after(model: Florence2, inputs: Any, request: int, ids: list[int]) -> Any:
    """float32 [V] after ``ids``, for one request alone and without padding."""
    mask, embeds = inputs
    length = int(mask[request].sum())
    return plain_logits(model, mask[[request], :length], embeds[[request], :length], ids)[-1]


def log_softmax(logits: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    exact = logits.astype(np.float64)
    exact = exact - exact.max()
    return np.asarray(exact - np.log(np.exp(exact).sum()))


def test_prompts_are_padded_and_masked(inputs: Any) -> None:
    mask, embeds = inputs
    lengths = mask.sum(axis=1)
    assert len(set(lengths)) == 3
    assert mask.shape[1] == max(lengths)
    assert all(row[:length].all() for row, length in zip(mask, lengths, strict=True))
    assert embeds.shape == (*mask.shape, 32)
    assert embeds.dtype == np.float32


def test_steps_follow_their_rows_and_requests(model: Florence2, inputs: Any) -> None:
    """Rows are multiplied, reordered and dropped; each goes on from the row it names."""
    random = np.random.default_rng(0)
    steps = model.graphs.decoder.start(*inputs)
    # Per step: how many rows a request has, and the requests still there.
    plan = [(1, [0, 1, 2]), (3, [0, 1, 2]), (3, [0, 1, 2]), (3, [0, 2]), (3, [0, 2]), (3, [2])]
    histories: dict[int, list[list[int]]] = {request: [[]] for request in range(3)}
    first_row = {request: request for request in range(3)}
    for beams, requests in plan:
        rows, tokens, continued = [], [], {}
        for request in requests:
            parents = random.integers(0, len(histories[request]), beams)
            rows += [first_row[request] + int(parent) for parent in parents]
            new = [int(token) for token in random.integers(4, 1424, beams)]
            tokens += new
            continued[request] = [
                [*histories[request][parent], token]
                for parent, token in zip(parents, new, strict=True)
            ]
        scores = steps(np.array(tokens), np.array(rows), np.array(requests))
        histories = continued
        first_row = {request: i * beams for i, request in enumerate(requests)}
        log_probs, ids = scores.top(1424)
        assert log_probs.shape == ids.shape == (beams * len(requests), 1424)
        for request in requests:
            for beam, history in enumerate(histories[request]):
                row = first_row[request] + beam
                expected = log_softmax(logits_after(model, inputs, request, history))
                # The same float32 sums in another order; logits are within about 10.
                np.testing.assert_allclose(log_probs[row], expected[ids[row]], atol=2e-5)
    assert {len(history) for history in histories[2]} == {len(plan)}


def test_the_inputs_of_a_step_make_its_logits(model: Florence2, inputs: Any) -> None:
    """Given to the graph as plain arrays, also after later steps and without those that left."""
    steps = SlotDecoder(model.graphs).start(*inputs)
    random = np.random.default_rng(1)
    seen = []
    for rows, requests in (
        ([0, 1, 2], [0, 1, 2]),
        ([0, 0, 1, 1, 2, 2], [0, 1, 2]),
        ([1, 4], [0, 2]),
    ):
        tokens = random.integers(4, 1424, len(rows))
        scores = steps(tokens, np.array(rows), np.array(requests))
        seen.append((steps.inputs(), scores.logits().copy()))
    for given, logits in seen:
        (found,) = model.graphs.sessions[DECODER].run(["logits"], given)
        np.testing.assert_array_equal(found[:, 0], logits)


@pytest.mark.parametrize("beams", [63, 64, 65, 110, 129, 200])
def test_more_beams_than_a_block_of_slots(model: Florence2, inputs: Any, beams: int) -> None:
    """A step may need several blocks; slots that a row sees are never handed out again."""
    random = np.random.default_rng(beams)
    steps = model.graphs.decoder.start(*inputs)
    histories: list[list[list[int]]] = [[[]] for _ in PROMPTS]
    rows, tokens = np.arange(3), np.full(3, 2)
    for _ in range(5):
        scores = steps(tokens, rows, np.arange(3))
        width = len(tokens) // 3
        parents = [int(row) % len(histories[0]) for row in rows]
        histories = [
            [
                [*histories[request][parents[row]], int(tokens[row])]
                for row in range(request * width, (request + 1) * width)
            ]
            for request in range(3)
        ]
        logits = scores.logits()
        for request in range(3):
            for beam in random.integers(0, width, 4).tolist():
                expected = logits_after(model, inputs, request, histories[request][beam])
                # The same float32 sums in another order; logits are within about 10.
                np.testing.assert_allclose(logits[request * width + beam], expected, atol=2e-5)
        # Every row goes on, so that every slot stays in use.
        picked = [random.permutation(np.arange(beams) % width) for _ in range(3)]
        rows = np.concatenate([parent + i * width for i, parent in enumerate(picked)])
        tokens = random.integers(4, 1424, 3 * beams)


@pytest.mark.parametrize("k", [1, 2, 63, 64, 65, 66, 200, 1423, 1424, 5000])
def test_top_is_the_order_of_the_log_softmax(model: Florence2, inputs: Any, k: int) -> None:
    """The graph orders the first 64; beyond, the logits are fetched and ordered here."""
    assert model.graphs.sessions[DECODER].get_outputs()[1].shape[1] == 64
    steps = model.graphs.decoder.start(*inputs)
    scores = steps(np.array([2, 2, 2]), np.arange(3), np.arange(3))
    log_probs, ids = scores.top(k)
    assert log_probs.shape == ids.shape == (3, min(k, 1424))
    assert log_probs.dtype == np.float32
    assert ids.dtype == np.int64
    for request in range(3):
        logits = logits_after(model, inputs, request, [2])
        expected = log_softmax(logits)
        np.testing.assert_allclose(log_probs[request], expected[ids[request]], atol=2e-5)
        assert len(set(ids[request])) == min(k, 1424)
        assert (np.diff(log_probs[request]) <= 0).all()
        left_out = np.setdiff1d(np.arange(1424), ids[request])
        assert expected[left_out].max(initial=-np.inf) <= log_probs[request, -1] + 2e-5


def test_both_ways_to_the_top_agree(model: Florence2, inputs: Any) -> None:
    steps = model.graphs.decoder.start(*inputs)
    scores = steps(np.array([2, 2, 2]), np.arange(3), np.arange(3))
    few, many = scores.top(64), scores.top(65)
    np.testing.assert_array_equal(few[1], many[1][:, :64])
    # Two float32 roundings of a log-probability of at most 10.
    np.testing.assert_allclose(few[0], many[0][:, :64], atol=4e-6)


def test_equal_logits_are_ordered_by_id() -> None:
    from florence_onnx.engine.scores import GraphScores

    class Value:
        """What is used of an OrtValue."""

        def __init__(self, array: npt.NDArray[Any]) -> None:
            self.numpy = lambda: array
            self.shape = lambda: list(array.shape)

    best = (Value(np.zeros((2, 1), np.float32)), Value(np.zeros((2, 1), np.int64)))
    logits = np.zeros((2, 1, 9), np.float32)
    logits[1, 0, 7] = 1
    log_probs, ids = GraphScores(best, Value(logits), GraphRunError).top(9)
    assert ids.tolist() == [list(range(9)), [7, 0, 1, 2, 3, 4, 5, 6, 8]]
    np.testing.assert_allclose(log_probs[0], -np.log(9), rtol=1e-6)
