"""Lettering of labels in one size, with the fonts that have the glyphs."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from florence_onnx.drawing.fonts import PLAIN, Face, has_glyph, is_dispensable, load

if TYPE_CHECKING:
    from PIL import ImageDraw

Colour = tuple[int, int, int]
_MISSING = "?"


class Lettering:
    """Writer of labels.

    Args:
        faces: The fonts. The first font with the glyphs is used.
        size: Size of the letters in pixels.
    """

    def __init__(self, faces: Sequence[Face], size: int) -> None:
        self._faces = faces
        self._size = size
        _, self._top, _, self._bottom = load(PLAIN, size).getbbox("Ag", anchor="ls")

    @property
    def margin(self) -> int:
        """Margin around the letters in pixels."""
        return max(1, self._size // 5)

    def size(self, text: str) -> tuple[int, int]:
        """Computes width and height of a plate with a text, in pixels."""
        top, bottom = self._extent(text)
        width, height = self._length(text), bottom - top
        return round(width) + 2 * self.margin, round(height) + 2 * self.margin

    def fit(self, label: str, end: str, width: int) -> str:
        """Joins a label and the text behind; cuts the label off where the plate would be wider."""
        if self.size(label + end)[0] <= width:
            return label + end
        low, high = 0, len(label)
        while low < high:
            middle = (low + high + 1) // 2
            if self.size(label[:middle].rstrip() + "…" + end)[0] <= width:
                low = middle
            else:
                high = middle - 1
        return label[:low].rstrip() + "…" + end if low else end.strip()

    def write(self, brush: ImageDraw.ImageDraw, x: int, y: int, text: str, colour: Colour) -> None:
        """Writes a text on a plate whose upper left corner is x, y."""
        baseline = y + self.margin - self._extent(text)[0]
        at = float(x + self.margin)
        for face, run in self._runs(text):
            font = load(face, self._size)
            brush.text((at, baseline), run, colour, font, anchor="ls")
            at += font.getlength(run)

    def _length(self, text: str) -> float:
        return sum(load(face, self._size).getlength(run) for face, run in self._runs(text))

    def _extent(self, text: str) -> tuple[float, float]:
        """Computes the highest and lowest pixel of letters, relative to the baseline."""
        boxes = [load(face, self._size).getbbox(run, anchor="ls") for face, run in self._runs(text)]
        tops, bottoms = [box[1] for box in boxes], [box[3] for box in boxes]
        return min(self._top, *tops), max(self._bottom, *bottoms)

    def _runs(self, text: str) -> list[tuple[Face, str]]:
        """Divides a text into parts of one font; a single part if a font has all glyphs."""
        for whole in self._faces:
            if all(has_glyph(whole, character) for character in text):
                return [(whole, text)]
        marked: list[tuple[Face, str]] = []
        for character in text:
            before = [marked[-1][0]] if marked else []
            faces = (*before, *self._faces)
            face = next((face for face in faces if has_glyph(face, character)), None)
            if face is not None:
                marked.append((face, character))
            elif not (_is_mark(character) or is_dispensable(character)):
                marked.append((PLAIN, _MISSING))
        return [
            (face, "".join(character for _, character in run))
            for face, run in groupby(marked, key=lambda pair: pair[0])
        ]


def _is_mark(character: str) -> bool:
    """Tells whether a character is a mark on the letter before."""
    return unicodedata.category(character).startswith("M")
