"""A batch of prepared requests through the engine."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from florence_onnx.assets.reading import Assets
from florence_onnx.constraining import grammars
from florence_onnx.engine.decoder import Ids
from florence_onnx.engine.inputs import encoder_inputs
from florence_onnx.engine.sessions import Graphs
from florence_onnx.generation.policy import GenerationPolicy
from florence_onnx.generation.processors import Scores
from florence_onnx.generation.search import Hypothesis, search
from florence_onnx.parsing import read_answer
from florence_onnx.requests import EncodedImage, Picture, Prepared
from florence_onnx.results import Result
from florence_onnx.selecting import select

Watch = Callable[[str], None]
"""Function to call as every ``"step"`` of the search begins, and as every stage ends:
``"vision"``, ``"embed_encoder"``, ``"search"``, ``"parse"``."""


def answer_batch(
    assets: Assets,
    graphs: Graphs,
    batch: Sequence[Prepared],
    policy: GenerationPolicy,
    watch: Watch = lambda stage: None,
) -> list[Result]:
    """Encodes each picture once, then the prompts behind them, searches, and reads the answers.

    Args:
        assets: Of the model.
        graphs: Of the model.
        batch: At least one request.
        policy: The options of the search.
        watch: For those who measure.

    Raises:
        ImageError: An encoded picture is not of this model.
        TaskError: A rule of the policy has no meaning for a request's task.
    """
    constraints = grammars(assets.tokenizer, batch, policy)
    encoded: dict[int, EncodedImage] = {}
    for prepared in batch:
        key = id(prepared.picture)
        if key not in encoded:
            encoded[key] = encode(graphs, prepared.picture)
    pictures = [encoded[id(prepared.picture)] for prepared in batch]
    watch("vision")
    input_ids = [prepared.input_ids for prepared in batch]
    mask, embeds = encoder_inputs(graphs, pictures, input_ids, policy.pad_token_id)
    steps = graphs.decoder.start(mask, embeds)
    watch("embed_encoder")

    def step(token_ids: Ids, rows: Ids, requests: Ids) -> Scores:
        watch("step")
        return steps(token_ids, rows, requests)

    image = [] if assets.image_token_id is None else [assets.image_token_id]
    read = [
        [*image * len(picture.image_features), *ids]
        for picture, ids in zip(pictures, input_ids, strict=True)
    ]
    found = search(step, len(batch), policy, read, constraints)
    watch("search")
    results = [
        _result(assets, prepared, hypotheses, policy)
        for prepared, hypotheses in zip(batch, found, strict=True)
    ]
    watch("parse")
    return results


def encode(graphs: Graphs, picture: Picture | EncodedImage) -> EncodedImage:
    """Runs the vision encoder, unless it has been run."""
    if isinstance(picture, EncodedImage):
        return picture
    features = graphs.image_features(picture.pixel_values[None])
    return EncodedImage(features[0], picture.size)


def _result(
    assets: Assets,
    prepared: Prepared,
    hypotheses: Sequence[Hypothesis],
    policy: GenerationPolicy,
) -> Result:
    best, *others = [_read(assets, prepared, hypothesis, policy) for hypothesis in hypotheses]
    return replace(best, alternatives=tuple(others)) if others else best


def _read(
    assets: Assets, prepared: Prepared, hypothesis: Hypothesis, policy: GenerationPolicy
) -> Result:
    result = read_answer(
        assets.tokenizer.decode(hypothesis.token_ids),
        prepared.asked,
        prepared.answer_kind,
        prepared.picture.size,
        token_ids=hypothesis.token_ids,
        token_spans=assets.tokenizer.spans(hypothesis.token_ids),
        log_probabilities=hypothesis.log_probs,
        score=hypothesis.score,
        truncated=hypothesis.is_truncated,
    )
    kept = select(result.detections, prepared.answer_kind, policy)
    return result if len(kept) == len(result.detections) else replace(result, detections=kept)
