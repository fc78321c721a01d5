"""The sides that are timed: ours and what a user would pick instead, one module each.

A module has ``VARIANTS``, the names of what it can be opened as, and
``open_peer(variant, setup) -> Peer``. Another joins by being put here. On the command line a peer
is ``MODULE:VARIANT``, for example ``transformers_eager:bf16``.
"""

import importlib
import pkgutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks.harness.common import BenchmarkError, Picture, Setup

MODULES = tuple(module.name for module in pkgutil.iter_modules(__path__))
PEERS_HELP = f"each MODULE:VARIANT, such as transformers_eager:bf16; modules: {', '.join(MODULES)}"


@dataclass(frozen=True)
class Answer:
    """Answer of a peer about one picture."""

    token_ids: tuple[int, ...]
    """The start token first."""
    parsed: dict[str, Any]
    """The task's answer, read from the tokens."""


class Peer(Protocol):
    """A model that is ready to answer."""

    @property
    def name(self) -> str:
        """Name of the peer in tables; our names start with "ours"."""

    def answer(
        self, pictures: Sequence[Picture], task: str, tokens: int, beams: int
    ) -> list[Answer]:
        """Answers one task about each picture, all in one batch.

        Args:
            pictures: Decoded pictures.
            task: The task's name, such as ``<OD>``.
            tokens: How many are generated, the end included: no fewer and no more.
            beams: Of the beam search.
        """


def open_peer(name: str, setup: Setup) -> Peer:
    """Opens ``MODULE:VARIANT``.

    Raises:
        BenchmarkError: There is no such peer.
        ImportError: A package that it needs is not installed.
    """
    module, _, variant = name.partition(":")
    if module not in MODULES:
        raise BenchmarkError(f"no peer {name!r}; there are {', '.join(MODULES)}")
    opened = importlib.import_module(f"{__name__}.{module}")
    if variant not in opened.VARIANTS:
        listed = ", ".join(opened.VARIANTS)
        raise BenchmarkError(f"{module} has no variant {variant!r}; it has {listed}")
    peer: Peer = opened.open_peer(variant, setup)
    return peer


def open_peers(names: Iterable[str], setup: Setup) -> tuple[list[Peer], list[str]]:
    """Opens those whose packages are installed.

    Returns:
        The peers, and a note about each that is missing.
    """
    peers, notes = [], []
    for name in names:
        try:
            peers.append(open_peer(name, setup))
        except ImportError as error:
            notes.append(f"{name} was left out: {error}")
    return peers, notes
