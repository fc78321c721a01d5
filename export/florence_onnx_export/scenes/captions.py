"""Sentences about a scene: each is a function of the scene, so each has one right wording."""

from collections.abc import Sequence

from florence_onnx_export.scenes.scene import Scene

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six")


def caption(scene: Scene) -> str:
    """Labels of all shapes from left to right: "A red circle and a blue star."."""
    return phrases_caption([shape.label for shape in scene.shapes])


def detailed_caption(scene: Scene) -> str:
    """Descriptions of all shapes from left to right."""
    return f"The image shows {_described(scene)}."


def more_detailed_caption(scene: Scene) -> str:
    """Writes how many shapes on what background, each of them, and the words."""
    count = len(scene.shapes)
    verb, noun = ("is", "shape") if count == 1 else ("are", "shapes")
    text = " and ".join(word.text for word in scene.words)
    return (
        f"There {verb} {_NUMBERS[count]} {noun} on a {scene.background} background: "
        f"{_described(scene)}. The text reads {text}."
    )


def phrases_caption(labels: Sequence[str]) -> str:
    """A sentence of labels: "A red circle, an orange square and a blue star."."""
    sentence = _listed([phrase(label) for label in labels])
    return f"{sentence[0].upper()}{sentence[1:]}."


def phrase(label: str) -> str:
    """A label with its article."""
    return f"an {label}" if label[0] in "aeiou" else f"a {label}"


def _described(scene: Scene) -> str:
    return _listed([phrase(shape.description) for shape in scene.shapes])


def _listed(parts: Sequence[str]) -> str:
    if len(parts) == 1:
        return parts[0]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
