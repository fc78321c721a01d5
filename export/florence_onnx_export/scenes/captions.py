"""Captions of a scene, each a function of the scene, so that there is one right caption."""

from collections.abc import Sequence

from florence_onnx_export.scenes.scene import Scene

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six")


def caption(scene: Scene) -> str:
    """Names the labels of all shapes from left to right: "A red circle and a blue star."."""
    return phrases_caption([shape.label for shape in scene.shapes])


def detailed_caption(scene: Scene) -> str:
    """Describes all shapes from left to right."""
    return f"The image shows {_described(scene)}."


def more_detailed_caption(scene: Scene) -> str:
    """Tells the number of shapes, the background, a description of each shape, and the words."""
    count = len(scene.shapes)
    verb, noun = ("is", "shape") if count == 1 else ("are", "shapes")
    text = " and ".join(word.text for word in scene.words)
    return (
        f"There {verb} {_NUMBERS[count]} {noun} on a {scene.background} background: "
        f"{_described(scene)}. The text reads {text}."
    )


def phrases_caption(labels: Sequence[str]) -> str:
    """Makes a sentence of labels: "A red circle, an orange square and a blue star."."""
    sentence = _listed([phrase(label) for label in labels])
    return f"{sentence[0].upper()}{sentence[1:]}."


def phrase(label: str) -> str:
    """Puts the article before a label."""
    return f"an {label}" if label[0] in "aeiou" else f"a {label}"


def _described(scene: Scene) -> str:
    return _listed([phrase(shape.description) for shape in scene.shapes])


def _listed(parts: Sequence[str]) -> str:
    if len(parts) == 1:
        return parts[0]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
