"""Reads pictures, each in a process of its own, and prints how much memory that took at most.

Run as a script with the pictures' paths; prints a JSON list of [bytes, error or ""] per picture.
"""

import json
import os
import sys
import warnings
from pathlib import Path

from florence_onnx.errors import ImageError
from florence_onnx.images.pixels import to_rgb


def resident(field: str) -> int:
    """A size of this process by its name in Linux, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(field)


def read(path: str) -> tuple[int, str]:
    """The growth of the process until now, and why the picture could not be read."""
    before = resident("VmRSS")
    try:
        to_rgb(path)
    except ImageError as error:
        return resident("VmHWM") - before, str(error)
    return resident("VmHWM") - before, ""


def main(paths: list[str]) -> None:
    """Reads each picture in a fork, whose peak starts at the memory it has."""
    warnings.simplefilter("ignore")
    from PIL import Image

    Image.init()
    found = []
    for path in paths:
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.write(writing, json.dumps(read(path)).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as file:
            found.append(json.load(file))
        os.waitpid(child, 0)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
