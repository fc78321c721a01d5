"""Pictures resized to other sizes than the checkpoint's."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from florence_onnx import Florence2, GraphRunError, ImageError, InputError, Request
from florence_onnx.cli.program import main
from florence_onnx.engine.contract import VISION_ENCODER
from florence_onnx.picture_sizes import PictureSizes
from tests.helpers.tiny import TINY, counted, picture

SHORT: dict[str, Any] = {"max_new_tokens": 12}


@pytest.fixture(scope="module")
def model() -> Florence2:
    return Florence2.load(TINY, threads=1)


def test_features_are_those_of_a_picture_of_the_size(model: Florence2) -> None:
    image = picture(1, 50, 70)
    features = model.encode(image, image_size=(96, 32)).image_features
    assert features.shape == (1 * 3 + 1, 32)
    resized = replace(model.assets.preprocessor, size=(32, 96))(image)
    assert np.array_equal(features, model.graphs.image_features(resized[None])[0])


@pytest.mark.parametrize("size", [32, (32, 32), np.int64(32), [32, 32]])
def test_one_number_is_both_sides(model: Florence2, size: Any) -> None:
    assert model.encode(picture(1), image_size=size).image_features.shape == (2, 32)


def test_a_model_may_be_opened_with_a_size(model: Florence2) -> None:
    small = Florence2.load(TINY, threads=1, image_size=32)
    image = picture(1)
    assert small(image, "od", **SHORT) == model(image, "od", image_size=32, **SHORT)
    assert small(image, "od", image_size=64, **SHORT) == model(image, "od", **SHORT)
    with pytest.raises(ImageError, match=r"by another model: image features.* has 2 tokens"):
        small(model.encode(image), "od")


def test_batches_of_mixed_sizes_answer_as_one_by_one(model: Florence2) -> None:
    sizes = [None, 32, (64, 96), 64, (33, 65), None, 32]
    requests = [
        Request(picture(i % 3), task, image_size=size)
        for i, size in enumerate(sizes)
        for task in ("od", "caption")
    ]
    requests.append(Request(model.encode(picture(1), image_size=32), "caption"))
    found = model.run(requests, batch_size=20, num_beams=2, **SHORT)
    alone = [model.answer(model.prepare(one), num_beams=2, **SHORT) for one in requests]
    assert [one.token_ids for one in found] == [one.token_ids for one in alone]
    assert len({one.token_ids for one in found}) > 3


def test_crops_go_through_the_vision_encoder_together(model: Florence2) -> None:
    seen = counted(model)
    requests = [Request(picture(i), "caption", image_size=64) for i in range(130)]
    seen.run(requests, batch_size=128, **SHORT)
    vision: Any = seen.graphs.sessions[VISION_ENCODER]
    assert (vision.calls, vision.rows) == (2, 130)


@pytest.mark.parametrize("size", [0, -1, 4097, (64,), (64, 0), (1, 2, 3), "64", 64.0, True, [], {}])
def test_what_is_no_size_is_refused(model: Florence2, size: Any) -> None:
    match = r"image_size= must be \(width, height\).*squares from 1 to [0-9]+ pixels a side"
    for call in (model, lambda *a, **k: Florence2.load(TINY, image_size=k["image_size"])):
        with pytest.raises(InputError, match=match):
            call(picture(1), "od", image_size=size)


def test_sizes_beyond_the_tables_are_refused_with_those_that_fit(model: Florence2) -> None:
    sizes = model.assets.picture_sizes
    largest = max(side for side in range(1, 4097) if sizes.problem((side, side)) is None)
    assert sizes.read(largest) == (largest, largest)
    for size, why in (
        ((largest + 32, largest + 32), "image tokens, "),
        ((1632, 64), "but the position tables have"),
    ):
        match = rf"image_size=.*{size[0]}x{size[1]} pixels becomes .*{why}.*from 1 to {largest} "
        with pytest.raises(InputError, match=match):
            model(picture(1), "od", image_size=size)


def test_a_graph_of_one_size_names_it(model: Florence2) -> None:
    fixed = PictureSizes(model.assets.picture_sizes.config, (64, 96))
    assert fixed.read((96, 64)) == (64, 96)
    for size in (64, 0):
        with pytest.raises(InputError, match="this model takes 96x64 only"):
            fixed.read(size)


def test_a_graph_that_fails_on_a_size_is_told_from_a_broken_one(
    model: Florence2, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*arguments: Any) -> Any:
        raise GraphRunError("it failed")

    monkeypatch.setattr(type(model.graphs), "image_features", failing)
    with pytest.raises(ImageError, match=r"cannot take pictures of 32x64 pixels.*: it failed"):
        model(picture(1), "od", image_size=(32, 64))
    with pytest.raises(GraphRunError, match=r"^it failed"):
        model(picture(1), "od")


def test_encoded_pictures_have_their_size(model: Florence2) -> None:
    encoded = model.encode(picture(1), image_size=32)
    assert encoded.image_size == (32, 32)
    with pytest.raises(InputError, match="image_size= needs the picture itself"):
        model(encoded, "od", image_size=32)


def test_the_command_line_takes_one_number_or_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    file = tmp_path / "a.png"
    Image.fromarray(picture(1)).save(file)
    command = ["run", str(file), "--task", "caption", "--model", "demo", "--image-size"]
    for size, status in (("64", 0), ("64x96", 0), ("4000", 2), ("0", 2)):
        assert main([*command, size]) == status
        err = capsys.readouterr().err
        assert ("this model takes squares from 1 to 128" in err) == (status == 2)
    for size in ("x", "64x", "6.4", "-1"):
        with pytest.raises(SystemExit):
            main([*command[:-1], f"--image-size={size}"])
        assert "is not a number of pixels" in capsys.readouterr().err
