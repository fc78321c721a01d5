"""Smoke check of new graphs: a request, in little time and memory."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from florence_onnx.engine import contract
from florence_onnx.engine.inputs import encoder_inputs
from florence_onnx.engine.options import options_for_one_request
from florence_onnx.engine.providers import CPU
from florence_onnx.generation.search import search
from florence_onnx.opening import open_folder
from florence_onnx.requests import EncodedImage
from florence_onnx.tasks import Task


def smoke_check(folder: Path) -> None:
    """Opens all graphs of a model folder, and answers one request.

    Graphs read weights from mapped files, so that little memory is private, and the largest graph
    is closed after its run. The picture has half the model's width and height, so that it passes
    through the same nodes in a quarter of the time.

    Args:
        folder: The model folder, with float32 graphs.

    Raises:
        ModelError: A graph cannot be opened, fails, or returns NaN or infinite numbers.
    """
    assets, graphs = open_folder(folder, "fp32", [CPU], None, options_for_one_request())
    sessions = dict(graphs.sessions)
    graphs = replace(graphs, sessions=sessions)
    height, width = (side // 2 for side in assets.preprocessor.size)
    shape = 1, 3, height, width
    pixels = np.linspace(-2, 2, math.prod(shape), dtype=np.float32).reshape(shape)
    features = graphs.image_features(pixels)
    del sessions[contract.VISION_ENCODER]
    policy = assets.policy.replace(num_beams=1, num_return_sequences=1, max_new_tokens=3)
    prompt = assets.encode_prompt(Task.OD.prompt)
    picture = EncodedImage(features[0], (width, height))
    steps = graphs.decoder.start(*encoder_inputs(graphs, [picture], [prompt], policy.pad_token_id))
    search(steps, 1, policy)
