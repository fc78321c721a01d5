"""Decoder of the hub's layout, whose cache has the keys and values of every row.

The first step computes keys and values of the cross-attention from the encoder's states, and the
cache keeps both. Keys and values of the self-attention are taken and returned at every step, and
gathered where beams change places.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from florence_onnx.engine import contract, hub_contract
from florence_onnx.engine.buffers import Gatherer
from florence_onnx.engine.checks import check_output, check_value, running
from florence_onnx.engine.contract import names_of
from florence_onnx.engine.decoder import Floats, Ids
from florence_onnx.engine.halves import Array, as_declared, as_float32, run
from florence_onnx.engine.hub_contract import CROSS_CACHE, MASK, OWN_CACHE, STATES, SWITCH
from florence_onnx.engine.providers import device_of
from florence_onnx.engine.scores import LogitScores
from florence_onnx.errors import GraphRunError

if TYPE_CHECKING:
    import onnxruntime as ort

    from florence_onnx.engine.sessions import Graphs

_ROUNDING = 1e-2
"""Allowed difference of a graph's logits between a shared and a copied tensor, relative to the
largest logit. Logits in float16 have an error of 1e-3."""


class PastDecoder:
    """Decoder of the hub's layout: encodes requests and starts the steps of searches."""

    def __init__(self, graphs: "Graphs") -> None:
        """Reads the inputs and outputs of the graphs.

        Args:
            graphs: The opened graphs.
        """
        # The graphs keep this decoder, which keeps no graphs: a model ends with its last use.
        self.sessions, self.files, self.geometry = graphs.sessions, graphs.files, graphs.geometry
        names = [name for name in graphs.layout.graphs if name not in hub_contract.ENCODERS]
        self.first, self.later = (
            Part(self.sessions[name], self.files[name], graphs.layout.graphs[name].of(self.layers))
            for name in (names[0], names[-1])
        )

    @property
    def layers(self) -> int:
        """Number of layers of the decoder."""
        return self.geometry["decoder_layers"]

    def start(self, attention_mask: Ids, inputs_embeds: Floats) -> "PastSteps":
        """See `Decoder.start`."""
        file, name = self.files[contract.ENCODER], "last_hidden_state"
        given: Mapping[str, Array] = {
            "attention_mask": attention_mask,
            "inputs_embeds": inputs_embeds,
        }
        (states,) = run(self.sessions[contract.ENCODER], file, given, [name])
        states = check_output(file, name, states, inputs_embeds.shape)
        return PastSteps(self, attention_mask, states)

    def embed(self, token_ids: Ids) -> Floats:
        """Maps token_ids [R] to embeddings, float32 [R,1,D]."""
        file, name = self.files[contract.EMBED_TOKENS], "inputs_embeds"
        given = {"input_ids": token_ids[:, None]}
        (embeds,) = run(self.sessions[contract.EMBED_TOKENS], file, given, [name])
        return check_output(file, name, embeds, (len(token_ids), 1, self.geometry["hidden_size"]))

    def blank(self, rows: int, length: int) -> Floats:
        """Makes keys or values of no tokens."""
        heads, width = self.geometry["decoder_heads"], self.geometry["head_dim"]
        return np.zeros((rows, heads, length, width), dtype=np.float32)

    def shares(self, requests: int) -> bool:
        """Tells whether the rows of each request may share one copy of the cross-attention's cache.

        The graphs that this package writes take all rows of a request as one query. In most other
        graphs, a matrix multiplication can take one matrix for several rows, which does for a
        single request.
        """
        return self._shares_of_many or (requests == 1 and self._shares_of_one)

    @cached_property
    def _shares_of_many(self) -> bool:
        return self._is_same_for_copies(2)

    @cached_property
    def _shares_of_one(self) -> bool:
        return self._is_same_for_copies(1)

    def _is_same_for_copies(self, requests: int) -> bool:
        """Tells whether a cache per request gives the same logits as a cache per row.

        The graph is run on random numbers, because ONNX Runtime does not show its operators.
        """
        draw, beams, length = np.random.default_rng(0), 2, 3
        rows, width = requests * beams, self.geometry["hidden_size"]
        embeds = draw.standard_normal((rows, 1, width), dtype=np.float32)
        own = [draw.standard_normal(self.blank(rows, 1).shape) for _ in self.later.own_in]
        shape = self.blank(requests, length).shape
        cross = [draw.standard_normal(shape, dtype=np.float32) for _ in self.later.cross_in]
        states = draw.standard_normal((requests, length, width), dtype=np.float32)
        mask = np.ones((requests, length), dtype=np.int64)
        past = [self.later.cache(values) for values in own]

        def logits(copies: int) -> Floats:
            hidden = self.later.states(np.repeat(states, copies, axis=0))
            kept = [self.later.cache(np.repeat(values, copies, axis=0)) for values in cross]
            repeated = np.repeat(mask, copies, axis=0)
            return as_float32(self.later(repeated, hidden, embeds, (past, kept), [])[0].numpy())

        expected = logits(beams)
        try:
            found = logits(1)
        except GraphRunError:
            return False
        limit = _ROUNDING * float(np.abs(expected).max())
        return found.shape == expected.shape and bool(np.abs(found - expected).max() <= limit)


class Part:
    """Graph of the decoder: for the first token, for the later tokens, or for both."""

    def __init__(
        self, session: "ort.InferenceSession", file: str, signature: contract.Signature
    ) -> None:
        """Reads the inputs of a graph.

        Args:
            session: The graph.
            file: The path of the graph inside the model folder.
            signature: The tensors of the graph, of every layer.
        """
        self.session, self.file = session, file
        self.device = device_of(session)
        self.own_in = names_of(signature.inputs, OWN_CACHE)
        self.cross_in = names_of(signature.inputs, CROSS_CACHE)
        self.own_out = names_of(signature.outputs, OWN_CACHE)
        self.cross_out = names_of(signature.outputs, CROSS_CACHE)
        self._kinds: dict[str, str] = {value.name: value.type for value in session.get_inputs()}

    @property
    def cache_kind(self) -> str:
        """Element type of keys and values, which other floats of the graph need not have."""
        kinds: dict[str, str] = {value.name: value.type for value in self.session.get_outputs()}
        kinds |= self._kinds
        return kinds[(*self.own_in, *self.own_out, "inputs_embeds")[0]]

    def cache(self, array: Array) -> "ort.OrtValue":
        """Puts keys or values on the device of the graph, in their element type."""
        return self._value(array, self.cache_kind)

    def states(self, array: Array) -> "ort.OrtValue":
        """Puts the encoder's states on the device of the graph, in their element type."""
        return self._value(array, self._kinds.get(STATES, contract.FLOAT))

    def _value(self, array: Array, kind: str) -> "ort.OrtValue":
        import onnxruntime as ort

        array = np.ascontiguousarray(array.astype(np.float32))
        return ort.OrtValue.ortvalue_from_numpy(as_declared(array, kind), *self.device)

    def __call__(
        self,
        mask: Ids,
        states: "ort.OrtValue",
        embeds: Floats,
        past: "tuple[Sequence[ort.OrtValue], Sequence[ort.OrtValue]]",
        returned: Sequence[str],
    ) -> "list[ort.OrtValue]":
        """Runs the graph.

        Args:
            mask: int64 [R,S], or [requests,S] as ``states`` and the cross-attention's tensors.
            states: The encoder's states, [R,S,D] or [requests,S,D].
            embeds: The embedding of one token per row, float32 [R,1,D].
            past: Keys and values of the self-attention and of the cross-attention.
            returned: Further outputs to return.

        Returns:
            The logits, on the host, and ``returned``.

        Raises:
            GraphRunError: The graph fails.
        """
        own, cross = past
        # The arrays live until the run is over: binding them copies nothing.
        hosted: Mapping[str, Array] = {
            MASK: mask,
            "inputs_embeds": as_declared(embeds, self._kinds["inputs_embeds"]),
            SWITCH: np.array([own[0].shape()[2] > 0] if own else [False]),
        }
        bound = dict(zip((*self.own_in, *self.cross_in), (*own, *cross), strict=True))
        with running(self.file):
            binding = self.session.io_binding()
            for name, array in hosted.items():
                if name in self._kinds:
                    binding.bind_cpu_input(name, array)
            for name, value in {**bound, STATES: states}.items():
                if name in self._kinds:
                    binding.bind_ortvalue_input(name, value)
            binding.bind_output("logits", "cpu")
            for name in returned:
                binding.bind_output(name, *self.device)
            self.session.run_with_iobinding(binding)
            return list(binding.get_outputs())


class PastSteps:
    """Steps of one search, with the cache in the memory of the provider."""

    def __init__(self, decoder: PastDecoder, mask: Ids, states: Floats) -> None:
        """Begins with an empty cache.

        Args:
            decoder: The decoder of the steps.
            mask: The attention mask of the encoded requests, int64 [B,S].
            states: The encoder's states of the requests, float32 [B,S,D].
        """
        self._decoder = decoder
        self._requests = np.arange(len(mask))
        self._mask, self._states = mask, states
        self._copies = 1
        """Rows of the mask, of ``_cross`` and of ``_hidden`` per request."""
        self._hidden = decoder.first.states(states)
        self._own: list[ort.OrtValue] = []
        self._cross: list[ort.OrtValue] = []
        later = decoder.later
        self._gather = Gatherer(
            2 * decoder.layers, 0, later.session, later.device, later.cache_kind
        )

    def __call__(self, token_ids: Ids, rows: Ids, requests: Ids) -> LogitScores:
        """Runs one step of the search; see `Step`.

        Raises:
            GraphRunError: A graph fails, or returns another shape.
        """
        decoder, count = self._decoder, len(token_ids)
        embeds = decoder.embed(token_ids)
        if self._own:
            self._follow(rows, requests)
            part, past = decoder.later, (self._own, self._cross)
            mask = np.repeat(self._mask, self._copies, axis=0)
            logits, *self._own = part(mask, self._hidden, embeds, past, part.own_out)
        else:
            part = decoder.first
            nothing = part.cache(decoder.blank(count, 0))
            past = ([nothing] * len(part.own_in), [nothing] * len(part.cross_in))
            returned = [*part.own_out, *part.cross_out]
            logits, *found = part(self._mask, self._hidden, embeds, past, returned)
            self._own, self._cross = found[: len(part.own_out)], found[len(part.own_out) :]
            self._check_cross(part)
            self._hand_over(part, decoder.later)
        shape = (count, 1, decoder.geometry["vocabulary"])
        check_value(part.file, "logits", logits, logits.data_type(), shape)
        return LogitScores(as_float32(logits.numpy())[:, 0], part.file)

    def _check_cross(self, part: Part) -> None:
        shape = self._decoder.blank(*self._mask.shape).shape
        for name, value in zip(part.cross_out, self._cross, strict=True):
            check_value(part.file, name, value, value.data_type(), shape)

    def _hand_over(self, part: Part, other: Part) -> None:
        """Moves the cache to the device and into the layout that later steps read."""
        if part.session is not other.session:
            self._hidden = other.states(self._states)
        if (part.cache_kind, part.device) != (other.cache_kind, other.device):
            self._own = [other.cache(value.numpy()) for value in self._own]
            self._cross = [other.cache(value.numpy()) for value in self._cross]

    def _follow(self, rows: Ids, requests: Ids) -> None:
        """Gathers the caches for these rows and these requests."""
        before = len(self._requests) * self._copies
        kept = np.searchsorted(self._requests, requests)
        copies = len(rows) // len(requests)
        if copies > 1 and self._decoder.shares(len(requests)):
            copies = 1
        chosen = np.repeat(kept * self._copies, copies)
        with running(self._decoder.later.file):
            if not _is_all(chosen, before):
                self._cross = self._gather(self._cross, chosen)
                states = np.repeat(self._states[kept], copies, axis=0)
                self._hidden = self._decoder.later.states(states)
            if not _is_all(rows, self._own[0].shape()[0]):
                self._own = self._gather(self._own, rows)
        self._mask, self._states = self._mask[kept], self._states[kept]
        self._requests, self._copies = requests, copies


def _is_all(rows: Ids, count: int) -> bool:
    """Tells whether ``rows`` are all rows, in order."""
    return len(rows) == count and bool((rows == np.arange(count)).all())
