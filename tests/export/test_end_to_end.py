"""Exported folders against transformers' generate: the same tokens for every task."""

from dataclasses import replace
from typing import Any

import numpy as np
import PIL
import pytest
import torch
import transformers
from PIL import Image

from florence_onnx import EncodedImage, Florence2, Request, Task
from florence_onnx.images.pixels import to_rgb
from florence_onnx.prompts import build_prompt
from florence_onnx_export.graphs.stages import image_features
from tests.helpers.exports import Exported
from tests.helpers.tiny import input_of, picture

OPTIONS: dict[str, dict[str, Any]] = {
    "as the checkpoint says": {},
    "greedy": {"num_beams": 1},
    "greedy, nothing forced": {
        "num_beams": 1,
        "no_repeat_ngram_size": 0,
        "forced_bos_token_id": None,
        "forced_eos_token_id": None,
    },
    "five beams, long answers": {
        "num_beams": 5,
        "length_penalty": 2.0,
        "early_stopping": "never",
        "no_repeat_ngram_size": 4,
    },
    "penalties and banned words": {
        "repetition_penalty": 1.4,
        "encoder_no_repeat_ngram_size": 2,
        "suppress_tokens": list(range(300, 330)),
        "bad_words_ids": [[token] for token in range(400, 440)] + [[700 + i, 2] for i in range(99)],
        "exponential_decay_length_penalty": (20, 1.05),
    },
    "several sequences": {"num_return_sequences": 3, "early_stopping": False},
}
"""Beside max_new_tokens."""

LONGEST = 70

if int(transformers.__version__.split(".")[0]) < 5:
    # Where another rule forbids the end, 4 adds infinity to minus infinity: NaN. 5 does not.
    del OPTIONS["penalties and banned words"]["exponential_decay_length_penalty"]

# Transformers 4 knows its processor on Pillow by the name that later ones gave to another.
PROCESSOR = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)


@pytest.fixture(scope="module", params=["native", "original"])
def exported(request: pytest.FixtureRequest) -> Exported:
    found: Exported = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def model(exported: Exported) -> Florence2:
    return Florence2.load(exported.folder, threads=1)


def requests() -> list[Request]:
    pictures = [picture(seed, 40 + 9 * seed, 60 - 5 * seed) for seed in range(4)]
    return [Request(pictures[i % 4], task, **input_of(task)) for i, task in enumerate(Task)]


def generated(
    exported: Exported, model: Florence2, request: Request, options: dict[str, Any]
) -> list[tuple[tuple[int, ...], float | None]]:
    """What transformers generates for the same pixels and prompt: ids and scores, best first."""
    assert request.task is not None and not isinstance(request.image, EncodedImage)
    rgb = to_rgb(request.image)
    size = (rgb.shape[1], rgb.shape[0])
    prompt = build_prompt(request.task, request.text, request.region, size)
    assets = model.assets.at_size(request.image_size)
    height, width = assets.preprocessor.size
    processor = PROCESSOR(
        size={"height": height, "width": width},
        do_center_crop=False,
        image_mean=assets.preprocessor.mean,
        image_std=assets.preprocessor.std,
    )
    if int(PIL.__version__.split(".")[0]) < 13:
        # Older ones resize in another order of passes; test_resize.py compares in that of 13.
        pixels = assets.preprocessor(rgb)
    else:
        pixels = processor(Image.fromarray(rgb), return_tensors="np")["pixel_values"][0]
    image_ids = [exported.geometry.image_token_id] * assets.image_tokens
    ids = torch.tensor([[*image_ids, *model.assets.tokenizer.encode(prompt)]])
    policy = {
        "num_beams": 3,
        "early_stopping": True,
        "no_repeat_ngram_size": 3,
        "forced_bos_token_id": 0,
        "forced_eos_token_id": 2,
        **options,
    }
    with torch.inference_mode():
        output = exported.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=torch.from_numpy(pixels)[None],
            do_sample=False,
            decoder_start_token_id=2,
            max_new_tokens=LONGEST,
            output_scores=True,
            return_dict_in_generate=True,
            **policy,
        )
    scores = output.get("sequences_scores")
    return [
        (trimmed(row.tolist()), None if scores is None else float(scores[i]))
        for i, row in enumerate(output.sequences)
    ]


def trimmed(ids: list[int]) -> tuple[int, ...]:
    """Without the padding behind the end."""
    end = ids.index(2, 1) + 1 if 2 in ids[1:] else len(ids)
    assert set(ids[end:]) <= {1}
    return tuple(ids[:end])


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_task_gives_the_tokens_of_transformers(
    exported: Exported, model: Florence2, options: dict[str, Any]
) -> None:
    """In one batch here, one by one there."""
    found = model.run(requests(), max_new_tokens=LONGEST, **options)
    for request, result in zip(requests(), found, strict=True):
        expected = generated(exported, model, request, options)
        ours = [result, *result.alternatives]
        assert [answer.token_ids for answer in ours] == [ids for ids, _ in expected], request.task
        for answer, (_, score) in zip(ours, expected, strict=True):
            if score is not None:
                # Sums of 70 float32 log-probabilities.
                assert answer.score == pytest.approx(score, abs=1e-4)


SIZES: list[Any] = [64, 32, (96, 64), (64, 128), (33, 70), (128, 31), (16, 16), None]


def test_pictures_of_other_sizes_give_the_tokens_of_transformers(
    exported: Exported, model: Florence2
) -> None:
    """In batches of mixed sizes here, one by one there, with the processor's size set so."""
    asked = [
        replace(request, image_size=SIZES[i % len(SIZES)]) for i, request in enumerate(requests())
    ]
    asked += [replace(asked[0], image_size=size) for size in SIZES]
    cases: list[dict[str, Any]] = [{"num_beams": 1}, {}]
    for options in cases:
        found = model.run(asked, max_new_tokens=LONGEST, **options)
        for request, result in zip(asked, found, strict=True):
            ((expected, _), *_) = generated(exported, model, request, options)
            assert result.token_ids == expected, (request.task, request.image_size)
    assert len({result.token_ids for result in found[-len(SIZES) :]}) > 3


def test_the_answers_are_worth_comparing(model: Florence2) -> None:
    """They differ in length and from task to task, and beams find other ones than greedy search."""
    beams = [result.token_ids for result in model.run(requests(), max_new_tokens=LONGEST)]
    greedy = [
        result.token_ids for result in model.run(requests(), max_new_tokens=LONGEST, num_beams=1)
    ]
    assert len(set(map(len, beams))) > 1
    assert len(set(map(len, beams + greedy))) > 3
    assert len(set(beams + greedy)) > 12
    assert sum(a != b for a, b in zip(beams, greedy, strict=True)) > 5


def test_the_policy_is_that_of_the_checkpoint(model: Florence2) -> None:
    policy = model.policy
    assert (policy.num_beams, policy.early_stopping, policy.no_repeat_ngram_size) == (3, True, 3)
    assert (policy.forced_bos_token_id, policy.forced_eos_token_id) == (0, 2)
    assert policy.decoder_start_token_id == 2


def test_features_equal_those_of_transformers(exported: Exported, model: Florence2) -> None:
    scene = model.encode(picture(7, 200, 33))
    pixels = model.assets.preprocessor(picture(7, 200, 33))
    with torch.inference_mode():
        expected = image_features(exported.model, torch.from_numpy(pixels)[None])
    difference = np.abs(scene.image_features - expected[0].numpy())
    assert difference.max() < 1e-4 * float(expected.abs().max())
