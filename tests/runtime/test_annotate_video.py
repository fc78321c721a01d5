"""Frames of videos as pictures of an annotation."""

import hashlib
import io
import json
import struct
from collections.abc import Iterator
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from florence_onnx.annotate import video
from florence_onnx.annotate.sources import find_items
from florence_onnx.cli.program import main
from florence_onnx.errors import FlorenceError, ImageError, InputError
from tests.helpers.tiny import TINY

av = pytest.importorskip("av")

FPS, FRAMES = 5, 16
WIDTH, HEIGHT = 66, 32  # A row of BMP ends with padding.


def film(path: Path, frames: int = FRAMES, turned: int = 0) -> Path:
    """A video whose frames are grey, each lighter than the one before, the upper half white."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"g": "4"}
        if turned:
            stream.set_display_rotation(turned)
        for number in range(frames):
            pixels = np.full((HEIGHT, WIDTH, 3), min(255, number * 15), np.uint8)
            pixels[: HEIGHT // 2] = 255
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def shades(path: Path, every: float) -> dict[str, int]:
    """The grey of every frame that is taken."""
    return {item.path: grey(item.read()) for item in find_items([str(path)], every)}


def grey(data: bytes) -> int:
    return int(np.asarray(Image.open(io.BytesIO(data)))[-1, -1, 0])


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "A.MOV", "a.mpg"])
def test_frames_at_an_interval(tmp_path: Path, name: str) -> None:
    path = film(tmp_path / name)
    found = shades(path, 1.0)
    assert [*found] == [f"{path}#t={second}.0" for second in range(4)]
    assert [*found.values()] == pytest.approx([0, 75, 150, 225], abs=4)
    assert [name.rpartition("=")[2] for name in shades(path, 0.4)] == [
        *("0.0", "0.4", "0.8", "1.2", "1.6", "2.0", "2.4", "2.8")
    ]


def test_no_frame_is_taken_twice(tmp_path: Path) -> None:
    assert len(shades(film(tmp_path / "a.mp4"), 0.01)) == FRAMES


def test_a_frame_is_a_picture_file(tmp_path: Path) -> None:
    item, *_ = find_items([str(film(tmp_path / "a.mp4"))])
    data = item.read()
    assert struct.unpack_from("<2sI", data) == (b"BM", len(data))
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert pixels[0].min() > 250
    assert pixels[-1].max() < 5


@pytest.mark.parametrize(("turned", "white"), [(90, (0, 0)), (270, (0, -1)), (180, (-1, 0))])
def test_a_turned_video_is_put_upright(tmp_path: Path, turned: int, white: tuple[int, int]) -> None:
    item, *_ = find_items([str(film(tmp_path / "a.mp4", turned=turned))])
    pixels = np.asarray(Image.open(io.BytesIO(item.read())))
    assert pixels.shape[:2] == ((HEIGHT, WIDTH) if turned == 180 else (WIDTH, HEIGHT))
    black = tuple(-1 - place for place in white)
    assert pixels[white][0] > 250
    assert pixels[black][0] < 5


def test_one_pass_and_few_frames_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order in which threads ask for frames near each other."""
    opened: list[str] = []
    begin = video._opened

    def counted(file: str) -> Any:
        opened.append(file)
        return begin(file)

    monkeypatch.setattr(video, "_opened", counted)
    items = find_items([str(film(tmp_path / "a.mp4", 60))], 1 / FPS)
    assert len(opened) == 1  # For the times of the frames.
    order = [number ^ 7 for number in range(56)]
    found = [grey(items[number].read()) for number in order]
    assert len(opened) == 2
    assert found == pytest.approx([min(255, number * 15) for number in order], abs=4)
    assert len(held(items[0].load)) <= video._KEPT
    assert grey(items[0].read()) < 5  # From the beginning again.
    assert len(opened) == 3
    assert grey(items[59].read()) > 250
    assert len(held(items[0].load)) <= video._KEPT


def held(frame: Any) -> dict[int, bytes]:
    kept: dict[int, bytes] = frame.func.__self__._kept
    return kept


def test_what_cannot_be_decoded_is_one_error(tmp_path: Path) -> None:
    """Of a video that is cut off, the frames before the cut are there."""
    path = film(tmp_path / "a.mkv", 60)
    items = find_items([str(path)], 1.0)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert grey(items[0].read()) < 5
    with pytest.raises(ImageError, match="cannot be decoded up to this frame"):
        items[-1].read()
    path.unlink()
    with pytest.raises(OSError, match=r"a\.mkv"):
        items[0].read()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no video that can be read"),
        (b"no video" * 99, "is no video that can be read"),
        (b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n", "is no video"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "is no video"),
    ],
)
def test_files_that_are_no_videos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    """Nor what names other files, wherever they are."""
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    command = ["annotate", str(path), "--task", "od", "--out", str(tmp_path / "out")]
    assert main([*command, "--model", str(TINY)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err


def test_a_video_that_cannot_be_read_is_an_error_among_others(tmp_path: Path) -> None:
    film(tmp_path / "a.mp4")
    (tmp_path / "b.mp4").write_bytes((tmp_path / "a.mp4").read_bytes()[:40])
    items = find_items([str(tmp_path / "*.mp4")])
    assert [item.error is None for item in items] == [True] * (len(items) - 1) + [False]
    assert len(items) > 1
    with pytest.raises(InputError, match=r"b\.mp4 is no video that can be read"):
        items[-1].read()


def test_frames_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = film(tmp_path / "a.mp4")
    monkeypatch.setattr(video, "_PIXEL_BYTES", 1 << 20)
    with pytest.raises(ImageError, match="above the limit"):
        find_items([str(path)])


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = film(tmp_path / "a.mp4")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FlorenceError, match=r"needs av; run pip install 'florence-onnx\[video\]'"):
        find_items([str(path)])


@pytest.fixture
def annotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The annotations of a video of more than ten frames, so that names are not in order."""
    monkeypatch.chdir(tmp_path)
    film(tmp_path / "a.mp4", 60)
    command = ["annotate", "a.mp4", "--task", "od", "--out", "out", "--model", str(TINY)]
    command += ["--threads", "1", "--max-new-tokens", "4"]
    assert main([*command, "--limit", "5"]) == 0
    assert main(command) == 0
    yield Path("out/annotations.jsonl")


def test_an_annotation_goes_on_and_is_converted(
    annotated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [json.loads(line) for line in annotated.read_text().splitlines()]
    names = [f"a.mp4#t={second}.0" for second in range(12)]
    assert [line["path"] for line in lines] == names
    assert all(line["size"] == [WIDTH, HEIGHT] for line in lines)
    restarts: list[None] = []
    decoded = video._Video._decoded

    def counted(self: video._Video) -> Any:
        restarts.append(None)
        return decoded(self)

    monkeypatch.setattr(video._Video, "_decoded", counted)
    for to in ("yolo", "labelme", "coco"):
        assert main(["convert", str(annotated), "--to", to, "--out", to]) == 0
    assert len(restarts) == 2
    for line, name in zip(lines, names, strict=True):
        data = (tmp_path / f"yolo/images/train/{name}.bmp").read_bytes()
        assert hashlib.sha256(data).hexdigest() == line["hash"]
        assert (tmp_path / f"yolo/labels/train/{name}.txt").is_file()
        shown = json.loads((tmp_path / f"labelme/{name}.json").read_text())
        assert shown["imagePath"] == f"{name}.bmp"
        assert shown["imageData"]
    images = json.loads((tmp_path / "coco").read_text())["images"]
    assert [image["file_name"] for image in images] == names


def test_times_are_exact(tmp_path: Path) -> None:
    """A third of a second is not rounded to the frame before."""
    path = film(tmp_path / "a.mp4")
    times = [time for time, _ in video.find_frames(str(path), (Fraction(k, 5) for k in count()))]
    assert times == [Fraction(k, 5) for k in range(FRAMES)]
    assert video.frame_time(video.frame_name("a.mp4", Fraction(3, 10))) == Fraction(3, 10)
    assert video.frame_time("a.mp4#t=x") is None
    assert video.frame_time("a.png#t=1.0") is None
