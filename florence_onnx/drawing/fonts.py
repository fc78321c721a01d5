"""Fonts of this machine with the glyphs of a text."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from florence_onnx.errors import InputError

if TYPE_CHECKING:
    from PIL import ImageFont


class Face(NamedTuple):
    """Face: a font in a file."""

    file: str | None
    """File of the font; None for the font inside Pillow, which has only the letters of English."""
    number: int = 0
    """Number of the font in the file."""


PLAIN = Face(None)
_CHECKED_AT = 24
"""Size in pixels for comparisons of glyphs."""
_NO_CHARACTER = "\U0010ffff"
"""Code point without a character, for which a font shows the glyph of missing characters."""
_TONES = frozenset(map(chr, range(0x1F3FB, 0x1F400)))
"""Tones of skin, which change the emoji before."""
_LONGEST_SEARCH = 10
"""Limit of a run of fontconfig in seconds."""


@lru_cache(maxsize=64)
def load(face: Face, size: int, shaping: bool = True) -> ImageFont.FreeTypeFont:
    """Opens a font.

    Args:
        face: The font.
        size: Pixels.
        shaping: Whether letters are joined and ordered by the rules of the script, if Pillow can.

    Raises:
        OSError: The file cannot be read, or holds no font that can have this size.
    """
    from PIL import ImageFont

    if face.file is None:
        plain = ImageFont.load_default(size)
        assert isinstance(plain, ImageFont.FreeTypeFont)  # noqa: S101 (as a size is given)
        return plain
    engine = None if shaping else ImageFont.Layout.BASIC
    return ImageFont.truetype(face.file, size, face.number, layout_engine=engine)


def named_face(font: str | os.PathLike[str]) -> Face:
    """Opens the font that a caller names.

    Raises:
        InputError: The file is no font file.
    """
    if not isinstance(font, str | os.PathLike):
        raise InputError(f"font must be the path of a font file, not {type(font).__name__}")
    face = Face(os.fspath(font))
    try:
        load(face, _CHECKED_AT)
    except (OSError, ValueError) as error:
        raise InputError(
            f"font {face.file} cannot be read as TrueType or OpenType: {error}"
        ) from error
    return face


def faces_for(texts: Iterable[str], first: Face | None) -> list[Face]:
    """Finds fonts that together have the glyphs of some texts, if this machine has such fonts.

    Args:
        texts: The texts.
        first: The font that is used for all characters that it has.
    """
    faces = [PLAIN] if first is None else [first, PLAIN]
    every = sorted({one for text in texts for one in text if not is_dispensable(one)})
    left = [one for one in every if not any(has_glyph(face, one) for face in faces)]
    while left:  # Several scripts may need several fonts.
        found = _find("".join(left))
        if found is None:
            break
        faces.append(found)
        left = [one for one in left if not has_glyph(found, one)]
    return faces


def is_dispensable(character: str) -> bool:
    """Tells whether text can be read without a character: joiners, directions, tones of skin."""
    return unicodedata.category(character) == "Cf" or character in _TONES


@cache
def has_glyph(face: Face, character: str) -> bool:
    """Tells whether a font has a glyph for a character; true for blanks, which show nothing."""
    if unicodedata.category(character) == "Zs":
        return True
    try:
        glyph, missing = _glyph(face, character), _glyph(face, _NO_CHARACTER)
    except (OSError, ValueError):  # A font of bitmaps has one size.
        return False
    return glyph != missing


def _glyph(face: Face, character: str) -> tuple[tuple[int, int], bytes]:
    # Shaping would put a mark that is alone on a dotted circle.
    mask = load(face, _CHECKED_AT, shaping=False).getmask(character)
    return mask.size, bytes(mask)


@cache
def _find(characters: str) -> Face | None:
    """Finds the font that has most of some characters; None if no font has any."""
    command = shutil.which("fc-match")
    candidates = _installed() if command is None else _match(command, characters)
    best, most = None, 0
    for face in candidates:
        count = sum(has_glyph(face, character) for character in characters)
        if count > most:
            best, most = face, count
    return best


def _match(command: str, characters: str) -> list[Face]:
    """Asks fontconfig for the best font, which may lack the characters."""
    charset = " ".join(f"{ord(character):x}" for character in characters)
    # A font of coloured bitmaps has one size.
    pattern = f"sans-serif:outline=true:color=false:charset={charset}"
    arguments = [command, "-f", "%{file}\n%{index}", pattern]
    try:
        found = subprocess.run(  # noqa: S603
            arguments, capture_output=True, text=True, timeout=_LONGEST_SEARCH, check=True
        )
        file, index = found.stdout.split("\n")
        return [Face(file, int(index))]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []


def _installed() -> Iterator[Face]:
    """Lists the font files in the folders of systems, upright and of usual weight first."""
    files = [
        file
        for folder in _folders()
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in (".ttf", ".otf", ".ttc")
    ]
    styled = ("bold", "italic", "oblique", "black", "light", "thin")
    for file in sorted(files, key=lambda file: any(style in file.stem.lower() for style in styled)):
        yield Face(str(file))


def _folders() -> list[Path]:
    home = Path.home()
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA", home / "AppData" / "Local")
        system = Path(os.environ.get("WINDIR", "C:/Windows"), "Fonts")
        return [system, Path(local, "Microsoft", "Windows", "Fonts")]
    if sys.platform == "darwin":
        return [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts"]
    shared = [Path("/usr/share/fonts"), Path("/usr/local/share/fonts")]
    return [*shared, home / ".local/share/fonts", home / ".fonts"]
