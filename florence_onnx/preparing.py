"""Preparation of a request, without the engine: resize the picture, tokenize the prompt."""

from collections.abc import Sequence
from typing import TypeGuard

import numpy as np

from florence_onnx.assets.reading import Assets
from florence_onnx.errors import ImageError, InputError
from florence_onnx.images.pixels import ImageInput, to_rgb
from florence_onnx.prompts import fill_prompt, what_is_asked
from florence_onnx.requests import EncodedImage, Picture, Prepared, Request


def read_picture(assets: Assets, image: ImageInput | EncodedImage) -> Picture | EncodedImage:
    """Decodes and resizes a picture; one that is encoded already is returned as it is.

    Raises:
        ImageError: The image is not a picture the model can read, or another model encoded it.
    """
    if isinstance(image, EncodedImage):
        shape = np.shape(image.image_features)
        if len(shape) != 2 or shape[0] != assets.image_tokens:
            raise ImageError(
                f"the picture was encoded by another model: image features {list(shape)}, where "
                f"this model has {assets.image_tokens} tokens for a picture"
            )
        return image
    rgb = to_rgb(image)
    return Picture(assets.preprocessor(rgb), (rgb.shape[1], rgb.shape[0]))


def check_request(request: object) -> Request:
    """Returns what is a `Request`.

    Raises:
        InputError: ``request`` is something else.
    """
    if not isinstance(request, Request):
        raise InputError(
            f"a request must be a florence_onnx.Request, such as Request(image, 'od'), "
            f"not {type(request).__name__}: {request!r:.80}"
        )
    return request


def check_prepared(prepared: object) -> Sequence[Prepared]:
    """Returns the batch: a sequence of what `prepare` returned, or one of these.

    Raises:
        InputError: ``prepared`` is something else.
    """
    batch = [prepared] if isinstance(prepared, Prepared) else prepared
    if not isinstance(batch, Sequence) or not all(isinstance(one, Prepared) for one in batch):
        raise InputError(
            f"answer() takes what prepare() returned, or a list of that, "
            f"not {type(prepared).__name__}: {prepared!r:.80}"
        )
    return batch


def are_several(image: object) -> TypeGuard[Sequence[ImageInput | EncodedImage]]:
    """Tells a list of pictures from one picture, which may be text or bytes."""
    one = (str, bytes, bytearray, memoryview)
    return isinstance(image, Sequence) and not isinstance(image, one)


def prepare(assets: Assets, request: Request, picture: Picture | EncodedImage) -> Prepared:
    """Checks a request whose picture has been read.

    Raises:
        InputError: The task, the prompt or its input is wrong.
    """
    asked, answer_kind = what_is_asked(request.task, request.prompt, request.answer)
    prompt = fill_prompt(asked, request.text, request.region, picture.size)
    return Prepared(picture, asked, answer_kind, tuple(assets.encode_prompt(prompt)), request.text)
