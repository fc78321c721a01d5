"""An annotation that is killed again and again loses nothing and tears nothing."""

import json
from pathlib import Path

from PIL import Image

from tests.helpers.kills import posix
from tests.helpers.tiny import TINY, picture, run_python

KILLS = 50
PROGRAM = """
import os, random, signal, sys

from florence_onnx.annotate.pipeline import Annotation
from florence_onnx.cli.program import main

kills, command = int(sys.argv[1]), sys.argv[2:]
run, write = Annotation.run, os.write

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def kill_in_a_call(count):
    # Python calls of the thread that writes, from when it begins to ask.
    def count_down(frame, event, argument):
        nonlocal count
        count -= 1
        if count == 0:
            kill()
    def running(self, items):
        sys.setprofile(count_down)
        return run(self, items)
    Annotation.run = running

def kill_in_a_write(count, chance):
    def writing(file, data):
        nonlocal count
        count -= 1
        if count == 0:
            write(file, data[: chance.randrange(len(data) + 1)])
            kill()
        return write(file, data)
    os.write = writing

def end(status):
    sys.stdout.flush()
    os._exit(status)

for number in range(kills):
    child = os.fork()
    if child == 0:
        chance = random.Random(number)
        if number % 2:
            kill_in_a_call(chance.randrange(1, 4000))
        else:
            kill_in_a_write(chance.randrange(1, 6), chance)
        end(main(command))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != -signal.SIGKILL:
        sys.exit(f"run {number} ended with {status}")
sys.exit(main(command))
"""


@posix
def test_the_union_of_many_killed_runs_is_an_uninterrupted_run(tmp_path: Path) -> None:
    """Killed in a call of the pipeline, or in a write of which a part is on the disk."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(80):
        Image.fromarray(picture(seed)).save(photos / f"{seed}.png")
    arguments = ["annotate", str(photos), "--task", "od", "caption", "--model", str(TINY)]
    arguments += ["--threads", "1", "--max-new-tokens", "4", "--batch-size", "2", "--json"]
    found = {}
    for name, kills in (("whole", 0), ("killed", KILLS)):
        out = tmp_path / name
        result = run_python("-c", PROGRAM, str(kills), *arguments, "--out", str(out))
        assert result.returncode == 0, result.stderr
        lines = (out / "annotations.jsonl").read_text(encoding="utf-8").splitlines()
        found[name] = [json.loads(line) | {"seconds": 0} for line in lines]
        assert (out / "errors.jsonl").read_bytes() == b""
    assert json.loads(result.stdout)["answers"] > 0, "all was there before the last kill"
    assert json.loads(result.stdout)["skipped"] > 5, "the killed runs have answered next to nothing"
    assert "the last line was torn" in result.stderr
    key = ("path", "task")
    for lines_found in found.values():
        lines_found.sort(key=lambda line: [line[name] for name in key])
    assert found["killed"] == found["whole"]
