"""Peer that is this package; a variant is a precision of the graphs."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.harness.common import Picture, Setup
from benchmarks.peers import Answer
from florence_onnx import Florence2, Request
from florence_onnx.engine.contract import PRECISIONS

VARIANTS = tuple(PRECISIONS)


@dataclass(frozen=True)
class Ours:
    """Peer that uses `florence_onnx` as documented."""

    name: str
    """Name with the precision."""
    model: Florence2
    """Opened model."""

    def answer(
        self, pictures: Sequence[Picture], task: str, tokens: int, beams: int
    ) -> list[Answer]:
        """See `Peer`."""
        results = self.model.run(
            [Request(picture, task) for picture in pictures],
            batch_size=len(pictures),
            num_beams=beams,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
        )
        return [Answer(result.token_ids, result.to_dict()) for result in results]


def open_peer(variant: str, setup: Setup) -> Ours:
    """Opens the export at a precision."""
    model = Florence2.load(
        setup.exported, precision=variant, providers=setup.providers, threads=setup.threads
    )
    return Ours(f"ours {variant}", model)
