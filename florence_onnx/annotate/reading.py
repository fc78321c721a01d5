"""Reading of pictures in threads, ahead of the engine."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from florence_onnx.annotate.sources import Item
from florence_onnx.requests import EncodedImage, Picture, TiledPicture

_THREADS = 4
_AHEAD = 8
"""Number of pictures that are read ahead. A picture takes up to 7 MB at 768x768, or all tiles."""

Reading = tuple[str, Picture | TiledPicture | EncodedImage | Exception | None]
"""SHA-256 of a picture's file, and the picture, or the error of a file that is none; None without
questions about the picture."""


def read_ahead(
    items: Iterable[Item], read: Callable[[Item], Reading]
) -> Generator[tuple[Item, Future[Reading]], None, None]:
    """Yields the pictures in order, while threads read the next pictures."""
    futures: deque[tuple[Item, Future[Reading]]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            for item in items:
                futures.append((item, pool.submit(read, item)))
                if len(futures) > _AHEAD:
                    yield futures.popleft()
            while futures:
                yield futures.popleft()
        finally:
            pool.shutdown(cancel_futures=True)
