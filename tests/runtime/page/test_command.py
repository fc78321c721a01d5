"""The command that shows the page."""

import socket

import numpy as np
import pytest
from PIL import Image

from florence_onnx.cli.demo import open_models
from florence_onnx.cli.program import build_parser, main
from florence_onnx.page.blocks import EXAMPLES
from florence_onnx_export.scenes.drawing import draw
from florence_onnx_export.scenes.scene import sample_scene
from tests.helpers.tiny import TINY


def test_the_examples_are_scenes_that_the_demo_model_was_not_trained_on() -> None:
    paths = sorted(EXAMPLES.glob("*.png"))
    assert len(paths) == 3
    for path in paths:
        scene = sample_scene(int(path.stem.removeprefix("scene-")), "held-out")
        with Image.open(path) as picture:
            assert np.array_equal(np.asarray(picture), np.asarray(draw(scene)))


def test_a_machine_without_gradio(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["demo", "--model", str(TINY)]) == 2
    assert "pip install 'florence-onnx[demo]'" in capsys.readouterr().err


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gradio")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["demo", "--model", str(TINY), "--port", port]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(("flag", "value"), [("--port", "65536"), ("--port", "-1"), ("--host", "")])
def test_wrong_addresses(flag: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--model", str(TINY), flag, value])
    assert ended.value.code == 2
    assert flag in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("asked", [None, "auto", "vision_encoder=fp32,*=fp32"])
def test_the_precision_that_was_asked_for_is_the_first(asked: str | None) -> None:
    flags = ["--precision", asked] if asked else []
    words = ["demo", "--model", str(TINY), "--threads", "1", *flags]
    models = open_models(build_parser().parse_args(words))
    mixed = (asked,) if asked and "=" in asked else ()
    assert models.precisions == (*mixed, "fp32")
    first = models.at(models.precisions[0])
    assert first.precision == "fp32"
    assert (models.at("fp32") is first) is (mixed == ())
