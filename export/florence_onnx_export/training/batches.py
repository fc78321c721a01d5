"""Batches of (picture, prompt, answer), from drawn scenes or from examples of the user."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from florence_onnx.images.pixels import to_rgb
from florence_onnx.prompts import build_prompt
from florence_onnx.tasks import InputKind, Task
from florence_onnx_export.scenes.answers import ask
from florence_onnx_export.scenes.scene import Scene, sample_scene
from florence_onnx_export.training.cache import squashed
from florence_onnx_export.training.config import Scratch
from florence_onnx_export.training.dense import DenseTargets, dense_targets


@dataclass(frozen=True)
class Batch:
    """Pictures and the questions about them."""

    pictures: NDArray[np.uint8]
    """uint8 [pictures, size, size, 3]."""
    questions: tuple[tuple[int, str, str], ...]
    """Questions of a batch: (index of the picture, prompt, answer)."""
    dense: tuple[DenseTargets, ...]
    """Targets, one per picture, for drawn scenes; empty for examples of the user."""


class Source(Protocol):
    """Source of batches. The same step always gives the same batch."""

    def batch(self, step: int) -> Batch:
        """Batch of a step."""
        ...


class SceneSource:
    """Source of drawn scenes and questions about the scenes."""

    def __init__(self, scratch: Scratch, pictures: NDArray[np.uint8], seed: int) -> None:
        """Takes the pictures of the training scenes, in the order of the seeds."""
        self._scratch = scratch
        self._pictures = pictures
        self._seed = seed

    def batch(self, step: int) -> Batch:
        """Batch of a step."""
        rng = np.random.default_rng((self._seed, step))
        stage = self._scratch.stage(step)
        scenes: list[Scene] = []
        while len(scenes) < stage.batch_size:
            scene = sample_scene(int(rng.integers(len(self._pictures))))
            if len(scene.shapes) <= stage.most_shapes:
                scenes.append(scene)
        names, weights = list(stage.task_weights), np.array(list(stage.task_weights.values()))
        questions = []
        for index, scene in enumerate(scenes if stage.questions else []):
            odds = weights / weights.sum()
            for name in rng.choice(names, stage.questions, replace=False, p=odds):
                question = ask(scene, Task.parse(str(name)), rng)
                questions.append((index, question.prompt, question.answer))
        dense = tuple(dense_targets(scene, self._scratch.grid) for scene in scenes)
        pictures = self._pictures[[scene.seed[1] for scene in scenes]]
        return Batch(pictures, tuple(questions), dense)


@dataclass(frozen=True)
class Example:
    """Example of the user."""

    image: Path
    """Picture file."""
    prompt: str
    """Prompt, as the model reads it."""
    answer: str
    """Text that the model is to generate."""


class ExampleSource:
    """Batches of the user's examples, from `read_examples`."""

    def __init__(self, examples: Sequence[Example], size: int, batch_size: int, seed: int) -> None:
        """Stores the examples. A picture is opened when a batch needs the picture."""
        self._examples = examples
        self._size = size
        self._batch_size = batch_size
        self._order = _Order(len(self._examples), batch_size, seed)

    def batch(self, step: int) -> Batch:
        """Batch of a step."""
        return self._batch([self._examples[index] for index in self._order.indices(step)])

    def once(self) -> Iterator[Batch]:
        """Yields batches of all examples, in the order of the file."""
        for start in range(0, len(self._examples), self._batch_size):
            yield self._batch(self._examples[start : start + self._batch_size])

    def _batch(self, examples: Sequence[Example]) -> Batch:
        pictures = [
            squashed(Image.fromarray(to_rgb(example.image)), self._size) for example in examples
        ]
        questions = tuple((i, one.prompt, one.answer) for i, one in enumerate(examples))
        return Batch(np.stack(pictures), questions, dense=())


class _Order:
    """Order of the items in batches: every item once, then every item again in another order."""

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self.seed = seed
        self._count = count
        self._batch_size = batch_size
        self._shuffled = lru_cache(maxsize=2)(self._shuffle)

    def indices(self, step: int) -> list[int]:
        places = range(step * self._batch_size, (step + 1) * self._batch_size)
        return [int(self._shuffled(place // self._count)[place % self._count]) for place in places]

    def _shuffle(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng((self.seed, epoch, 7)).permutation(self._count)


def expand_prompt(prompt: str) -> str:
    """Turns a prompt with a task's tag into the model's prompt; any other prompt stays."""
    for task in Task:
        if prompt.startswith(task.value):
            given = prompt.removeprefix(task.value).strip() or None
            if task.input_kind is InputKind.REGION:
                return build_prompt(task, region=given)
            return build_prompt(task, given)
    return prompt
