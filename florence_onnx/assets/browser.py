"""Settings for transformers.js in config.json."""

import json
from collections.abc import Sequence
from pathlib import Path

from florence_onnx.engine.contract import DATA_SUFFIX
from florence_onnx.files import read_json, write_whole

KEY = "transformers.js_config"


def add_browser_config(folder: Path, precisions: Sequence[str]) -> None:
    """Adds the graphs with files of weights, and the precision to open by default.

    Args:
        folder: A model folder with config.json and graphs.
        precisions: Precisions of the graphs. The first is opened by default.
    """
    path = folder / "config.json"
    config = read_json(path)
    beside = sorted(folder.glob(f"onnx/*.onnx{DATA_SUFFIX}"))
    config[KEY] = {
        "dtype": precisions[0],
        "use_external_data_format": {file.name.removesuffix(DATA_SUFFIX): 1 for file in beside},
    }
    write_whole(path, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
