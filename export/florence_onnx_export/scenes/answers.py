"""Questions of all 15 tasks about a scene, with the right answers as the model writes answers."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from florence_onnx.locations import to_bins, to_text
from florence_onnx.prompts import build_prompt
from florence_onnx.tasks import Task
from florence_onnx_export.scenes import captions
from florence_onnx_export.scenes.scene import Box, Scene, Shape


@dataclass(frozen=True)
class Question:
    """Question about a scene, and the right answer."""

    task: Task
    """Task."""
    text: str | None
    """Text to look for, for tasks that take text; else None."""
    region: Box | None
    """Region x1, y1, x2, y2 in pixels, for tasks that take a region; else None."""
    prompt: str
    """Prompt, as the model reads it."""
    answer: str
    """Text that the model should generate, location tokens included."""


def ask(scene: Scene, task: Task, rng: np.random.Generator) -> Question:
    """Makes a question of a task about a scene; ``rng`` chooses the text or region."""
    size = (scene.width, scene.height)
    text: str | None = None
    region: Box | None = None
    if task is Task.CAPTION_TO_PHRASE_GROUNDING:
        text, answer = _grounding(scene, rng)
    elif task is Task.OPEN_VOCABULARY_DETECTION:
        text, answer = _open_vocabulary(scene, rng)
    elif task is Task.REFERRING_EXPRESSION_SEGMENTATION:
        shape = _unique_shape(scene, rng)
        text, answer = f"the {shape.label}", _places(shape.outline, scene)
    elif task is Task.REGION_TO_OCR:
        word = scene.words[int(rng.integers(len(scene.words)))]
        region, answer = word.box, word.text
    elif task in _OF_REGION:
        shape = scene.shapes[int(rng.integers(len(scene.shapes)))]
        region, answer = shape.box, _OF_REGION[task](shape, scene)
    else:
        answer = _OF_PICTURE[task](scene)
    region = region and _within(region, scene)
    return Question(task, text, region, build_prompt(task, text, region, size), answer)


def fixed_question(scene: Scene, task: Task) -> Question:
    """Makes the question of a task that every measurement asks about a scene."""
    return ask(scene, task, np.random.default_rng((*scene.seed, 2)))


def _places(points: Iterable[Iterable[float]], scene: Scene) -> str:
    """Turns points in pixels into location tokens."""
    flat = [value for point in points for value in point]
    return to_text(to_bins(flat, (scene.width, scene.height)))


def _within(box: Box, scene: Scene) -> Box:
    x1, y1, x2, y2 = box
    return max(x1, 0.0), max(y1, 0.0), min(x2, float(scene.width)), min(y2, float(scene.height))


def _boxes_of(shapes: Iterable[Shape], scene: Scene) -> str:
    return "".join(_places([shape.box], scene) for shape in shapes)


def _grouped(scene: Scene, labels: Iterable[str]) -> str:
    """Writes each label with all of its boxes behind, as Florence-2 does."""
    groups: dict[str, list[Shape]] = {}
    for label, shape in zip(labels, scene.shapes, strict=True):
        groups.setdefault(label, []).append(shape)
    return "".join(label + _boxes_of(shapes, scene) for label, shapes in groups.items())


def _detection(scene: Scene) -> str:
    return _grouped(scene, (shape.label for shape in scene.shapes))


def _dense_captions(scene: Scene) -> str:
    return _grouped(scene, (shape.description for shape in scene.shapes))


def _proposals(scene: Scene) -> str:
    return _boxes_of(scene.shapes, scene)


def _text(scene: Scene) -> str:
    return " ".join(word.text for word in scene.words)


def _text_with_regions(scene: Scene) -> str:
    return "".join(word.text + _places(word.quad, scene) for word in scene.words)


def _grounding(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """Makes a caption of one to three labels; the answer is every phrase with its boxes."""
    labels = list(dict.fromkeys(shape.label for shape in scene.shapes))
    count = int(rng.integers(1, min(3, len(labels)) + 1))
    chosen = [labels[i] for i in sorted(rng.permutation(len(labels))[:count])]
    parts = []
    for place, label in enumerate(chosen):
        phrase = captions.phrase(label)
        found = [shape for shape in scene.shapes if shape.label == label]
        parts.append((phrase if place else phrase.capitalize()) + _boxes_of(found, scene))
    return captions.phrases_caption(chosen), "".join(parts)


def _open_vocabulary(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """Chooses a label or a kind of shape; the answer repeats this text before each box."""
    wanted = scene.shapes[int(rng.integers(len(scene.shapes)))]
    name = wanted.label if rng.random() < 0.5 else wanted.kind
    found = [shape for shape in scene.shapes if name in (shape.label, shape.kind)]
    return name, "".join(name + _boxes_of([shape], scene) for shape in found)


def _unique_shape(scene: Scene, rng: np.random.Generator) -> Shape:
    labels = [shape.label for shape in scene.shapes]
    unique = [shape for shape in scene.shapes if labels.count(shape.label) == 1]
    return unique[int(rng.integers(len(unique)))]


_OF_PICTURE = {
    Task.CAPTION: captions.caption,
    Task.DETAILED_CAPTION: captions.detailed_caption,
    Task.MORE_DETAILED_CAPTION: captions.more_detailed_caption,
    Task.OD: _detection,
    Task.DENSE_REGION_CAPTION: _dense_captions,
    Task.REGION_PROPOSAL: _proposals,
    Task.OCR: _text,
    Task.OCR_WITH_REGION: _text_with_regions,
}

_OF_REGION = {
    Task.REGION_TO_CATEGORY: lambda shape, scene: shape.label,
    Task.REGION_TO_DESCRIPTION: lambda shape, scene: shape.description,
    Task.REGION_TO_SEGMENTATION: lambda shape, scene: _places(shape.outline, scene),
}
