"""Opening of a model folder: the graphs and the files, checked against each other."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from florence_onnx.assets.reading import Assets
from florence_onnx.engine.precision import Precision
from florence_onnx.engine.providers import Providers
from florence_onnx.engine.sessions import Graphs, open_graphs
from florence_onnx.errors import ModelFileError

if TYPE_CHECKING:
    from florence_onnx.engine.options import SessionOptions


def open_folder(
    folder: Path,
    precision: Precision,
    providers: Providers | None,
    threads: int | None,
    session_options: "SessionOptions | None" = None,
    fast_math: bool = False,
) -> tuple[Assets, Graphs]:
    """Opens the graphs of a folder at one precision, and reads the files at the same time.

    The arguments are those of `open_graphs`.

    Raises:
        ModelError: A file is missing, damaged, or of another model than the graphs.
    """
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(
            open_graphs, folder, precision, providers, threads, session_options, fast_math
        )
        assets = Assets.read(folder)
        graphs = opening.result()
    size = assets.preprocessor.size
    fixed = graphs.picture_size
    if any(want not in (None, one) for want, one in zip(fixed, size, strict=True)):
        raise ModelFileError(
            f"{folder / graphs.files['vision_encoder']} takes pictures of {fixed[1]}x{fixed[0]} "
            f"pixels only, but preprocessor_config.json makes them {size[1]}x{size[0]}; set its "
            "size and crop_size to what the graph takes"
        )
    rows, known = assets.policy.vocab_size, graphs.geometry["vocabulary"]
    if rows > known:
        raise ModelFileError(
            f"{folder / 'config.json'} is of another model: text_config.vocab_size is {rows}, and "
            f"the graphs know {known} tokens"
        )
    sizes = replace(assets.picture_sizes, fixed=fixed)
    return replace(assets, picture_sizes=sizes), graphs
