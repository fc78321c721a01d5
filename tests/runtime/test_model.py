"""Whole requests on the tiny model: what is answered, and what is run."""

import io
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import fields as fields_of
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
import tokenizers
from PIL import Image

from florence_onnx import (
    AnswerKind,
    EncodedImage,
    Florence2,
    GenerationOptions,
    GenerationPolicy,
    Request,
    Task,
    parse_answer,
)
from florence_onnx.engine.contract import DECODER, ENCODER, VISION_ENCODER
from florence_onnx.engine.inputs import encoder_inputs
from florence_onnx.engine.slot_decoder import SlotSteps
from florence_onnx.errors import ImageError, TaskError
from florence_onnx.generation.policy import OF_THE_MODEL
from florence_onnx.generation.search import search
from florence_onnx.locations import to_bins, to_text
from tests.helpers.tiny import (
    REGION,
    TEXT,
    TINY,
    counted,
    input_of,
    mixed_requests,
    picture,
    plain_logits,
    varied_end,
)

SHORT: dict[str, Any] = {"max_new_tokens": 12}


@pytest.fixture(scope="module")
def model() -> Florence2:
    return Florence2.load(TINY, threads=1)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, list[int]]]]:
    """Rows and requests of every call of the decoder."""
    calls: list[tuple[int, list[int]]] = []
    run = SlotSteps.__call__

    def noted(self: SlotSteps, token_ids: Any, rows: Any, requests: Any) -> Any:
        calls.append((len(token_ids), requests.tolist()))
        return run(self, token_ids, rows, requests)

    monkeypatch.setattr(SlotSteps, "__call__", noted)
    yield calls


# What comes back


@pytest.mark.parametrize("task", Task)
def test_every_task_is_answered_as_its_text_is_parsed(model: Florence2, task: Task) -> None:
    result = model(picture(1, 40, 60), task, **input_of(task), **SHORT)
    assert result == parse_answer(
        result.generated,
        task,
        (60, 40),
        token_ids=result.token_ids,
        token_spans=model.assets.tokenizer.spans(result.token_ids),
        log_probabilities=[token.log_probability for token in result.tokens],
        score=result.score,
        truncated=result.truncated,
    )
    assert result.to_dict().keys() == {task.value}


@pytest.mark.parametrize("spelling", ["od", "OD", "<OD>", Task.OD])
def test_a_task_by_any_name(model: Florence2, spelling: Task | str) -> None:
    assert model(picture(1), spelling, **SHORT) == model(picture(1), Task.OD, **SHORT)


def test_a_prompt_of_a_fine_tune_passes_through(model: Florence2) -> None:
    prompt = "<DocVQA>What is the date?"
    result = model(picture(1), prompt=prompt, **SHORT)
    assert result.answer_kind is AnswerKind.TEXT
    assert result.task == prompt
    assert result.to_dict() == {prompt: result.text}
    assert result == model(picture(1), prompt, **SHORT), "what no name resembles may be the task"
    assert result.token_ids != model(picture(1), prompt="<DocVQA>Who signed?", **SHORT).token_ids


@pytest.mark.parametrize("prompt", ["detect", "od", "captoin", "caption", " OD ", "{input}"])
def test_a_prompt_is_never_taken_for_a_task(model: Florence2, prompt: str) -> None:
    prepared = model.prepare(Request(picture(1), prompt=prompt))
    assert list(prepared.input_ids) == model.assets.tokenizer.encode(prompt)
    result = model.answer(prepared, **SHORT)
    assert result == model(picture(1), prompt=prompt, **SHORT)
    assert result.task == prompt


@pytest.mark.parametrize("kind", AnswerKind)
def test_the_answer_to_a_prompt_is_read_as_it_is_told(model: Florence2, kind: AnswerKind) -> None:
    result = model(picture(1, 40, 60), prompt="detect", answer=kind.name.lower(), **SHORT)
    plain = model(picture(1, 40, 60), prompt="detect", **SHORT)
    assert (result.token_ids, result.generated) == (plain.token_ids, plain.generated)
    assert result == parse_answer(
        plain.generated,
        None,
        (60, 40),
        prompt="detect",
        answer=kind,
        token_ids=plain.token_ids,
        token_spans=model.assets.tokenizer.spans(plain.token_ids),
        log_probabilities=[token.log_probability for token in plain.tokens],
        score=plain.score,
        truncated=plain.truncated,
    )


def test_token_ids_decode_to_the_text(model: Florence2) -> None:
    decoder = tokenizers.Tokenizer.from_file(str(TINY / "tokenizer.json"))
    results = model.run(mixed_requests(), **SHORT)
    assert len(results) == len(mixed_requests())
    for result in results:
        assert decoder.decode(list(result.token_ids), skip_special_tokens=False) == result.generated
        assert result.token_ids[:2] == (2, 0), "the start token and the forced first one"
        assert len(result.token_ids) <= 13


def test_a_region_as_box_and_as_tokens(model: Florence2) -> None:
    image = picture(1, 40, 60)
    tokens = to_text(to_bins(REGION, (60, 40)))
    answers = [
        model(image, Task.REGION_TO_CATEGORY, region=REGION, **SHORT),
        model(image, Task.REGION_TO_CATEGORY, region=tokens, **SHORT),
        model(image, Task.REGION_TO_CATEGORY, region=np.array(REGION), **SHORT),
        *model.run([Request(image, Task.REGION_TO_CATEGORY, region=REGION)], **SHORT),
    ]
    assert all(answer == answers[0] for answer in answers)
    other = model(image, Task.REGION_TO_CATEGORY, region=(0, 0, 60, 40), **SHORT)
    assert other.score != answers[0].score


def test_every_form_of_a_picture(model: Florence2, tmp_path: Path) -> None:
    pixels = picture(5, 30, 44)
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    expected = model(pixels, "caption", **SHORT)
    opaque = np.concatenate([pixels, np.full((30, 44, 1), 255, np.uint8)], axis=2)
    for image in (path, str(path), stream.getvalue(), Image.fromarray(pixels), opaque):
        assert model(image, "caption", **SHORT) == expected
    grey = pixels[:, :, 0]
    assert model(grey, "caption", **SHORT) == model(
        grey[:, :, None].repeat(3, axis=2), "caption", **SHORT
    )


# How it is searched


def logits_of(model: Florence2, scene: EncodedImage, ids: Sequence[int]) -> npt.NDArray[np.float32]:
    """Logits [T,V] after every token of an answer to `Task.OD`, searched by no one."""
    prompt = model.assets.tokenizer.encode(Task.OD.prompt)
    return plain_logits(model, *encoder_inputs(model.graphs, [scene], [prompt], 1), ids)


FREE: dict[str, Any] = {
    "no_repeat_ngram_size": 0,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
}


@pytest.mark.parametrize("seed", range(4))
def test_greedy_takes_the_best_token_every_time(model: Florence2, seed: int) -> None:
    """150 tokens make the cache grow twice."""
    scene = model.encode(picture(seed))
    result = model(scene, Task.OD, num_beams=1, max_new_tokens=150, **FREE)
    best = logits_of(model, scene, result.token_ids[:-1]).argmax(axis=1)
    assert list(result.token_ids[1:]) == best.tolist()


@pytest.mark.parametrize("beams", [1, 2, 3, 5, 40])
def test_the_score_is_the_mean_log_probability(model: Florence2, beams: int) -> None:
    """40 beams ask for more candidates than the graph returns, and use up the first cache."""
    scene = model.encode(picture(2))
    best = model(
        scene, Task.OD, num_beams=beams, num_return_sequences=beams, max_new_tokens=15, **FREE
    )
    for result in (best, *best.alternatives):
        ids = list(result.token_ids)
        logits = logits_of(model, scene, ids[:-1]).astype(np.float64)
        log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        total = log_probs[np.arange(len(ids) - 1), ids[1:]].sum()
        # 15 float32 log-probabilities of about 5, each right to a few 1e-6.
        assert result.score == pytest.approx(total / (len(ids) - 1), abs=2e-5)


def test_several_sequences_come_back_best_first(model: Florence2) -> None:
    request = (picture(3), Task.OD)
    one = model(*request, num_beams=4, **SHORT)
    several = model(*request, num_beams=4, num_return_sequences=3, **SHORT)
    assert one.alternatives == ()
    assert replace(several, alternatives=()) == one
    assert len(several.alternatives) == 2
    answers = [several, *several.alternatives]
    scores = [a.score for a in answers if a.score is not None]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True)
    assert len({a.token_ids for a in answers}) == 3


def test_the_policy_is_the_checkpoints_unless_overridden(model: Florence2) -> None:
    assert isinstance(model.policy, GenerationPolicy)
    image = picture(4)
    default = model(image, "od", **SHORT)
    assert default == model(image, "od", num_beams=3, no_repeat_ngram_size=3, **SHORT)
    assert default.token_ids[-1] == 2, "forced at the last place"
    free = model(image, "od", num_beams=1, **FREE, **SHORT)
    assert free.token_ids[1] != 0, "nothing is forced"
    longer = model(image, "od", max_new_tokens=30)
    assert len(longer.token_ids) == 31
    assert model(image, "od", **SHORT) == default, "a call leaves no trace"


# What is run, and how often


def test_the_search_knows_what_the_encoder_reads(
    model: Florence2, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def noted(*arguments: Any) -> Any:
        seen.append(arguments[3])
        return search(*arguments)

    monkeypatch.setattr("florence_onnx.answering.search", noted)
    prompts = ["<A>car", "<A>a green car"]
    requests = [Request(picture(i), prompt=prompt) for i, prompt in enumerate(prompts)]
    read = [model.assets.tokenizer.encode(prompt) for prompt in prompts]
    model.run(requests, **SHORT)
    Florence2(replace(model.assets, image_token_id=7), model.graphs).run(requests, **SHORT)
    assert seen == [read, [[7] * 5 + ids for ids in read]]


@pytest.mark.parametrize("beams", [1, 3])
def test_what_the_prompt_holds_is_not_said_again(model: Florence2, beams: int) -> None:
    options: dict[str, Any] = {
        "num_beams": beams,
        "max_new_tokens": 30,
        "forced_bos_token_id": None,
    }
    usual = model(picture(0), "<A>car", **options)
    prompt = "<A>" + "".join(usual.generated.split("</s>"))
    free = model(picture(0), prompt, **options, forced_eos_token_id=None)
    bound = model(
        picture(0), prompt, **options, forced_eos_token_id=None, encoder_no_repeat_ngram_size=1
    )
    read = set(model.assets.tokenizer.encode(prompt))
    assert read & set(free.token_ids[1:])
    assert not read & set(bound.token_ids[1:])


@pytest.mark.parametrize("beams", [1, 3])
def test_batches_answer_as_one_by_one(model: Florence2, beams: int) -> None:
    requests = mixed_requests()
    assert requests[1].image is requests[5].image
    encoded = model.encode(picture(1, 64, 64))
    for i in (1, 5):
        requests[i] = replace(requests[i], image=encoded)
    ends = varied_end(model, requests, num_beams=beams, max_new_tokens=40)
    alone = [result for request in requests for result in model.run([request], **ends)]
    assert len({len(result.token_ids) for result in alone}) > 3, "the answers are of one length"
    for batch_size in (1, 5, 8, 100):
        together = model.run(requests, batch_size=batch_size, **ends)
        for ours, theirs in zip(together, alone, strict=True):
            assert ours.token_ids == theirs.token_ids
            assert ours.score == pytest.approx(theirs.score, abs=1e-5)
            assert ours.to_dict() == theirs.to_dict()


def test_a_picture_is_encoded_once(model: Florence2, tmp_path: Path) -> None:
    model = counted(model)
    vision = model.graphs.sessions[VISION_ENCODER]
    image, other = picture(1), picture(2)
    path = tmp_path / "picture.png"
    Image.fromarray(image).save(path)
    model.run([Request(image, "od"), Request(other, "od"), Request(image, "ocr")], **SHORT)
    assert vision.rows == 2
    model.run([Request(image, "od")] * 3, batch_size=1, **SHORT)
    assert vision.rows == 3
    model.run([Request(str(path), "od"), Request(path, "ocr")], **SHORT)
    assert vision.rows == 4
    scene = model.encode(image)
    assert vision.rows == 5
    assert model(scene, "caption", **SHORT) == model(image, "caption", **SHORT)
    assert vision.rows == 6
    model.run([Request(scene, "caption"), Request(scene, "od")], **SHORT)
    assert vision.rows == 6


def test_five_tasks_on_a_scene_are_decoded_together(model: Florence2) -> None:
    model = counted(model)
    scene = model.encode(picture(1))
    requests = [Request(scene, task) for task in ("od", "ocr", "caption", "detailed_caption")]
    requests.append(Request(scene, "caption_to_phrase_grounding", TEXT))
    ends = varied_end(model, requests, num_beams=1, max_new_tokens=40)
    before = model.graphs.sessions[DECODER].calls, model.graphs.sessions[ENCODER].calls
    results = model.run(requests, **ends)
    lengths = [len(result.token_ids) - 1 for result in results]
    assert len(set(lengths)) > 1
    assert model.graphs.sessions[DECODER].calls - before[0] == max(lengths) < sum(lengths)
    assert model.graphs.sessions[ENCODER].calls - before[1] == 1


def test_a_request_that_has_ended_leaves_the_batch(
    model: Florence2, steps: list[tuple[int, list[int]]]
) -> None:
    requests = mixed_requests()[:8]
    ends = varied_end(model, requests, num_beams=1, max_new_tokens=80)
    steps.clear()
    lengths = [len(result.token_ids) - 1 for result in model.run(requests, **ends)]
    assert steps == [
        (len(left), left)
        for step in range(max(lengths))
        for left in [[i for i, length in enumerate(lengths) if length > step]]
    ]
    assert len({rows for rows, _ in steps}) > 3


def test_beams_leave_with_their_request(
    model: Florence2, steps: list[tuple[int, list[int]]]
) -> None:
    requests = mixed_requests()[:8]
    ends = varied_end(model, requests, num_beams=3, max_new_tokens=80)
    steps.clear()
    model.run(requests, **ends)
    # Up to the first choice the beams of a request are one and the same.
    assert [rows for rows, _ in steps[:2]] == [8, 8]
    assert all(rows == 3 * len(left) for rows, left in steps[2:])
    left = [set(requests) for _, requests in steps]
    assert all(after <= before for before, after in pairwise(left))
    assert len({len(requests) for requests in left}) > 3


def test_the_cache_never_comes_to_the_host(
    model: Florence2, steps: list[tuple[int, list[int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[list[int]] = []
    fetch = ort.OrtValue.numpy

    def noted(value: ort.OrtValue) -> Any:
        fetched.append(value.shape())
        return fetch(value)

    requests = mixed_requests()[:6]
    ends = varied_end(model, requests, num_beams=3, max_new_tokens=80)
    steps.clear()
    monkeypatch.setattr(ort.OrtValue, "numpy", noted)
    model.run(requests, **ends)
    # One pair of candidates and log-probabilities per step but the first, whose token is forced.
    candidates = model.graphs.sessions[DECODER].get_outputs()[1].shape[1]
    assert fetched == [[rows, candidates] for rows, _ in steps[1:] for _ in range(2)]
    assert len({rows for rows, _ in fetched}) > 2, "no request has left the batch"


def test_no_requests_no_results(model: Florence2) -> None:
    assert model.run([]) == model([], "od") == model.answer([]) == []
    assert model.run(iter([Request(picture(1), "od")]), **SHORT) == [
        model(picture(1), "od", **SHORT)
    ]


def test_preparing_needs_no_engine(model: Florence2) -> None:
    model = counted(model)
    request = Request(picture(2, 30, 50), "od")
    prepared = model.prepare(request)
    encoded = model.prepare(replace(request, image=model.encode(request.image)))  # type: ignore[arg-type]
    assert model.graphs.sessions[VISION_ENCODER].calls == 1
    assert model.answer(prepared, **SHORT) == model(*(request.image, "od"), **SHORT)
    assert model.graphs.sessions[VISION_ENCODER].calls == 3
    assert (
        model.answer([prepared, encoded, prepared], **SHORT) == [model.answer(encoded, **SHORT)] * 3
    )
    assert model.graphs.sessions[VISION_ENCODER].calls == 4, "one prepared picture is encoded once"
    assert prepared.picture.size == (50, 30)
    assert isinstance(encoded.picture, EncodedImage)
    long = Request(encoded.picture, prompt="?" * 200)
    with pytest.raises(TaskError, match=r"tokens long; the model has 160 positions"):
        model.prepare(long)


def test_several_pictures_at_once(model: Florence2, tmp_path: Path) -> None:
    pixels = [picture(seed, 30 + seed, 40) for seed in range(3)]
    path = tmp_path / "picture.png"
    Image.fromarray(pixels[2]).save(path)
    expected = [model(one, "od", **SHORT) for one in pixels]
    assert model([pixels[0], pixels[1], path], "od", **SHORT) == expected
    for several in (tuple, deque):
        assert model(several([pixels[0], pixels[1], path]), "od", **SHORT) == expected
    assert model([model.encode(one) for one in pixels], "od", **SHORT) == expected
    assert model([pixels[0]], Task.REGION_TO_OCR, region=REGION, **SHORT) == [
        model(pixels[0], Task.REGION_TO_OCR, region=REGION, **SHORT)
    ]
    with pytest.raises(ImageError, match=r"cannot read a picture from builtins\.NoneType"):
        model([pixels[0], None], "od", **SHORT)  # type: ignore[list-item]


def test_the_options_of_a_call_have_a_type() -> None:
    fields = {field.name for field in fields_of(GenerationPolicy)}
    names = {*fields, "max_length", "min_length"} - set(OF_THE_MODEL)
    assert set(GenerationOptions.__annotations__) == names
