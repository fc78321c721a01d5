"""Pictures that threads read, decode and resize ahead of the engine."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from florence_onnx.annotate.sources import Item
from florence_onnx.requests import EncodedImage, Picture, TiledPicture

_THREADS = 4
_AHEAD = 8
"""Pictures that are read ahead; of each, up to 7 MB of pixels at 768x768, or all in tiles."""

Reading = tuple[str, Picture | TiledPicture | EncodedImage | None]
"""The SHA-256 of a picture's file, and the picture where there is something to ask about it."""


def read_ahead(
    items: Iterable[Item], read: Callable[[Item], Reading]
) -> Generator[tuple[Item, Future[Reading]], None, None]:
    """The pictures in their order, the next ones being read."""
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
