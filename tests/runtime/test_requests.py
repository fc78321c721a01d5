"""What is refused: pictures, tasks, inputs, options and arguments that are wrong."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from PIL import Image

from florence_onnx import (
    EncodedImage,
    Failure,
    Florence2,
    GenerationOptions,
    Request,
    Task,
)
from florence_onnx.engine.contract import VISION_ENCODER
from florence_onnx.errors import (
    GenerationError,
    ImageError,
    InputError,
    ModelFileError,
    PrecisionError,
    ProviderError,
    RegionError,
    SessionOptionsError,
    TaskError,
    TokenizerError,
)
from florence_onnx.tasks import InputKind
from florence_onnx.tokenizer import LOCATION_TOKENS
from tests.helpers.tiny import (
    REGION,
    TEXT,
    TINY,
    change_json,
    copy_tiny,
    counted,
    picture,
)

SHORT: GenerationOptions = {"max_new_tokens": 12}


@pytest.fixture(scope="module")
def model() -> Florence2:
    return Florence2.load(TINY, threads=1)


def bad_pictures() -> Iterator[Any]:
    fine = picture(1)
    with_nan = fine.astype(np.float32)
    with_nan[0, 0] = np.nan
    for name, image, message in [
        ("empty", fine[:0], "is empty: it has shape"),
        ("no width", fine[:, :0], "is empty: it has shape"),
        ("0 channels", fine[:, :, :0], r"shape \[24, 32, 0\]"),
        ("5 channels", np.zeros((4, 4, 5), np.uint8), r"shape \[4, 4, 5\]"),
        ("channels first", fine.transpose(2, 0, 1), "channels come last"),
        ("float", fine / np.float32(255), "dtype float32, but only uint8"),
        ("NaN", with_nan, "dtype float32, but only uint8"),
        ("bool", fine > 9, "dtype bool"),
        ("one axis", fine.ravel(), r"only \[H, W\]"),
        ("a batch", fine[None], "one by one"),
        ("bytes", b"\x89PNG\r\n\x1a\n and then nothing", "bytes given"),
        ("no bytes", b"", "the 0 bytes given"),
        ("no file", "nowhere.png", "cannot read the picture 'nowhere.png': No such file"),
        ("not a picture", __file__, "is not a picture in a format that Pillow reads"),
        ("None", None, "cannot read a picture from .*NoneType"),
        ("bytearray", bytearray(b"RIFF"), "cannot read a picture from .*bytearray"),
        ("list", fine.tolist(), "cannot read a picture from .*list"),
    ]:
        yield pytest.param(image, message, id=name)


@pytest.mark.parametrize(("image", "message"), list(bad_pictures()))
def test_bad_pictures(model: Florence2, image: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        model(image, "od", **SHORT)
    with pytest.raises(ImageError, match=message):
        model.encode(image)


def test_a_damaged_picture_file(model: Florence2, tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    Image.fromarray(picture(1, 200, 200)).save(path)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(ImageError, match=r"cannot decode '.*cut\.jpg'"):
        model(path, "od", **SHORT)


@pytest.mark.parametrize("task", Task)
def test_every_task_insists_on_its_input(model: Florence2, task: Task) -> None:
    if task.input_kind is InputKind.NONE:
        with pytest.raises(TaskError, match=rf"'{task}' takes no text"):
            model(picture(1), task, TEXT)
        with pytest.raises(TaskError, match=rf"'{task}' takes no region"):
            model(picture(1), task, region=REGION)
        return
    name = "text" if task.input_kind is InputKind.TEXT else "region"
    with pytest.raises(TaskError, match=rf"{task} needs {name}="):
        model(picture(1), task)
    if name == "text":
        with pytest.raises(TaskError, match=r"takes no region"):
            model(picture(1), task, region=REGION)


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ((0, 0, 33, 10), r"\(0.0, 0.0, 33.0, 10.0\) is outside the picture of 32x24 pixels"),
        ((-1, 0, 5, 5), "is outside the picture"),
        ((9, 0, 3, 5), "is reversed or empty"),
        ((0, 5, 5, 5), "is reversed or empty"),
        ((0, 0, 5), "is not a region: a region is four numbers"),
        ((0, 0, 5, 5, 5), "is not a region"),
        ((0, 0, float("nan"), 5), "not finite"),
        (("a", 0, 5, 5), "is not a region"),
        (7, "is not a region"),
        ("1,2,3,4", "is not a region"),
        ("<loc_1><loc_2><loc_3>", "is not a region"),
        ("<loc_5><loc_2><loc_3><loc_4>", "is reversed"),
        ("<loc_1><loc_2><loc_3><loc_1000>", "beyond <loc_999>"),
    ],
)
def test_bad_regions(model: Florence2, region: Any, message: str) -> None:
    with pytest.raises(RegionError, match=message):
        model(picture(1), Task.REGION_TO_CATEGORY, region=region)


@pytest.mark.parametrize("task", ["odd", "", "captoin", 3])
def test_bad_tasks(model: Florence2, task: Any) -> None:
    with pytest.raises(TaskError, match=r"is not a task: .*Choose one of ocr, ocr_with_region"):
        model(picture(1), task)


def test_text_and_region_at_once(model: Florence2) -> None:
    """They are never taken for each other, and never merged."""
    tokens = "<loc_1><loc_2><loc_3><loc_4>"
    for region in (None, REGION, tokens):
        with pytest.raises(TaskError, match=r"'<REGION_TO_OCR>' takes no text; it takes region="):
            model(picture(1), Task.REGION_TO_OCR, tokens, region=region)
    for text in (None, TEXT):
        with pytest.raises(TaskError, match=r"takes no region; it takes text="):
            model(picture(1), Task.OPEN_VOCABULARY_DETECTION, text, region=tokens)
    with pytest.raises(TaskError, match=r"'<CAPTION>' takes no region$"):
        model(picture(1), "caption", region=tokens)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 161}, "max_new_tokens is 161; it must be at most 160, the positions"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0; it must be at least 1"),
        ({"num_beams": 0}, "num_beams is 0; it must be at least 1"),
        ({"num_beams": "3"}, "num_beams is '3'; it must be a whole number"),
        ({"num_return_sequences": 4}, "num_return_sequences is 4; it must be at most 3, num_beams"),
        ({"early_stopping": "always"}, 'it must be True, False or "never"'),
        ({"batch_sizes": 4}, "unknown generation option 'batch_sizes'"),
        ({"temperature": 0.5}, "unknown generation option 'temperature'; valid are .*num_beams"),
    ],
)
def test_bad_generation_options(model: Florence2, options: Any, message: str) -> None:
    with pytest.raises(GenerationError, match=message):
        model.run([Request(picture(1), "od")], **options)
    several: list[Any] = [picture(1), [picture(1)], []]
    for images in several:
        with pytest.raises(GenerationError, match=message):
            model(images, "od", **options)
    with pytest.raises(GenerationError, match=message):
        model.answer([model.prepare(Request(picture(1), "od"))], **options)
    with pytest.raises(GenerationError, match=message):
        model.stream([], **options)


def test_the_longest_answer_and_prompt(model: Florence2) -> None:
    """Exactly the position table's length is fine; one more is an error that says so."""
    assert len(model(picture(1), "od", max_new_tokens=160, eos_token_id=1423).token_ids) == 161
    scene = model.encode(picture(1))
    encode = model.assets.tokenizer.encode
    room = 160 - len(scene.image_features)
    text = "?" * (room - len(encode("")))
    assert len(encode(text)) == room
    assert model(scene, text, **SHORT).task == text
    with pytest.raises(TaskError, match=r"are 161 tokens long; the model has 160 positions"):
        model(scene, text + "?", **SHORT)


def test_task_and_prompt_and_answer_go_together(model: Florence2) -> None:
    for arguments, message in (
        (
            {},
            r"give task= \(--task\), one of ocr, .*; or prompt= \(--prompt\), the words of a fine",
        ),
        ({"task": "od", "prompt": "detect"}, r"give task or prompt, not both: got 'od' and 'dete"),
        ({"task": "od", "answer": "boxes"}, r"that to <OD> is always read as boxes"),
        ({"prompt": "detect", "answer": "box"}, r"answer is 'box'; it must be one of text, boxes"),
        ({"prompt": "detect", "text": "cars"}, r"'detect' takes no text: write the whole prompt"),
        ({"prompt": "detect", "region": REGION}, r"'detect' takes no region: write the whole pro"),
        ({"prompt": ""}, r"prompt= must be a str with the fine-tune's words, got ''"),
        ({"prompt": 3}, r"prompt= must be a str with the fine-tune's words, got 3"),
        ({"prompt": ["detect"]}, r"prompt= must be a str with the fine-tune's words, got \['det"),
        ({"prompt": "<OD>"}, r"the tag <OD> must stand alone, .* pass the tag as the task"),
        ({"prompt": Task.OD}, r"the tag <OD> must stand alone"),
        ({"task": "detect"}, r"did you mean .* as prompt= \(--prompt\)"),
    ):
        with pytest.raises(TaskError, match=message):
            model(picture(1), **arguments)


@pytest.mark.parametrize(
    ("text", "kind"), [(["cat", "dog"], "list"), (5, "int"), (b"cat", "bytes"), (("cat",), "tuple")]
)
def test_text_of_another_type(model: Florence2, text: Any, kind: str) -> None:
    with pytest.raises(TaskError, match=rf"text= must be one str, got {kind} .*; ask once per"):
        model(picture(1), "open_vocabulary_detection", text)


NO_REQUESTS = [("a.png", "od", None), "abc", None, {"image": 1}, 5, picture(1)]


@pytest.mark.parametrize("request_", NO_REQUESTS, ids=lambda given: type(given).__name__)
def test_what_is_not_a_request(model: Florence2, request_: Any) -> None:
    name = type(request_).__name__
    message = rf"must be a florence_onnx.Request, such as Request\(image, 'od'\), not {name}: "
    with pytest.raises(InputError, match=message):
        model.run([request_])
    with pytest.raises(InputError, match=message):
        model.prepare(request_)
    (failure,) = model.stream([request_], on_error="return")
    assert isinstance(failure, Failure)
    assert failure.request is request_
    assert isinstance(failure.error, InputError)


@pytest.mark.parametrize("requests", ["abc", b"abc", None, 5, Request(b"", "od"), Request])
def test_what_is_not_requests(model: Florence2, requests: Any) -> None:
    message = rf"requests must be an iterable of .*Request.*, not {type(requests).__name__}: "
    for ask in (model.run, model.stream):
        with pytest.raises(InputError, match=message):
            ask(requests)


@pytest.mark.parametrize("prepared", [Request(b"", "od"), "abc", None, [5], iter([])])
def test_what_is_not_prepared(model: Florence2, prepared: Any) -> None:
    with pytest.raises(InputError, match=r"answer\(\) takes what prepare\(\) returned, .* not "):
        model.answer(prepared)


@pytest.mark.parametrize("batch_size", ["4", 0, -1, 2.0, None, True, [4]])
def test_what_is_not_a_batch_size(model: Florence2, batch_size: Any) -> None:
    message = r"batch_size is .*; it must be a whole number, at least 1"
    for ask in (model.run, model.stream):
        with pytest.raises(InputError, match=message):
            ask([], batch_size=batch_size)
    assert len(model.run([Request(picture(1), "od")], batch_size=np.int64(4), **SHORT)) == 1  # type: ignore[arg-type]


def test_a_call_takes_no_batch_size(model: Florence2) -> None:
    several: list[Any] = [picture(1), [picture(1)], []]
    for images in several:
        with pytest.raises(GenerationError, match="unknown generation option 'batch_size'"):
            model(images, "od", batch_size=4)  # type: ignore[call-overload]


@pytest.mark.parametrize("on_error", ["ignore", None, True])
def test_what_is_not_on_error(model: Florence2, on_error: Any) -> None:
    with pytest.raises(InputError, match='it must be "raise" or "return"'):
        model.stream([], on_error=on_error)


def test_options_are_checked_before_anything_is_run(model: Florence2) -> None:
    model = counted(model)
    with pytest.raises(GenerationError):
        model.run([Request(picture(1), "od")], num_beams=0)
    grounding = "caption_to_phrase_grounding"
    for bad in (
        Request(picture(1)[:0], "od"),
        Request(picture(2), "odd"),
        Request(picture(2), "od", TEXT),
        Request(picture(2), grounding, "a \ud83d"),
        Request(picture(2), grounding, "a <image>"),
        Request(picture(2), grounding, "a " * 200),
        Request(picture(2), "Is it <image> or </s>?"),
        Request(picture(2), prompt="Is it <image> or </s>?"),
        Request(picture(2), prompt="a \ud83d"),
    ):
        with pytest.raises(InputError):
            model.prepare(bad)
        with pytest.raises(InputError):
            model.run([bad], **SHORT)
    assert model.graphs.sessions[VISION_ENCODER].calls == 0


def test_an_encoded_picture_of_another_model(model: Florence2) -> None:
    encoded = model.encode(picture(1))
    shorter = EncodedImage(encoded.image_features[:-1], encoded.size)
    with pytest.raises(ImageError, match=r"by another model: image features \[4, 32\], .* has 5"):
        model.prepare(Request(shorter, "od"))
    narrower = EncodedImage(encoded.image_features[:, :-1], encoded.size)
    prepared = [model.prepare(Request(image, "od")) for image in (encoded, narrower)]
    with pytest.raises(ImageError, match=r"was encoded by another model: image features"):
        model.answer(prepared)


def _of_other_pictures(folder: Path) -> None:
    size = {"height": 96, "width": 64}
    change_json(
        folder / "preprocessor_config.json",
        lambda content: content.update(size=size, crop_size=size),
    )


def _of_another_tokenizer(folder: Path) -> None:
    other = {"type": "NFC"}
    change_json(folder / "tokenizer.json", lambda content: content.update(normalizer=other))


@pytest.mark.parametrize("change", [_of_other_pictures, _of_another_tokenizer])
def test_a_request_that_another_model_has_prepared(
    model: Florence2, change: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = copy_tiny(tmp_path)
    same = Florence2.load(folder, threads=1).prepare(Request(picture(1), "od"))
    assert model.answer(same, **SHORT) == model(picture(1), "od", **SHORT)
    change(folder)
    other = Florence2.load(folder, threads=1)
    prepared = model.prepare(Request(picture(1), "od"))
    for batch in (prepared, [other.prepare(Request(picture(1), "od")), prepared]):
        with pytest.raises(InputError, match=r"^the request was prepared by ") as error:
            other.answer(batch, **SHORT)
        assert f"{TINY} (pictures of 64x64, tokenizer " in str(error.value)
        assert f"by {folder} (pictures of " in str(error.value)
        assert "\n" not in str(error.value)


def test_an_encoded_picture_that_was_changed(model: Florence2) -> None:
    encoded = model.encode(picture(1))
    for dtype in (np.float16, np.float64, np.object_):
        changed: Any = EncodedImage(encoded.image_features.astype(dtype), encoded.size)
        with pytest.raises(ImageError, match=r"image features must be float32, .* not (float|obj)"):
            model.prepare(Request(changed, "od"))
    for size in (None, (0, 4), ("a", 4), (4,)):
        changed = EncodedImage(encoded.image_features, size)  # type: ignore[arg-type]
        with pytest.raises(ImageError, match=r"^size must be \(width, height\)"):
            model.prepare(Request(changed, "od"))


def test_a_list_is_not_begun_where_the_question_is_wrong(model: Florence2) -> None:
    """No picture is read, and a list without pictures is told too."""
    several: list[Any] = [[], ["lost.png", picture(1)]]
    for images in several:
        wrong: tuple[dict[str, Any], ...] = (
            {"task": "captoin"},
            {"task": "od", "prompt": "detect"},
            {"task": "od", "text": TEXT},
            {"task": "region_to_ocr"},
            {"task": "region_to_ocr", "region": (0, 0, 5)},
            {"prompt": "detect", "answer": "box"},
        )
        for arguments in wrong:
            with pytest.raises((TaskError, RegionError)):
                model(images, **arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"precision": ["fp32"]},
            PrecisionError,
            r"precision is \['fp32'\]; it must be one of fp32",
        ),
        ({"precision": None}, PrecisionError, r"precision is None; it must be one of fp32, fp16"),
        ({"threads": "4"}, SessionOptionsError, r"threads is '4'; it must be a whole number from"),
        ({"threads": 0}, SessionOptionsError, r"threads is 0; it must be a whole number from 1"),
        ({"threads": True}, SessionOptionsError, r"threads is True; it must be"),
        ({"threads": 2.0}, SessionOptionsError, r"threads is 2.0; it must be"),
        ({"threads": 10**12}, SessionOptionsError, r"a whole number from 1 to 1024, or None"),
        ({"providers": 5}, ProviderError, r"providers is 5; it must be a list of names or"),
        ({"providers": {"*": 5}}, ProviderError, r"providers is 5; it must be a list of names or"),
    ],
)
def test_arguments_of_load_of_another_type(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Florence2.load(TINY, **arguments)


def test_a_tokenizer_of_a_larger_model(tmp_path: Path) -> None:
    folder = copy_tiny(tmp_path)
    larger = tokenizers.Tokenizer(tokenizers.models.BPE())
    words = [f"<word_{i}>" for i in range(500)]
    larger.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel()
    larger.decoder = tokenizers.decoders.ByteLevel()
    larger.add_special_tokens(["<s>", "<pad>", "</s>", *words, *LOCATION_TOKENS])
    larger.save(str(folder / "tokenizer.json"))
    message = r"is of another model: its ids go up to 1502, but config.json: text_config.vocab_size"
    with pytest.raises(TokenizerError, match=message):
        Florence2.load(folder)
    change_json(folder / "config.json", lambda c: c["text_config"].update(vocab_size=1503))
    message = r"config.json is of another model: .*vocab_size is 1503, and the graphs know 1424"
    with pytest.raises(ModelFileError, match=message):
        Florence2.load(folder)
