"""The committed tiny model: opened, copied, counted, and run in processes of its own."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

import florence_onnx
from florence_onnx import Florence2, Request, Task
from florence_onnx.assets.report import REPORT
from florence_onnx.engine import contract
from florence_onnx.tasks import InputKind

TINY = Path(__file__).parents[1] / "fixtures" / "tiny"
"""A model folder with random weights: 64x64 pictures, 160 positions, 3 beams."""

TEXT = "a green car"
REGION = (3.0, 5.0, 20.0, 17.5)
"""Fits pictures of at least 20x18 pixels."""


def copy_tiny(folder: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(TINY, folder / "tiny"))


def aged(folder: Path) -> Path:
    """Gives the decoders of a model folder the name that exports once gave them, in its report too.

    A graph with weights beside it can be opened no longer.
    """
    new, old = contract.DECODER, "decoder_with_past_model"
    for path in [*folder.glob(f"onnx/{new}*")]:
        path.rename(path.with_name(path.name.replace(new, old)))
    report = folder / REPORT
    if report.exists():
        report.write_text(report.read_text(encoding="utf-8").replace(new, old), encoding="utf-8")
    return folder


def change_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrites a JSON file after ``change`` has had its content."""
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def config_entry(session: Any, name: str) -> str | None:
    """An entry of the options that a session was opened with."""
    try:
        found: str = session.get_session_options().get_session_config_entry(name)
    except RuntimeError:  # There is none.
        return None
    return found


def picture(seed: int, height: int = 24, width: int = 32) -> npt.NDArray[np.uint8]:
    """Coarse random blocks, which look different from each other at any size."""
    blocks = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return blocks.repeat(-(-height // 3), 0).repeat(-(-width // 4), 1)[:height, :width]


def input_of(task: Task) -> dict[str, Any]:
    """Some valid input for a task, by the name of the argument that takes it."""
    inputs: dict[InputKind, dict[str, Any]] = {
        InputKind.NONE: {},
        InputKind.TEXT: {"text": TEXT},
        InputKind.REGION: {"region": REGION},
    }
    return inputs[task.input_kind]


def mixed_requests() -> list[Request]:
    """All tasks and a fine-tune's prompt, on pictures of different sizes, some of them twice."""
    pictures = [picture(0), picture(1, 64, 64), picture(2, 18, 90), picture(3, 120, 21)]
    requests: list[Request] = [
        Request(pictures[i % len(pictures)], task, **input_of(task)) for i, task in enumerate(Task)
    ]
    return [*requests, Request(pictures[0], prompt="<DefectVQA>Is anything broken?")]


def varied_end(model: Florence2, requests: Sequence[Request], **generation: Any) -> dict[str, Any]:
    """Generation options that make the answers end early, at different lengths.

    Random weights seldom generate ``</s>``, so another token is taken for the end: of a few that
    occur in many answers, the one that gives the most lengths.
    """
    generation |= {"forced_eos_token_id": None}
    answers = [result.token_ids[2:] for result in model.run(requests, **generation)]
    occurrences = Counter(token for answer in answers for token in set(answer))
    tokens = [token for token, _ in occurrences.most_common(12) if token != 0]

    def lengths(token: int) -> int:
        results = model.run(requests, **generation, eos_token_id=token)
        return len({len(result.token_ids) for result in results})

    return generation | {"eos_token_id": max(tokens, key=lengths)}


def plain_logits(
    model: Florence2,
    attention_mask: npt.NDArray[np.int64],
    inputs_embeds: npt.NDArray[np.float32],
    token_ids: Sequence[int],
) -> npt.NDArray[np.float32]:
    """Logits [T,V] after each token of one request [1,S], which is alone in its batch."""
    step, row = model.graphs.decoder.start(attention_mask, inputs_embeds), np.zeros(1, np.int64)
    return np.concatenate([step(np.array([token]), row, row).logits() for token in token_ids])


class Counted:
    """A session that notes the shapes it is fed; everything else is the session's."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.calls = 0
        self.rows = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, names: Any, feeds: Any) -> Any:
        self.calls += 1
        self.rows += len(next(iter(feeds.values())))
        return self._session.run(names, feeds)

    def run_with_iobinding(self, binding: Any) -> None:
        self.calls += 1
        self._session.run_with_iobinding(binding)


def counted(model: Florence2) -> Florence2:
    """The same model with every session counted."""
    sessions: dict[str, Any] = {
        name: Counted(session) for name, session in model.graphs.sessions.items()
    }
    return Florence2(model.assets, replace(model.graphs, sessions=sessions))


def without_notes(stderr: str) -> list[str]:
    """The lines of stderr, less what ``run`` says of each answer that the length's limit cut."""
    return [line for line in stderr.splitlines() if not line.endswith(" cut the answer")]


def run_python(
    *arguments: str, env: dict[str, str] | None = None, stdout: int | IO[bytes] = subprocess.PIPE
) -> "subprocess.CompletedProcess[str]":
    """Runs the Python of the tests with this package importable."""
    package = Path(florence_onnx.__file__).parents[1]
    search = {"PYTHONPATH": os.pathsep.join([str(package), str(package / "export")])}
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **search, **(env or {})},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
