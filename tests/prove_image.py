"""Builds an image of docs/docker without an engine, and starts the image.

    debootstrap --variant=minbase --include=python3-venv trixie BASE
    python -m tests.prove_image BASE docs/docker/Dockerfile

BASE stands for the base image: a folder with a Debian system in which ``python`` and its module
venv are there, and no docs, manuals and translations, as in Debian's slim images. Every FROM makes
a copy of BASE, every other step runs in the copy by chroot, which takes Linux and root. At the end
the service runs as the user of the image on a read-only file system, and answers a request.
Settings of pip in the environment hold in the copies too.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.helpers.service import asking

ROOT = Path(__file__).parents[1]
URL = "http://127.0.0.1:8000/v1/answer"
SECONDS = 60


@dataclass
class Image:
    """Image in a folder, with the settings that steps have made."""

    root: Path
    variables: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "0"
    entrypoint: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)

    def command(self, *arguments: str) -> list[str]:
        """Makes the command line that runs a command in the image."""
        chroot = ["chroot", f"--userspec={self.user}:{self.user}", str(self.root)]
        given = [f"{name}={value}" for name, value in self.variables.items()]
        return [*chroot, "/usr/bin/env", "-i", f"--chdir={self.workdir}", *given, *arguments]

    def size(self) -> int:
        """Sums the bytes of all files; hard links count once."""
        found = (os.lstat(path) for path in self.root.rglob("*") if path.is_file())
        return sum({(one.st_dev, one.st_ino): one.st_size for one in found}.values())


def steps(text: str) -> Iterator[tuple[str, str]]:
    """Reads a Dockerfile: instructions with their text."""
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    for line in "\n".join(lines).replace("\\\n", "").splitlines():
        instruction, _, rest = line.partition(" ")
        yield instruction, rest.strip()


def build(base: Path, dockerfile: Path, work: Path) -> Image:
    """Runs the steps of a Dockerfile."""
    of_pip = {key: value for key, value in os.environ.items() if key.startswith("PIP_")}
    image = below = Image(base, {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", **of_pip})
    images: dict[str, Image] = {}
    for instruction, text in steps(dockerfile.read_text(encoding="utf-8")):
        print(instruction, text, flush=True)
        if instruction == "FROM":
            source, _, name = text.partition(" AS ")
            stage = images.get(source, below)
            image = Image(work / (name or "last"), dict(stage.variables))
            subprocess.run(["cp", "-a", str(stage.root), str(image.root)], check=True)
            images[name] = image
        else:
            _run(image, images, instruction, text)
    return image


def _run(image: Image, images: dict[str, Image], instruction: str, text: str) -> None:
    if instruction == "RUN":
        subprocess.run(image.command("/bin/bash", "-o", "pipefail", "-c", text), check=True)
    elif instruction == "COPY":
        _copy(image, images, text)
    elif instruction == "WORKDIR":
        (image.root / text.lstrip("/")).mkdir(parents=True, exist_ok=True)
        image.workdir = text
    elif instruction in ("ENV", "ARG"):
        for name, value in (word.split("=", 1) for word in shlex.split(text)):
            image.variables[name] = re.sub(
                r"\$(\w+)", lambda found: image.variables.get(found[1], ""), value
            )
    elif instruction == "USER":
        image.user = text
    elif instruction in ("ENTRYPOINT", "CMD"):
        name = "entrypoint" if instruction == "ENTRYPOINT" else "arguments"
        setattr(image, name, json.loads(text))
    elif instruction not in ("SHELL", "EXPOSE", "HEALTHCHECK"):
        raise SystemExit(f"{instruction} is not known here")


def _copy(image: Image, images: dict[str, Image], text: str) -> None:
    *sources, target = text.split()
    origin = images[sources.pop(0)[7:]].root if text.startswith("--from=") else ROOT
    for source in sources:
        path = origin / source.lstrip("/")
        into = image.root / image.workdir.lstrip("/") / target
        if target.startswith("/"):
            into = image.root / target.lstrip("/")
        if path.is_dir():
            shutil.copytree(path, into, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy(path, into / path.name if into.is_dir() else into)


def start(image: Image) -> "subprocess.Popen[bytes]":
    """Starts the image with the demo model on a read-only file system, with /tmp in memory."""
    command = image.command(*image.entrypoint, *image.arguments, "--model", "demo")
    root = shlex.quote(str(image.root))
    mounts = (
        f"mount --bind {root} {root} && mount -o remount,ro,bind {root} "
        f"&& cd {root} && mount -t tmpfs tmpfs tmp && mount -t proc proc proc "
        f"&& exec {shlex.join(command)}"
    )
    return subprocess.Popen(["unshare", "--mount", "bash", "-c", mounts])


def ask() -> dict[str, Any]:
    """Asks the service, which may still be starting."""
    end = time.monotonic() + SECONDS
    body = json.dumps(asking()).encode()
    while True:
        request = urllib.request.Request(URL, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
                found: dict[str, Any] = json.load(answer)
                return found
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def main(base: Path, dockerfile: Path) -> None:
    """Builds, starts, asks, and prints sizes."""
    with tempfile.TemporaryDirectory() as folder:
        image = build(base, dockerfile, Path(folder))
        process = start(image)
        try:
            print(ask()["task"], "answered")
        finally:
            process.terminate()
            print("end with status", process.wait(SECONDS))
        whole, below = (one.size() / 1e6 for one in (image, Image(base)))
        print(f"{whole:.0f} MB, of which {below:.0f} MB are the base image")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
