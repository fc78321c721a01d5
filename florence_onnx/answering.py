"""Answering of a batch of prepared requests by the engine."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import repeat
from typing import cast

from florence_onnx.assets.reading import Assets
from florence_onnx.constraining import check_rules, grammars
from florence_onnx.encoding import encode, encode_pictures
from florence_onnx.engine.decoder import Ids
from florence_onnx.engine.inputs import encoder_inputs
from florence_onnx.engine.sessions import Graphs
from florence_onnx.errors import GenerationError
from florence_onnx.generation.grammar import Grammar
from florence_onnx.generation.policy import GenerationPolicy
from florence_onnx.generation.processors import Scores
from florence_onnx.generation.search import Hypothesis, search
from florence_onnx.merging import about_tiles, merge
from florence_onnx.parsing import read_answer
from florence_onnx.requests import EncodedImage, EncodedTiles, Picture, Prepared, TiledPicture
from florence_onnx.results import Result
from florence_onnx.selecting import select
from florence_onnx.tiling import takes_tiles

Watch = Callable[[str], None]
"""Function to call as every ``"step"`` of the search begins, and as every stage ends:
``"vision"``, ``"embed_encoder"``, ``"search"``, ``"parse"``."""

_TILES_AT_ONCE = 8
"""Number of tiles of a picture that are answered together."""


def answer_batch(
    assets: Assets,
    graphs: Graphs,
    batch: Sequence[Prepared],
    policy: GenerationPolicy,
    watch: Watch = lambda stage: None,
    is_wanted: Callable[[int], bool] = lambda request: True,
) -> list[Result]:
    """Answers requests as one batch, then requests about tiles, the tiles of one picture at a time.

    Args:
        assets: Assets of the model.
        graphs: Graphs of the model.
        batch: At least one request.
        policy: The options of the search.
        watch: Called at steps and stages, for measurements.
        is_wanted: Called with the index of a request; false where nobody waits for the answer any
            more. Then the request leaves the search, and the result has no meaning.

    Raises:
        ImageError: An encoded picture is not of this model.
        TaskError: A rule of the policy has no meaning for a request's task.
        GenerationError: More than one answer is asked for about tiles.
    """
    tiled = [_is_tiled(one) for one in batch]
    places = [place for place, is_tiled in enumerate(tiled) if not is_tiled]
    whole = [batch[place] for place in places]

    def is_whole_wanted(request: int) -> bool:
        return is_wanted(places[request])

    found = _answer(assets, graphs, whole, policy, watch, is_whole_wanted) if whole else ()
    answers = iter(found)
    return [
        _answer_tiles(assets, graphs, one, policy, watch, partial(is_wanted, place))
        if is_tiled
        else next(answers)
        for place, (one, is_tiled) in enumerate(zip(batch, tiled, strict=True))
    ]


def _is_tiled(prepared: Prepared) -> bool:
    has_tiles = isinstance(prepared.picture, TiledPicture | EncodedTiles)
    return has_tiles and takes_tiles(prepared.asked, prepared.answer_kind)


def _answer_tiles(
    assets: Assets,
    graphs: Graphs,
    prepared: Prepared,
    policy: GenerationPolicy,
    watch: Watch,
    is_wanted: Callable[[], bool],
) -> Result:
    """Answers a request about the tiles of a picture, and merges the answers."""
    if policy.num_return_sequences > 1:
        raise GenerationError(
            f"num_return_sequences is {policy.num_return_sequences}; answers about tiles are put "
            "together from the best one of each, so it must be 1"
        )
    check_rules(prepared.asked, prepared.answer_kind, policy)  # before another task is asked
    tiles = cast(EncodedTiles, encode(graphs, prepared.picture))
    asked = about_tiles(assets, prepared, tiles)
    answers: list[Result] = []
    for start in range(0, len(asked), _TILES_AT_ONCE):
        some = asked[start : start + _TILES_AT_ONCE]
        answers += _answer(assets, graphs, some, policy, watch, lambda tile: is_wanted())
    return merge(prepared, tiles, answers)


def _answer(
    assets: Assets,
    graphs: Graphs,
    batch: Sequence[Prepared],
    policy: GenerationPolicy,
    watch: Watch,
    is_wanted: Callable[[int], bool] = lambda request: True,
) -> list[Result]:
    """Encodes each picture once, then the prompts; searches and parses the answers."""
    constraints = grammars(assets.tokenizer, batch, policy)
    pictures = _encoded(graphs, batch)
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
    found = search(step, len(batch), policy, read, constraints, is_wanted)
    watch("search")
    results = [
        _result(assets, prepared, hypotheses, policy, grammar)
        for prepared, hypotheses, grammar in zip(
            batch, found, constraints or repeat(None, len(batch)), strict=True
        )
    ]
    watch("parse")
    return results


def _encoded(graphs: Graphs, batch: Sequence[Prepared]) -> list[EncodedImage]:
    """Encodes the pictures of requests, each picture once."""
    seen = {id(one.picture): one.picture for one in batch}
    encoded = {key: picture for key, picture in seen.items() if isinstance(picture, EncodedImage)}
    new = {key: picture for key, picture in seen.items() if isinstance(picture, Picture)}
    encoded |= zip(new, encode_pictures(graphs, [*new.values()]), strict=True)
    return [encoded[id(one.picture)] for one in batch]


def _result(
    assets: Assets,
    prepared: Prepared,
    hypotheses: Sequence[Hypothesis],
    policy: GenerationPolicy,
    grammar: Grammar | None,
) -> Result:
    found = [_read(assets, prepared, hypothesis, policy, grammar) for hypothesis in hypotheses]
    best, *others = found
    return replace(best, alternatives=tuple(others)) if others else best


def _read(
    assets: Assets,
    prepared: Prepared,
    hypothesis: Hypothesis,
    policy: GenerationPolicy,
    grammar: Grammar | None,
) -> Result:
    most = policy.max_new_tokens - bool(policy.last_tokens)
    is_cut = grammar is not None and grammar.is_cut_short(hypothesis.token_ids, most)
    result = read_answer(
        assets.tokenizer.decode(hypothesis.token_ids),
        prepared.asked,
        prepared.answer_kind,
        prepared.picture.size,
        token_ids=hypothesis.token_ids,
        token_spans=assets.tokenizer.spans(hypothesis.token_ids),
        log_probabilities=hypothesis.log_probs,
        score=hypothesis.score,
        truncated=hypothesis.is_truncated or is_cut,
    )
    kept = select(result.detections, prepared.answer_kind, policy)
    return replace(result, detections=kept, picture=prepared.picture.reference)
