"""Peers that are timed: this package and the alternatives of a user, one module each.

A module has ``VARIANTS``, a tuple of names, and ``open_peer(variant, setup) -> Peer``. A new module
in this folder is a new peer. On the command line a peer is ``MODULE:VARIANT``, for example
``transformers_eager:bf16``.
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
    """Token ids, from the start token on."""
    parsed: dict[str, Any]
    """Parsed answer of the task."""


class Peer(Protocol):
    """Model that is ready to answer."""

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
            tokens: Exact number of generated tokens, the end included.
            beams: Beams of the search.
        """


def open_peer(name: str, setup: Setup) -> Peer:
    """Opens ``MODULE:VARIANT``.

    Raises:
        BenchmarkError: There is no such peer.
        ImportError: A package that the peer needs is not installed.
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
    """Opens the peers whose packages are installed.

    Returns:
        The peers, and a note about each missing peer.
    """
    peers, notes = [], []
    for name in names:
        try:
            peers.append(open_peer(name, setup))
        except ImportError as error:
            notes.append(f"{name} was left out: {error}")
    return peers, notes
