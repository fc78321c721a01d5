"""The commands and requests of docs/serving.md are answered as they stand."""

import argparse
import json
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path

from florence_onnx.cli import serve
from tests.helpers.pages import blocks, commands, page
from tests.helpers.service import encoded, png, process, until
from tests.runtime.serving.test_process import get

PAGE = page("serving.md")


def test_the_commands_and_the_request_are_answered(tmp_path: Path) -> None:
    start, ask = commands(PAGE)[:2]
    assert start[:2] == ["florence-onnx", "serve"]
    (tmp_path / "photo.jpg").write_bytes(png(3))
    with process(*start[2:]) as served:
        until(lambda: get(f"{served.url}/readyz") == 200)
        (body,) = blocks(PAGE, "json")
        asked = {**json.loads(body), "image": encoded(png(3))}
        request = urllib.request.Request(  # noqa: S310
            f"{served.url}/v1/answer",
            json.dumps(asked).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            tasks = [one["task"] for one in json.load(answer)["answers"]]
        assert tasks == ["<OD>", "<CAPTION_TO_PHRASE_GROUNDING>"]
        if shutil.which(ask[0]):
            words = [word.replace("http://127.0.0.1:8000", served.url) for word in ask]
            out = subprocess.run(words, cwd=tmp_path, capture_output=True, check=True, timeout=60)
            assert json.loads(out.stdout)["task"] == "<OD>"


def test_the_flags_are_those_of_the_command() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    serve.add_arguments(parser)
    flags = parser.get_default("flags")
    defaults = {option: flag.default for flag in flags for option in flag.action.option_strings}
    text = re.sub(r"^```.*?^```", "", PAGE, flags=re.DOTALL | re.MULTILINE)
    of_others = {"--help", "--build-arg", "--gpus", "--folder", "--form-string"}
    named = {*re.findall(r"`(--[a-z-]+)", text)} - of_others
    assert len(named) > 8
    assert named <= defaults.keys()
    for flag, default in re.findall(r"^\| `(--[a-z-]+)` \| (\d+) \|", PAGE, re.MULTILINE):
        assert defaults[flag] == int(default), flag
