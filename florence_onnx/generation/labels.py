"""Labels that an answer may use, as a trie over token ids."""

import re
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from florence_onnx.tokenizer import Tokenizer

Ids = npt.NDArray[np.int64]
Path = tuple[Sequence[int], Sequence[int]]
"""Token ids of a label, and the number of ids after which the label is whole."""

_LOST = -1
"""Node of text that no label begins with."""


class LabelTrie:
    """Trie of labels by tokens. Node 0 is the beginning of all labels."""

    def __init__(self, labels: Iterable[Path]) -> None:
        """Builds the trie.

        Args:
            labels: Labels, at least one, none of which is empty.
        """
        paths = [(ids[: max(ends)], ends) for ids, ends in labels]
        self._nodes: list[dict[int, int]] = [{}]
        self._whole = {_LOST: False, 0: False}
        for ids, ends in paths:
            self._insert(ids, ends)
        self._rest = [0] * len(self._nodes)
        """Number of tokens from each node to the nearest whole label."""
        for node in reversed(range(len(self._nodes))):  # Children come after their parents.
            if not self._whole[node]:
                self._rest[node] = 1 + min(
                    self._rest[child] for child in self._nodes[node].values()
                )
        self._children: dict[int, tuple[Ids, Ids]] = {}
        self.longest = max(len(ids) for ids, _ in paths)
        """Length of the longest label in tokens."""

    def _insert(self, ids: Sequence[int], ends: Sequence[int]) -> None:
        node = 0
        for length, token in enumerate(ids, 1):
            following = self._nodes[node]
            if token not in following:
                following[token] = len(self._nodes)
                self._nodes.append({})
            node = following[token]
            self._whole[node] = self._whole.get(node, False) or length in ends

    def follow(self, node: int, token: int) -> int:
        """Finds the node after one more token."""
        return _LOST if node == _LOST else self._nodes[node].get(token, _LOST)

    def is_whole(self, node: int) -> bool:
        """Tells whether a label ends here."""
        return self._whole[node]

    def children(self, node: int, room: int) -> Ids:
        """Finds the tokens that may follow, int64 [N].

        Args:
            node: Node of the text so far.
            room: Limit of the rest of the label in tokens.
        """
        if node not in self._children:
            following = {} if node == _LOST else self._nodes[node]
            costs = np.array([1 + self._rest[child] for child in following.values()])
            self._children[node] = np.array([*following], dtype=np.int64), costs
        tokens, costs = self._children[node]
        return tokens[costs <= room]


def known_labels(tokenizer: Tokenizer, labels: Sequence[str]) -> LabelTrie:
    """Tokenizes the labels of a caller, each as the beginning of a text and after a space."""
    return LabelTrie(_whole(tokenizer, text) for label in labels for text in (label, f" {label}"))


def caption_labels(tokenizer: Tokenizer, caption: str) -> LabelTrie:
    """Makes labels of the words in a row of a caption, the first letter in upper or lower case."""
    words = [found.span() for found in re.finditer(r"\w+", caption)] or [(0, len(caption))]
    ends = {end for _, end in words} | {len(caption)}
    paths = []
    for start, _ in words:
        rest = caption[start:]
        for text in dict.fromkeys((rest, rest[0].swapcase() + rest[1:])):
            if len(text) == len(rest):  # "ß" becomes two letters.
                ids, spans = _encoded(tokenizer, text)
                whole = [n for n, (_, end) in enumerate(spans, 1) if start + end in ends]
                paths += [(ids, whole)] if whole else []
                ids, spans = _encoded(tokenizer, f" {text}")
                whole = [n for n, (_, end) in enumerate(spans, 1) if start + end - 1 in ends]
                paths += [(ids, whole)] if whole else []
    return LabelTrie(paths)


def _whole(tokenizer: Tokenizer, text: str) -> Path:
    ids, _ = _encoded(tokenizer, text)
    return ids, [len(ids)]


def _encoded(tokenizer: Tokenizer, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    ids = tokenizer.encode(text)[1:-1]
    return ids, tokenizer.spans(ids)
