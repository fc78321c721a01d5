"""Slots of the decoder's cache that the rows of a batch use.

The cache is a set of slots that the beams of a picture share. A step writes the key and
value of each row into a slot of that row alone, and a mask says which slots the row sees.
Reordering of beams changes the mask only: nothing in the cache moves, and a common past of several
beams is stored and read once.
"""

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]

BLOCK = 64
"""Number of slots of a new cache, and of the slots that are added to a full cache. Every step reads
all slots, seen or not, and a copy of the cache takes about the time of a step."""


class Slots:
    """Slots of every request, and the rows that see each slot."""

    def __init__(self, requests: int) -> None:
        """Starts with one row per request, which sees nothing."""
        self.seen = np.zeros((requests, 1, BLOCK), dtype=np.bool_)
        """bool [active,beams,slots]."""

    def follow(self, rows: Ids, requests: int) -> None:
        """Makes new rows, which see the slots of the ``rows`` [R] of the step before."""
        past = self.seen.reshape(-1, self.seen.shape[2])[rows]
        self.seen = past.reshape(requests, -1, past.shape[1])

    def take(self) -> Ids:
        """Gives every row a slot that no row of its request sees; int64 [active,beams].

        Where slots are lacking, blocks of slots are added first.
        """
        beams = self.seen.shape[1]
        used = self.seen.any(axis=1)
        missing = int(used.sum(axis=1).max()) + beams - used.shape[1]
        if missing > 0:
            more = -(-missing // BLOCK) * BLOCK
            self.seen = np.pad(self.seen, ((0, 0), (0, 0), (0, more)))
            used = self.seen.any(axis=1)
        slots = np.argsort(used, axis=1, kind="stable")[:, :beams]
        np.put_along_axis(self.seen, slots[:, :, None], True, axis=2)
        return np.ascontiguousarray(slots)
