"""Auxiliary head on the image tokens, which predicts the thing under each token and its corners.

The head exists during training only and is not part of the model. With the head every image token
has a target, so the vision encoder learns long before the decoder's answers are of any use.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from florence_onnx.locations import to_bins
from florence_onnx_export.scenes.scene import Box, Scene, Shape, Word
from florence_onnx_export.scenes.shapes import BACKGROUNDS, COLOURS, OUTLINES, WORDS
from florence_onnx_export.training.losses import location_loss

_COLOURS, _KINDS = list(COLOURS), list(OUTLINES)
_IGNORED = -100
_CENTRAL = 0.3
"""Largest distance of a cell's centre from a box's centre, in sides of the box, at which the cell
describes the box."""
_CLASSES = {
    "colour": len(COLOURS),
    "kind": len(OUTLINES),
    "large": 2,
    "striped": 2,
    "word": len(WORDS),
}
_PLACES = {"box": 4, "quad": 8}
_CENTRES = ("shape_centre", "word_centre")


@dataclass(frozen=True)
class DenseTargets:
    """Targets for the cells of a picture's image grid, row by row."""

    centres: dict[str, NDArray[np.float32]]
    """Centres [cells]: 1 where the centre of a shape or word is in the cell."""
    classes: dict[str, NDArray[np.int64]]
    """Classes [cells] of the things that cover the cells; -100 where no thing covers a cell."""
    places: dict[str, NDArray[np.int64]]
    """Location bins [cells, 4 or 8] of the corners of the thing that covers the cell, or -100."""
    background: int
    """Index into `BACKGROUNDS`."""


class DenseHead(nn.Module):
    """Head of two layers, from an image token to all fields of `DenseTargets`.

    The head expresses corners by the model's own embeddings of location tokens. So image tokens
    learn places in the form in which the decoder has to generate places.
    """

    def __init__(self, width: int):
        super().__init__()
        self._sizes = {**dict.fromkeys(_CENTRES, 1), **_CLASSES}
        self.hidden = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU())
        self.cells = nn.Linear(2 * width, sum(self._sizes.values()))
        self.places = nn.ModuleDict(
            {name: nn.Linear(2 * width, count * width) for name, count in _PLACES.items()}
        )
        self.picture = nn.Linear(width, len(BACKGROUNDS))

    def loss(
        self,
        image_features: torch.Tensor,
        targets: Sequence[DenseTargets],
        locations: torch.Tensor,
        sigma: float,
    ) -> torch.Tensor:
        """Sum of the mean losses of centres, classes, corners and the background.

        Args:
            image_features: [pictures, 1 + cells, width], the pooled token first.
            targets: One per picture.
            locations: Embeddings of the location tokens, [1000, width].
            sigma: Width of the corners' targets in bins.
        """
        device = image_features.device
        hidden = self.hidden(image_features[:, 1:])
        split = self.cells(hidden).split(list(self._sizes.values()), dim=-1)
        outputs = dict(zip(self._sizes, split, strict=True))
        background = torch.tensor([target.background for target in targets], device=device)
        loss = functional.cross_entropy(self.picture(image_features[:, 0]), background)
        for name in _CENTRES:
            wanted = _stacked([target.centres[name] for target in targets], device)
            loss = loss + 10 * functional.binary_cross_entropy_with_logits(
                outputs[name][..., 0], wanted
            )
        for name in _CLASSES:
            classes = _stacked([target.classes[name] for target in targets], device)
            loss = loss + functional.cross_entropy(
                outputs[name].flatten(0, 1), classes.flatten(), ignore_index=_IGNORED
            )
        for name, head in self.places.items():
            bins = _stacked([target.places[name] for target in targets], device)
            known = bins[..., 0] != _IGNORED
            queries = head(hidden[known]).unflatten(-1, (_PLACES[name], -1)).flatten(0, 1)
            log_p = (queries @ locations.T).log_softmax(dim=-1)
            loss = loss + location_loss(log_p, bins[known].flatten(), sigma) / len(log_p)
        return loss


def dense_targets(scene: Scene, grid: int) -> DenseTargets:
    """Returns the targets of a scene on grid x grid image tokens."""
    cells = grid * grid
    targets = DenseTargets(
        centres={name: np.zeros(cells, np.float32) for name in _CENTRES},
        classes={name: np.full(cells, _IGNORED, np.int64) for name in _CLASSES},
        places={name: np.full((cells, n), _IGNORED, np.int64) for name, n in _PLACES.items()},
        background=BACKGROUNDS.index(scene.background),
    )
    middles = (np.indices((grid, grid)).reshape(2, cells).T[:, ::-1] + 0.5) / grid
    size = (scene.width, scene.height)
    for index in scene.depth:
        _mark_shape(targets, scene.shapes[index], middles, size)
    for word in scene.words:
        _mark_word(targets, word, middles, size)
    return targets


def _mark_shape(
    targets: DenseTargets, shape: Shape, middles: NDArray[np.float64], size: tuple[int, int]
) -> None:
    centre, covered = _cells_of(shape.box, middles, size)
    targets.centres["shape_centre"][centre] = 1
    targets.classes["colour"][covered] = _COLOURS.index(shape.colour)
    targets.classes["kind"][covered] = _KINDS.index(shape.kind)
    targets.classes["large"][covered] = shape.large
    targets.classes["striped"][covered] = shape.striped
    targets.places["box"][covered] = to_bins(shape.box, size)


def _mark_word(
    targets: DenseTargets, word: Word, middles: NDArray[np.float64], size: tuple[int, int]
) -> None:
    centre, covered = _cells_of(word.box, middles, size)
    targets.centres["word_centre"][centre] = 1
    targets.classes["word"][covered] = WORDS.index(word.text)
    targets.places["quad"][covered] = to_bins([value for xy in word.quad for value in xy], size)


def _cells_of(
    box: Box, middles: NDArray[np.float64], size: tuple[int, int]
) -> tuple[int, NDArray[np.int64]]:
    """Returns the cell of a box's centre, and all cells that describe the box."""
    low, high = np.array(box).reshape(2, 2) / size
    away = np.abs(middles - (low + high) / 2)
    centre = int(away.max(axis=1).argmin())
    covered = (away <= _CENTRAL * (high - low)).all(axis=1)
    covered[centre] = True
    return centre, np.flatnonzero(covered)


def _stacked(arrays: Sequence[NDArray[np.generic]], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.stack(arrays)).to(device)
