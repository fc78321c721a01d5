"""References from results to pictures, which keep no picture in memory."""

import os
import weakref
from typing import Any


class PictureReference:
    """Reference to the picture of a request: the path of a file, or a weak reference."""

    def __init__(self, image: object) -> None:
        """Makes a reference; to bytes, which allow none, a reference to nothing."""
        self._path = image if isinstance(image, str | os.PathLike) else None
        self._object: weakref.ref[Any] | None = None
        if self._path is None and not isinstance(image, bytes | bytearray | memoryview):
            self._object = weakref.ref(image)

    def image(self) -> Any:
        """Finds the picture; None if it is gone."""
        return self._path if self._object is None else self._object()

    def __reduce__(self) -> tuple[Any, ...]:
        """Keeps a path in pickles and copies; nothing else can be referred to from there."""
        return PictureReference, (b"" if self._path is None else self._path,)
