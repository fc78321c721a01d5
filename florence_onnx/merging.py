"""Merging of the answers about the tiles of a picture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

from florence_onnx.assets.reading import Assets
from florence_onnx.locations import to_bins, to_text
from florence_onnx.parsing import scores_of
from florence_onnx.prompts import fill_prompt
from florence_onnx.reading_order import continued, in_lines, same_line
from florence_onnx.requests import EncodedTiles, Prepared
from florence_onnx.results import Box, Detection, Quad, Result, Token
from florence_onnx.tasks import AnswerKind, Task
from florence_onnx.tiling import Frame

_SAME = 0.5
"""Least part of the smaller of two boxes inside the other, for two boxes of one thing."""
_EDGE = 0.02
"""Distance from a tile's edge, as a part of the side, within which a box counts as cut off."""
LEFT, RIGHT = 0, 2


@dataclass(frozen=True)
class Piece:
    """Detection in pixels of the picture, with the tiles in which it was found."""

    found: Detection
    tiles: frozenset[int]
    """Numbers of the tiles that show the thing or parts of the thing."""
    cut: tuple[bool, ...]
    """Flags for left, upper, right and lower side: true where the tile ends before the thing."""
    is_far: bool = False
    """Tells whether the detection is from the whole picture, where things are smallest."""
    is_large: bool = False
    """Tells whether the thing fits into no tile."""

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """Key to sort pieces, best first: whole things in tiles, then the highest score."""
        score = 1.0 if self.found.scores is None else self.found.scores.score
        return any(self.cut), self.is_far, -score


Together = Callable[[Piece, Piece], Piece | None]


def about_tiles(assets: Assets, prepared: Prepared, tiles: EncodedTiles) -> list[Prepared]:
    """Makes the request about each tile of a picture.

    Text is asked for with places, because only places tell which text two tiles have in common.
    """
    if prepared.asked is Task.OCR:
        asked = Task.OCR_WITH_REGION
        prompt = fill_prompt(asked, None, None, None)
        ids = tuple(assets.encode_prompt(prompt, len(tiles.parts[0].image_features)))
        prepared = replace(prepared, asked=asked, answer_kind=asked.answer_kind, input_ids=ids)
    return [replace(prepared, picture=part) for part in tiles.parts]


def merge(prepared: Prepared, tiles: EncodedTiles, answers: Sequence[Result]) -> Result:
    """Merges the answers about the tiles of a picture into one answer.

    Args:
        prepared: The request about the picture.
        tiles: The picture.
        answers: Answers about the tiles, in the order of the tiles.

    Returns:
        An answer with each thing once. The generated texts and tokens are those of all tiles in
        order; the text has the places in the picture.
    """
    tokens = _tokens(answers)
    pieces = pieces_of(answers, tiles.frames)
    if prepared.answer_kind in (AnswerKind.TEXT, AnswerKind.QUADRILATERALS):
        kept = _once(pieces, partial(_line_of_both, tokens=tokens))
        lines = in_lines(kept)
        detections = [found for line in lines for found in line]
    else:
        lines = []
        detections = _once(pieces, partial(_box_of_both, per_label=tiles.per_label))
    if prepared.answer_kind is AnswerKind.TEXT:
        text = "\n".join(" ".join(found.label for found in line) for line in lines)
        detections = []
    else:
        text = "".join(_written(found, tiles.size) for found in detections)
    return Result(
        task=str(prepared.asked),
        answer_kind=prepared.answer_kind,
        text=text,
        detections=tuple(detections),
        generated="".join(answer.generated for answer in answers),
        token_ids=tuple(token.id for token in tokens),
        score=None,
        image_size=tiles.size,
        tokens=tokens,
        truncated=any(answer.truncated for answer in answers),
        tiles=tiles.frames,
        picture=tiles.reference,
    )


def _tokens(answers: Sequence[Result]) -> tuple[Token, ...]:
    """Joins the tokens of all answers, with spans in the joined texts."""
    tokens, taken = [], 0
    for answer in answers:
        for token in answer.tokens:
            start, end = token.span
            tokens.append(replace(token, span=(start + taken, end + taken)))
        taken += len(answer.generated)
    return tuple(tokens)


def _written(found: Detection, size: tuple[int, int]) -> str:
    """Writes a detection as the model would about the whole picture."""
    return found.label + to_text(to_bins(found.quad or found.box, size))


def pieces_of(answers: Sequence[Result], frames: Sequence[Frame]) -> list[Piece]:
    """Turns the detections of all tiles into pieces, in pixels of the picture."""
    whole, pieces, taken = frames[-1], [], 0
    width, height = _sides(frames[0])
    for tile, (answer, frame) in enumerate(zip(answers, frames, strict=True)):
        is_far = frame is whole
        for one in answer.detections:
            found = _lifted(one, frame, taken)
            across, down = _sides(found.box)
            is_large = is_far and (across > width or down > height)
            cut = _cut(found.box, frame, whole)
            pieces.append(Piece(found, frozenset({tile}), cut, is_far, is_large))
        taken += len(answer.token_ids)
    return pieces


def _lifted(found: Detection, frame: Frame, tokens: int) -> Detection:
    """Moves a detection from a tile to the picture, with token places in the joined texts."""

    def moved(points: Sequence[float]) -> tuple[float, ...]:
        return tuple(value + frame[axis % 2] for axis, value in enumerate(points))

    return replace(
        found,
        box=cast(Box, moved(found.box)),
        reversed_box=cast(Box, moved(found.reversed_box)) if found.reversed_box else None,
        quad=cast(Quad, moved(found.quad)) if found.quad else None,
        label_tokens=tuple(index + tokens for index in found.label_tokens),
        location_tokens=tuple(index + tokens for index in found.location_tokens),
    )


def _sides(box: Box | Frame) -> tuple[float, float]:
    return box[2] - box[0], box[3] - box[1]


def _cut(box: Box, frame: Frame, whole: Frame) -> tuple[bool, ...]:
    near = [_EDGE * side for side in _sides(frame)]
    return tuple(
        frame[side] != whole[side] and abs(box[side] - frame[side]) <= near[side % 2]
        for side in range(4)
    )


def _once(pieces: Sequence[Piece], together: Together) -> list[Detection]:
    """Drops duplicates among pieces, greedily, and repeats this while joined pieces change.

    Args:
        pieces: Pieces of all tiles.
        together: Joins a kept piece and a later piece; None for pieces of two things.
    """
    kept: list[Piece] = []
    for piece in sorted(pieces, key=lambda piece: piece.rank):
        for index, other in enumerate(kept):
            one = None if other.tiles & piece.tiles else together(other, piece)
            if one is not None:
                kept[index] = one
                break
        else:
            kept.append(piece)
    if len(kept) < len(pieces):
        return _once(kept, together)
    return [piece.found for piece in kept]


def _box_of_both(kept: Piece, piece: Piece, per_label: bool) -> Piece | None:
    """Joins boxes of one thing: the first, or the box around two cut boxes; None for two things."""
    if per_label and kept.found.label != piece.found.label:
        return None
    if not _are_same(kept, piece):
        return None
    return _around(kept, piece) if any(kept.cut) and any(piece.cut) else kept


def _are_same(kept: Piece, piece: Piece) -> bool:
    """Tells whether two pieces of different tiles show one thing.

    A thing that is whole in a tile is another thing than one that fits into no tile.
    """
    if (kept.is_large or piece.is_large) and not any(piece.cut):
        return False
    return inside(kept.found.box, piece.found.box) >= _SAME


def inside(a: Box, b: Box) -> float:
    """Part of the smaller of two boxes that the other box covers."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    smaller = min(across * down for across, down in (_sides(a), _sides(b)))
    return max(width, 0.0) * max(height, 0.0) / smaller if smaller > 0 else 0.0


def _around(kept: Piece, piece: Piece) -> Piece:
    """Joins two parts under the label and scores of the first; cut where both parts are cut."""
    a, b = kept.found.box, piece.found.box
    box = (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
    cut = tuple(both[0] and both[1] for both in zip(kept.cut, piece.cut, strict=True))
    found = replace(kept.found, box=box, reversed_box=None)
    return Piece(found, kept.tiles | piece.tiles, cut)


def _line_of_both(kept: Piece, piece: Piece, tokens: Sequence[Token]) -> Piece | None:
    """Joins texts of one line: the first, or the line of two cut texts; None for two lines."""
    left, right = sorted((kept, piece), key=lambda one: one.found.box[0])
    if left.cut[RIGHT] and right.cut[LEFT] and same_line(left.found, right.found):
        return _joined(left, right, tokens)
    return kept if _are_same(kept, piece) else None


def _joined(left: Piece, right: Piece, tokens: Sequence[Token]) -> Piece:
    """Joins two parts of a line."""
    a, b = left.found, right.found
    quad = (*cast(Quad, a.quad)[:2], *cast(Quad, b.quad)[2:6], *cast(Quad, a.quad)[6:])
    xs, ys = quad[0::2], quad[1::2]
    found = replace(
        a,
        label=continued(a, b),
        box=(min(xs), min(ys), max(xs), max(ys)),
        quad=quad,
        label_tokens=(*a.label_tokens, *b.label_tokens),
        location_tokens=(*a.location_tokens, *b.location_tokens),
    )
    known = [token.log_probability for token in tokens]
    cut = (left.cut[0], left.cut[1] and right.cut[1], right.cut[2], left.cut[3] and right.cut[3])
    return Piece(replace(found, scores=scores_of(found, known)), left.tiles | right.tiles, cut)
