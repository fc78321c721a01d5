"""Preparation of a request, without the engine: resize the picture, tokenize the prompt."""

from collections.abc import Sequence
from typing import TypeGuard

import numpy as np

from florence_onnx.assets.reading import Assets
from florence_onnx.errors import ImageError, InputError
from florence_onnx.images.pixels import ImageInput, to_rgb
from florence_onnx.locations import check_image_size
from florence_onnx.picture_reference import PictureReference
from florence_onnx.picture_sizes import ImageSize
from florence_onnx.prompts import check_input, fill_prompt, what_is_asked
from florence_onnx.requests import (
    EncodedImage,
    EncodedTiles,
    Picture,
    Prepared,
    Request,
    TiledPicture,
)
from florence_onnx.tasks import AnswerKind, Task
from florence_onnx.tiling import TilesOption, check_tiles, tiles_of


def read_picture(
    assets: Assets,
    image: ImageInput | EncodedImage,
    tiles: TilesOption | None = None,
    image_size: ImageSize | None = None,
    name: str | None = None,
) -> Picture | TiledPicture | EncodedImage:
    """Decodes and resizes a picture. An encoded picture is returned unchanged.

    Args:
        assets: Assets of the model.
        image: The picture.
        tiles: Tiles, as in `Request`. A picture that fits one tile is read without tiles.
        image_size: Size, as in `Request`.
        name: Name in messages of a picture that is given as bytes.

    Raises:
        ImageError: The image is not a picture the model can read, or another model encoded it.
        InputError: ``tiles`` or ``image_size`` is wrong, or given for an encoded picture.
    """
    if isinstance(image, EncodedImage):
        for name, option in (("tiles", tiles), ("image_size", image_size)):
            if option is not None:
                raise InputError(f"{name}= needs the picture itself, not one that is encoded")
        for part in image.parts if isinstance(image, EncodedTiles) else [image]:
            _check_encoded(assets, part)
        return image
    sized = assets.at_size(image_size)
    height, width = sized.preprocessor.size
    resized = None if image_size is None else (width, height)
    grid = None if tiles is None else tiles_of(tiles)
    rgb, reference = to_rgb(image, name), PictureReference(image)
    size = rgb.shape[1], rgb.shape[0]
    if grid is not None:
        frames = grid.frames(size, (width, height))
        if len(frames) > 1:
            tiled = grid.per_label, sized.preprocessor, resized, reference
            return TiledPicture(rgb, frames, *tiled)
    return Picture(sized.preprocessor(rgb), size, resized, reference)


def _check_encoded(assets: Assets, image: EncodedImage) -> None:
    features, tokens = (
        np.asarray(image.image_features),
        assets.at_size(image.image_size).image_tokens,
    )
    if features.ndim != 2 or features.shape[0] != tokens:
        raise ImageError(
            f"the picture was encoded by another model: image features {list(features.shape)}, "
            f"where this model has {tokens} tokens for a picture"
        )
    if features.dtype != np.float32:
        raise ImageError(
            f"image features must be float32, as encode() gives them, not {features.dtype}"
        )
    check_image_size(image.size, "size")


def check_request(request: object) -> Request:
    """Checks that a value is a `Request`, and returns it.

    Raises:
        InputError: ``request`` is something else.
    """
    if not isinstance(request, Request):
        raise InputError(
            f"a request must be a florence_onnx.Request, such as Request(image, 'od'), "
            f"not {type(request).__name__}: {request!r:.80}"
        )
    return request


def check_prepared(assets: Assets, prepared: object) -> Sequence[Prepared]:
    """Returns the batch of a sequence of prepared requests, or of one prepared request.

    Raises:
        InputError: ``prepared`` is something else, or was prepared by a model with another size of
            pictures or another tokenizer.
    """
    batch = [prepared] if isinstance(prepared, Prepared) else prepared
    if not isinstance(batch, Sequence) or not all(isinstance(one, Prepared) for one in batch):
        raise InputError(
            f"answer() takes what prepare() returned, or a list of that, "
            f"not {type(prepared).__name__}: {prepared!r:.80}"
        )
    for one in batch:
        if one.origin not in (None, assets.origin):
            raise InputError(
                f"the request was prepared by {one.origin}, and cannot be answered by "
                f"{assets.origin}; prepare it with the model that is to answer it"
            )
    return batch


def are_several(image: object) -> TypeGuard[Sequence[ImageInput | EncodedImage]]:
    """Tells a list of pictures from one picture, which may be text or bytes."""
    one = (str, bytes, bytearray, memoryview)
    return isinstance(image, Sequence) and not isinstance(image, one)


def check_question(request: Request) -> tuple[Task | str, AnswerKind]:
    """Finds the task and the kind of the answer, and checks both without the picture.

    Raises:
        InputError: The task, the prompt or its input is wrong, or tiles do not suit the task.
    """
    asked, answer_kind = what_is_asked(request.task, request.prompt, request.answer)
    check_input(asked, request.text, request.region)
    if request.tiles is not None:
        check_tiles(asked, answer_kind)
    return asked, answer_kind


def prepare(
    assets: Assets,
    request: Request,
    picture: Picture | TiledPicture | EncodedImage,
) -> Prepared:
    """Checks a request whose picture has been read.

    Raises:
        InputError: The task, the prompt or its input is wrong, or tiles do not suit the task.
    """
    asked, answer_kind = check_question(request)
    prompt = fill_prompt(asked, request.text, request.region, picture.size)
    ids = tuple(assets.encode_prompt(prompt, _image_tokens(assets, picture)))
    return Prepared(picture, asked, answer_kind, ids, request.text, assets.origin)


def _image_tokens(assets: Assets, picture: Picture | TiledPicture | EncodedImage) -> int:
    """Number of positions of a picture, or of a tile of a picture."""
    if isinstance(picture, EncodedImage):
        return len(picture.image_features)
    if isinstance(picture, TiledPicture):
        return assets.picture_sizes.tokens(picture.preprocessor.size)
    _, height, width = picture.pixel_values.shape
    return assets.picture_sizes.tokens((height, width))
