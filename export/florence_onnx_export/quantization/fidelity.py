"""Fidelity of a precision to float32, on drawn pictures and every task."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from florence_onnx.assets.reading import Assets
from florence_onnx.engine import contract
from florence_onnx.engine.inputs import encoder_inputs
from florence_onnx.engine.sessions import Graphs
from florence_onnx.engine.slot_decoder import SlotDecoder, SlotSteps
from florence_onnx.requests import EncodedImage
from florence_onnx.tasks import Task
from florence_onnx_export.scenes.answers import ask
from florence_onnx_export.scenes.drawing import draw
from florence_onnx_export.scenes.scene import sample_scene

Array = npt.NDArray[Any]
Feeds = dict[str, Array]

PICTURES = 7
"""Number of drawn pictures. All tasks are asked about each, which is about a hundred requests."""

STEPS = 8
"""Number of tokens of each answer that are compared."""


@dataclass(frozen=True, eq=False)
class Request:
    """Picture and the prompts about it."""

    pixel_values: npt.NDArray[np.float32]
    """Pixels, [1,3,H,W]."""
    prompts: tuple[tuple[int, ...], ...]
    """Token ids, one prompt per task."""


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers of the graphs of one precision to the requests."""

    features: npt.NDArray[np.float32]
    """Image features of all pictures, [pictures,N,D]."""
    first_logits: npt.NDArray[np.float32]
    """Logits of the first step, [prompts,V]."""
    best: npt.NDArray[np.int64]
    """Most probable next token after each token that was fed, [prompts,STEPS]."""
    fed: npt.NDArray[np.int64]
    """Tokens that were fed, [prompts,STEPS]."""


@dataclass(frozen=True)
class Fidelity:
    """Differences of a precision from float32."""

    image_features: float
    """Relative error of the vision encoder's output."""
    first_logits: float
    """Relative error of the first step's logits, with all graphs at this precision."""
    token_agreement: float
    """Share of equal next tokens when both precisions are fed the tokens of float32."""
    requests: int
    """Number of answers that were compared."""

    def to_dict(self) -> dict[str, object]:
        """Returns the fields, ready for JSON. NaN and infinity, from an overflow, become None."""
        return {key: value if math.isfinite(value) else None for key, value in asdict(self).items()}


def drawn_requests(assets: Assets, seeds: Iterable[int]) -> list[Request]:
    """Draws a picture per seed and asks every task about each; always the same pictures."""
    return [_request(assets, seed) for seed in seeds]


def _request(assets: Assets, seed: int) -> Request:
    scene = sample_scene(seed)
    pixels = assets.preprocessor(np.asarray(draw(scene)))
    rng = np.random.default_rng(seed)
    prompts = [assets.tokenizer.encode(ask(scene, task, rng).prompt) for task in Task]
    return Request(pixels[None], tuple(map(tuple, prompts)))


def answer(
    model: Graphs, assets: Assets, requests: Sequence[Request], feed: Array | None = None
) -> Answers:
    """Answers the requests by greedy search, `STEPS` tokens each.

    Args:
        model: The graphs of one precision.
        assets: The model's other files.
        requests: Pictures and prompts.
        feed: Tokens to feed, `Answers.fed` of another precision; by default the best tokens.
    """
    parts: list[tuple[Array, ...]] = []
    for index, request in enumerate(requests):
        features = model.image_features(request.pixel_values)
        rows = len(request.prompts)
        given = None if feed is None else feed[index * rows : (index + 1) * rows]
        parts.append((features, *_decode(model, assets, features[0], request.prompts, given)))
    return Answers(*map(np.concatenate, zip(*parts, strict=True)))


def _decode(
    model: Graphs,
    assets: Assets,
    features: Array,
    prompts: Sequence[Sequence[int]],
    feed: Array | None,
) -> tuple[Array, Array, Array]:
    """Returns the first logits, the best token of each step, and the tokens that were fed."""
    encoder = encoder_feeds(model, assets, features, prompts)
    start = start_steps(model, encoder)
    tokens, _, logits = zip(*decoder_steps(start, len(prompts), assets, feed), strict=True)
    best = [step.argmax(axis=-1) for step in logits]
    return logits[0], np.stack(best, axis=1), np.stack(tokens, axis=1)


def start_steps(model: Graphs, encoder: Feeds) -> Any:
    """Encodes requests and starts the steps of a search; see `Decoder.start`.

    In float32, rows are encoded one by one, because a single row fits a cache and has the same
    result. Graphs in 8 bits have one scale for all rows of a call, so there the rows of all prompts
    about a picture are encoded in one call.
    """
    decoder = model.decoder
    if model.precision != "fp32" or not isinstance(decoder, SlotDecoder):
        return decoder.start(*encoder.values())
    mask, embeds = encoder.values()
    session = decoder.sessions[contract.ENCODER]
    shape = decoder.cache_shape(*mask.shape)
    encoded = {name: np.zeros(shape, np.float32) for name in decoder.encoded}
    for row, length in enumerate(mask.sum(axis=1)):
        alone = {
            "attention_mask": mask[row : row + 1, :length],
            "inputs_embeds": embeds[row : row + 1, :length],
        }
        for name, value in zip(encoded, session.run(decoder.encoded, alone), strict=True):
            encoded[name][row, :, :length] = value[0]
    values = []
    for name in decoder.encoded:
        # A copy, because an OrtValue made of an array would share the memory of that array.
        values.append(ort.OrtValue.ortvalue_from_shape_and_type(shape, np.float32))
        values[-1].update_inplace(encoded.pop(name))
    return SlotSteps(decoder, mask, values)


def decoder_steps(
    start: Any, count: int, assets: Assets, feed: Array | None = None
) -> Iterator[tuple[Array, Any, Array]]:
    """Runs the first `STEPS` steps of a greedy search.

    Args:
        start: Result of `start_steps` for R prompts.
        count: Number of prompts, R.
        assets: The model's other files.
        feed: As in `answer`, [R,STEPS].

    Yields:
        The tokens that were fed, [R]; ``start``; the logits of the step, [R,V].
    """
    rows = np.arange(count)
    forced = assets.policy.forced_bos_token_id
    tokens = np.full(len(rows), assets.policy.decoder_start_token_id)
    for step in range(STEPS):
        if feed is not None:
            tokens = feed[:, step]
        elif step == 1 and forced is not None:
            tokens = np.full(len(rows), forced)
        logits = start(tokens, rows, rows).unchecked_logits().copy()
        yield tokens, start, logits
        tokens = logits.argmax(axis=-1)


def encoder_feeds(
    model: Graphs, assets: Assets, features: Array, prompts: Sequence[Sequence[int]]
) -> Feeds:
    """Inputs of the encoder for prompts about one picture with features [N,D]."""
    scenes = [EncodedImage(features, (1, 1))] * len(prompts)
    mask, embeds = encoder_inputs(model, scenes, prompts, assets.policy.pad_token_id)
    return {"attention_mask": mask, "inputs_embeds": embeds}


def compare(got: Answers, want: Answers, eos_token_id: int) -> Fidelity:
    """Compares the answers of a precision with the answers of float32."""
    ends = want.fed == eos_token_id
    ends[:, 0] = False  # the token that starts an answer is the end token too
    same = (got.best == want.best)[~np.logical_or.accumulate(ends, axis=1)]
    return Fidelity(
        image_features=relative_error(got.features, want.features),
        first_logits=relative_error(got.first_logits, want.first_logits),
        token_agreement=float(same.mean()),
        requests=len(want.fed),
    )


def relative_error(got: Array, want: Array) -> float:
    """L2 norm of the difference, divided by the L2 norm of ``want``."""
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))
