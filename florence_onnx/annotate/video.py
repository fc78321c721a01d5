"""Frames of a video: decoded in one pass from its beginning, few of them in memory."""

import math
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from threading import Lock
from typing import Any

import numpy as np

from florence_onnx.errors import ImageError, InputError
from florence_onnx.files import open_regular
from florence_onnx.images.bitmap import write_bitmap
from florence_onnx.images.limits import check_file_size
from florence_onnx.packages import require_packages

VIDEOS = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"),
    *(".wmv", ".flv", ".3gp", ".ogv"),
)
"""Endings of the names of videos."""
_TIME = "#t="
_OPTIONS = {
    # Other formats are playlists, which name more files, or are no videos.
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,asf,flv,ogg",
    "protocol_whitelist": "none",
}
_KEPT = 32
"""Frames that are kept for threads that ask for them out of order."""
_PIXEL_BYTES = 30
"""Memory of a pixel: 1.5 bytes in each of 16 frames that a decoder may keep for those that follow,
and two copies in colour."""

Frame = Callable[[], bytes]
"""Function that gives a frame as the bytes of a picture file."""


def is_video(name: str) -> bool:
    """Tells whether a source is a video, by the name."""
    return name.lower().endswith(VIDEOS)


def frame_name(source: str, time: Fraction) -> str:
    """Makes the name of a frame: ``clip.mp4#t=1.5``."""
    return f"{source}{_TIME}{float(time)}"


def frame_time(path: str) -> Fraction | None:
    """Reads the time in the name of a frame, in seconds; None for other pictures."""
    source, mark, time = path.rpartition(_TIME)
    try:
        return Fraction(time) if mark and is_video(source) else None
    except (ValueError, ZeroDivisionError):
        return None


def find_frames(file: str, times: Iterable[Fraction]) -> Iterator[tuple[Fraction, Frame]]:
    """Finds the first frames at or after times, each frame once.

    Args:
        file: The video.
        times: Seconds from the first frame, ascending; may have no end.

    Raises:
        MissingDependencyError: PyAV is not installed.
        InputError: The file is no video that can be read.
        ImageError: The frames are too large.
        OSError: The file cannot be read.
    """
    require_packages(("av",), file, "video")
    stamps, unit = _stamps(file)
    chosen: dict[int, Fraction] = {}
    for time in times:
        index = bisect_left(stamps, stamps[0] + math.ceil(time / unit))
        if index == len(stamps):
            break
        chosen.setdefault(stamps[index], time)
    video = _Video(file, [*chosen])
    for stamp, time in chosen.items():
        yield time, partial(video.frame, stamp)


class _Video:
    """Video whose chosen frames are decoded in order, for callers in several threads."""

    def __init__(self, file: str, stamps: list[int]) -> None:
        self._file, self._stamps = file, stamps
        self._lock = Lock()
        self._frames: Iterator[tuple[int, bytes]] = iter(())
        self._kept: dict[int, bytes] = {}
        self._newest: int | None = None

    def frame(self, stamp: int) -> bytes:
        """Returns a frame, and forgets the frame.

        Raises:
            ImageError: The frame cannot be decoded.
            OSError: The file cannot be read.
        """
        with self._lock:
            if stamp not in self._kept and (self._newest is None or stamp <= self._newest):
                self._frames, self._newest = self._decoded(), None
            while stamp not in self._kept:
                self._newest, picture = next(self._frames, (stamp, None))
                if picture is None:
                    raise ImageError(f"{self._file} cannot be decoded up to this frame")
                self._kept[self._newest] = picture
                if len(self._kept) > _KEPT:
                    del self._kept[min(self._kept)]
            return self._kept.pop(stamp)

    def _decoded(self) -> Iterator[tuple[int, bytes]]:
        """Yields every chosen frame; for a damaged frame, the next frame."""
        from av.error import InvalidDataError

        waiting = iter(self._stamps)
        stamp = next(waiting, None)
        with _opened(self._file) as (container, stream):
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except InvalidDataError:
                    continue
                for frame in frames:
                    picture = None
                    while stamp is not None and frame.pts is not None and frame.pts >= stamp:
                        picture = picture or _picture(frame, self._file)
                        yield stamp, picture
                        stamp = next(waiting, None)
                    if stamp is None:
                        return


def _stamps(file: str) -> tuple["array[int]", Fraction]:
    """Reads the times of all frames, ascending, and the unit of the times in seconds."""
    with _opened(file) as (container, stream):
        _check_size(stream.codec_context.width, stream.codec_context.height, file)
        stamps = array(
            "q",
            (
                packet.pts
                for packet in container.demux(stream)
                if packet.pts is not None and not packet.is_discard
            ),
        )
        unit = stream.time_base
    if not stamps or not unit:
        raise InputError(f"{file} has no frames with times; convert it to an .mp4 file")
    return array("q", sorted(stamps)), Fraction(unit)


@contextmanager
def _opened(file: str) -> Iterator[tuple[Any, Any]]:
    import av

    with open_regular(file) as opened:
        try:
            with av.open(opened, options=_OPTIONS) as container:
                if not container.streams.video:
                    raise InputError(f"{file} has no pictures")
                yield container, container.streams.video[0]
        except av.error.FFmpegError as error:
            raise InputError(f"{file} is no video that can be read: {error}") from error


def _picture(frame: Any, file: str) -> bytes:
    _check_size(frame.width, frame.height, file)
    pixels = frame.to_ndarray(format="rgb24")
    return write_bitmap(np.rot90(pixels, round(frame.rotation / 90)))


def _check_size(width: int, height: int, file: str) -> None:
    check_file_size(width * height * _PIXEL_BYTES, f"{file}, decoded,")
