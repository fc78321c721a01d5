"""Decoder of this package's own layout, whose cache is a set of slots.

The encoder graph returns the keys and values of the cross-attention, once per picture. The decoder
graph takes and returns the keys and values of the self-attention. Past and present share a buffer,
so a step writes in place.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from florence_onnx.engine import contract
from florence_onnx.engine.buffers import Gatherer, zeros
from florence_onnx.engine.checks import check_value, impossible_numbers, running
from florence_onnx.engine.contract import CROSS_CACHE, FLOAT, INT64, OWN_CACHE, names_of
from florence_onnx.engine.decoder import Floats, Ids, TokenEmbedding
from florence_onnx.engine.providers import HOST, Device, device_of
from florence_onnx.engine.scores import GraphScores
from florence_onnx.engine.slots import BLOCK, Slots
from florence_onnx.errors import GraphRunError

if TYPE_CHECKING:
    import onnxruntime as ort

    from florence_onnx.engine.sessions import Graphs


class SlotDecoder:
    """Decoder of this package's layout: encodes requests and starts the steps of searches."""

    def __init__(self, graphs: "Graphs") -> None:
        """Reads the inputs and outputs of the graphs.

        Args:
            graphs: The opened graphs.
        """
        # The graphs keep this decoder, which keeps no graphs: a model ends with its last use.
        self.sessions, self.files, self.geometry = graphs.sessions, graphs.files, graphs.geometry
        self.session = graphs.sessions[contract.DECODER]
        self.file = graphs.files[contract.DECODER]
        self.device = device_of(self.session)
        layers = graphs.geometry["decoder_layers"]
        given, returned = contract.SIGNATURES[contract.DECODER].of(layers)
        self.inputs = list(given)
        self.past, self.cross = names_of(given, OWN_CACHE), names_of(given, CROSS_CACHE)
        self.present = names_of(returned, OWN_CACHE)
        encoded = contract.SIGNATURES[contract.ENCODER].of(layers).outputs
        self.encoded = names_of(encoded, CROSS_CACHE)

    def start(self, attention_mask: Ids, inputs_embeds: Floats) -> "SlotSteps":
        """See `Decoder.start`."""
        cross = self._encode(attention_mask, inputs_embeds)
        return SlotSteps(self, attention_mask, cross)

    def handover_device(self, graph: str) -> Device:
        """Device for a graph's outputs that the decoder reads: the decoder's device, or the host.

        Binding an input copies a tensor from the host to the decoder's device, but not from
        another device.
        """
        device = device_of(self.sessions[graph])
        return device if device == self.device else HOST

    def cache_shape(self, batch: int, length: int) -> tuple[int, int, int, int]:
        """Shape of every tensor of the cache."""
        return batch, self.geometry["decoder_heads"], length, self.geometry["head_dim"]

    def _encode(self, mask: Ids, inputs_embeds: Floats) -> "list[ort.OrtValue]":
        """Encodes requests into the keys and values of the cross-attention."""
        file, session = self.files[contract.ENCODER], self.sessions[contract.ENCODER]
        binding, device = session.io_binding(), self.handover_device(contract.ENCODER)
        with running(file):
            binding.bind_cpu_input("attention_mask", mask)
            binding.bind_cpu_input("inputs_embeds", inputs_embeds)
            for name in self.encoded:
                binding.bind_output(name, *device)
            session.run_with_iobinding(binding)
        values = list(binding.get_outputs())
        for name, value in zip(self.encoded, values, strict=True):
            check_value(file, name, value, FLOAT, self.cache_shape(*mask.shape))
        return values


class SlotSteps:
    """Steps of one search, with the cache in the memory of the provider."""

    def __init__(self, decoder: SlotDecoder, mask: Ids, cross: "list[ort.OrtValue]") -> None:
        """Makes an empty cache.

        Args:
            decoder: The decoder of the steps.
            mask: The attention mask of the encoded requests, int64 [B,S].
            cross: Keys and values of the cross-attention.
        """
        self._decoder = decoder
        self._vocabulary = decoder.geometry["vocabulary"]
        self._embed = TokenEmbedding(
            decoder.sessions[contract.EMBED_TOKENS],
            decoder.files[contract.EMBED_TOKENS],
            decoder.geometry["hidden_size"],
            decoder.handover_device(contract.EMBED_TOKENS),
        )
        self._requests = np.arange(len(mask))
        self._mask = mask
        self._cross = cross
        # Zeros, because values in unseen slots are multiplied by zero and must not be NaN.
        shape = decoder.cache_shape(len(mask), BLOCK)
        self._cache = zeros(len(cross), shape, decoder.device)
        self._slots = Slots(len(mask))
        self._position = -1
        self._step = decoder.session.io_binding()
        self._bind_caches()

    def __call__(self, token_ids: Ids, rows: Ids, requests: Ids) -> GraphScores:
        """Runs one step of the search.

        Args:
            token_ids: The token each row appends, int64 [R].
            rows: The row of the previous call that each row continues, int64 [R].
            requests: The requests still in the batch, int64 [active]; R is a multiple of active.

        Raises:
            GraphRunError: A graph fails, or returns another shape.
        """
        self._slots.follow(rows, len(requests))
        if len(requests) < len(self._requests):
            self._keep(np.searchsorted(self._requests, requests))
            self._requests = requests
        self._position += 1
        self._fed = {
            "position_ids": np.array([self._position]),
            "cache_slots": self._take_slots(),
            "cache_mask": self._slots.seen,
        }
        self._embedded = self._embed(token_ids)
        step, file = self._step, self._decoder.file
        with running(file):
            step.bind_ortvalue_input("inputs_embeds", self._embedded)
            for name, value in self._fed.items():
                step.bind_cpu_input(name, value)
            step.bind_output("topk_log_probs", "cpu")
            step.bind_output("topk_ids", "cpu")
            step.bind_output("logits", *self._decoder.device)
            self._decoder.session.run_with_iobinding(step)
        *_, log_probs, ids, logits = step.get_outputs()
        count = len(token_ids)
        check_value(file, "logits", logits, FLOAT, (count, 1, self._vocabulary))
        check_value(file, "topk_log_probs", log_probs, FLOAT, (count, None))
        check_value(file, "topk_ids", ids, INT64, log_probs.shape())
        return GraphScores((log_probs, ids), logits, self._impossible)

    def inputs(self) -> dict[str, npt.NDArray[Any]]:
        """Makes the decoder graph's inputs of the last step, for callers that run the graph again.

        The cache already has the keys and values of the step, which the graph writes again.
        """
        decoder = self._decoder
        values = {
            **self._fed,
            "encoder_attention_mask": self._mask,
            "inputs_embeds": self._embedded.numpy(),
            **dict(zip(decoder.cross, (value.numpy() for value in self._cross), strict=True)),
            # Copies, because the next step writes into the arrays.
            **dict(zip(decoder.past, (v.numpy().copy() for v in self._cache), strict=True)),
        }
        return {name: values[name] for name in decoder.inputs}

    def _impossible(self) -> GraphRunError:
        """Makes the error that names the first graph and output with NaN or infinity."""
        files = self._decoder.files
        encoder, embed = files[contract.ENCODER], files[contract.EMBED_TOKENS]
        names = self._decoder.encoded
        outputs = [(encoder, name, value) for name, value in zip(names, self._cross, strict=True)]
        for file, name, value in (*outputs, (embed, "inputs_embeds", self._embedded)):
            if not np.isfinite(value.numpy()).all():
                return impossible_numbers(file, name)
        return impossible_numbers(self._decoder.file, "logits and topk_log_probs")

    def _take_slots(self) -> Ids:
        """Gives every row a slot, int64 [active,beams], for which the cache may have to grow."""
        before = self._slots.seen.shape[2]
        taken = self._slots.take()
        capacity = self._slots.seen.shape[2]
        if capacity > before:
            # A new slot is not seen before it is written.
            self._cache = self._gather(
                self._cache, np.minimum(np.arange(capacity), before - 1), axis=2
            )
            self._bind_caches()
        return taken

    def _bind_caches(self) -> None:
        """Binds the tensors that stay from step to step. Past and present share a buffer."""
        decoder, step = self._decoder, self._step
        step.clear_binding_inputs()
        step.clear_binding_outputs()
        step.bind_cpu_input("encoder_attention_mask", self._mask)
        for name, value in zip(decoder.cross, self._cross, strict=True):
            step.bind_ortvalue_input(name, value)
        for name, value in zip(decoder.past, self._cache, strict=True):
            step.bind_ortvalue_input(name, value)
        for name, value in zip(decoder.present, self._cache, strict=True):
            step.bind_ortvalue_output(name, value)

    def _keep(self, kept: Ids) -> None:
        """Drops the other requests from the mask and both caches."""
        count = len(self._cross)
        values = self._gather([*self._cross, *self._cache], kept, axis=0)
        self._cross, self._cache = values[:count], values[count:]
        self._mask = np.ascontiguousarray(self._mask[kept])
        self._bind_caches()

    def _gather(
        self, values: "list[ort.OrtValue]", indices: Ids, axis: int
    ) -> "list[ort.OrtValue]":
        decoder = self._decoder
        with running(decoder.file):
            return Gatherer(len(values), axis, decoder.session, decoder.device)(values, indices)
