"""The decoder as a step() callable, with its cache kept where the provider keeps it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from florence_onnx.engine import contract
from florence_onnx.engine.checks import check_value, impossible_numbers, running
from florence_onnx.engine.contract import FLOAT, INT64
from florence_onnx.engine.gather import gather_graph
from florence_onnx.engine.providers import CPU, CUDA, HOST, Device, device_of
from florence_onnx.engine.sessions import Graphs
from florence_onnx.errors import GraphRunError
from florence_onnx.generation.ranking import best_ids, log_softmax

if TYPE_CHECKING:
    import onnxruntime as ort

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

_ROUNDING = 1e-3
"""How far above 0 the log-probability of a sure token may be."""

BLOCK = 64
"""Slots of a new cache, and what it grows by when they are used up: every step reads them all, seen
or not, and a copy of the cache takes the time of about a step."""


def _impossible_scores(file: str = contract.DECODER) -> GraphRunError:
    return impossible_numbers(file, "logits and topk_log_probs")


class Scores:
    """The log-probabilities of one step; they come to the host only as far as they are read."""

    def __init__(
        self,
        best: "tuple[ort.OrtValue, ort.OrtValue]",
        logits: "ort.OrtValue",
        impossible: Callable[[], GraphRunError] = _impossible_scores,
    ) -> None:
        """Keeps what a step returned.

        Args:
            best: topk_log_probs and topk_ids.
            logits: Of all tokens.
            impossible: Makes the error for numbers that cannot be; it may look for their source.
        """
        self._log_probs, self._ids = best
        self._logits = logits
        self._impossible = impossible

    def top(self, k: int) -> tuple[Floats, Ids]:
        """The ``k`` best tokens per row: log-probabilities descending [R,k] and ids [R,k].

        Raises:
            GraphRunError: They are NaN or infinite, or not among the model's tokens.
        """
        if k > self._ids.shape()[1]:
            logits = self.logits()
            ids = best_ids(logits, k)
            return np.take_along_axis(log_softmax(logits), ids, axis=1), ids
        log_probs, ids = self._log_probs.numpy()[:, :k], self._ids.numpy()[:, :k]
        # Nothing compares with NaN. Tokens behind the first of a row may be impossible.
        if not ((log_probs <= _ROUNDING).all() and (log_probs[:, 0] > -np.inf).all()):
            raise self._impossible()
        vocabulary = self._logits.shape()[2]
        if ids.min() < 0 or ids.max() >= vocabulary:
            raise GraphRunError(
                f"{contract.DECODER} returned topk_ids from {ids.min()} to {ids.max()}, where it "
                f"has {vocabulary} tokens. Export the checkpoint with florence-onnx export"
            )
        return log_probs, ids

    def logits(self) -> Floats:
        """The logits of every row, [R,V].

        Raises:
            GraphRunError: They are NaN or infinite.
        """
        logits: Floats = self._logits.numpy()[:, -1]
        if not np.isfinite(logits.max(axis=1)).all():  # NaN is the maximum wherever it is
            raise self._impossible()
        return logits


class DecoderSteps:
    """Runs the decoder for a batch of encoded requests, one token per row and call."""

    def __init__(
        self, model: Graphs, attention_mask: Ids, inputs_embeds: npt.NDArray[np.float32]
    ) -> None:
        """Encodes the requests.

        Args:
            model: The opened graphs.
            attention_mask: int64 [B,S].
            inputs_embeds: Image features, then text embeddings, float32 [B,S,D].
        """
        self._model = model
        sizes = model.geometry()
        self._width, self._vocabulary = sizes["hidden_size"], sizes["vocabulary"]
        self._cache_sizes = sizes["decoder_heads"], sizes["head_dim"]
        self._file = model.file(contract.DECODER)
        self._device = device_of(model.decoder)
        self._embeds_device = self._handover_device(model.embed_tokens)
        self._requests = np.arange(len(attention_mask))
        self._mask = attention_mask
        self._cross = self._encode(inputs_embeds)
        self._cache = self._empty_cache()
        self._seen = np.zeros((len(attention_mask), 1, BLOCK), dtype=np.bool_)
        self._position = np.zeros(1, dtype=np.int64)
        self._embed = model.embed_tokens.io_binding()
        self._step = model.decoder.io_binding()
        self._bind_caches()

    def __call__(self, token_ids: Ids, rows: Ids, requests: Ids) -> Scores:
        """One step of the search.

        Args:
            token_ids: The token each row appends, int64 [R].
            rows: The row of the previous call that each row continues, int64 [R].
            requests: The requests still in the batch, int64 [active]; R is a multiple of it.
        """
        past = self._seen.reshape(-1, self._seen.shape[-1])[rows]
        self._seen = past.reshape(len(requests), -1, past.shape[-1])
        if len(requests) < len(self._requests):
            self._keep(np.searchsorted(self._requests, requests))
            self._requests = requests
        slots = self._take_slots()
        step = self._step
        self._embedded = self._embed_tokens(token_ids)
        with running(self._file):
            step.bind_ortvalue_input("inputs_embeds", self._embedded)
            step.bind_cpu_input("position_ids", self._position)
            step.bind_cpu_input("cache_slots", slots)
            step.bind_cpu_input("cache_mask", self._seen)
            step.bind_output("topk_log_probs", "cpu")
            step.bind_output("topk_ids", "cpu")
            step.bind_output("logits", *self._device)
            self._model.decoder.run_with_iobinding(step)
        self._position = self._position + 1
        outputs = dict(zip(self._outputs, step.get_outputs(), strict=True))
        log_probs, ids = outputs["topk_log_probs"], outputs["topk_ids"]
        count = len(token_ids)
        check_value(self._file, "logits", outputs["logits"], FLOAT, (count, 1, self._vocabulary))
        check_value(self._file, "topk_log_probs", log_probs, FLOAT, (count, None))
        check_value(self._file, "topk_ids", ids, INT64, log_probs.shape())
        return Scores((log_probs, ids), outputs["logits"], self._impossible)

    def _impossible(self) -> GraphRunError:
        """Names the graph and the output that are the first to hold numbers that are none."""
        encoder, embed = (self._model.file(g) for g in (contract.ENCODER, contract.EMBED_TOKENS))
        names = contract.cache_names("present", "encoder", self._model.layers)
        outputs = [(encoder, name, value) for name, value in zip(names, self._cross, strict=True)]
        for file, name, value in (*outputs, (embed, "inputs_embeds", self._embedded)):
            if not np.isfinite(value.numpy()).all():
                return impossible_numbers(file, name)
        return _impossible_scores(self._file)

    def _take_slots(self) -> Ids:
        """Gives every row a slot that no row of its request sees; int64 [active,beams]."""
        beams = self._seen.shape[1]
        used = self._seen.any(axis=1)
        missing = int(used.sum(axis=1).max()) + beams - used.shape[1]
        if missing > 0:
            self._grow(blocks=-(-missing // BLOCK))
            used = self._seen.any(axis=1)
        slots = np.argsort(used, axis=1, kind="stable")[:, :beams]
        np.put_along_axis(self._seen, slots[:, :, None], True, axis=2)
        return np.ascontiguousarray(slots)

    def _encode(self, inputs_embeds: npt.NDArray[np.float32]) -> "list[ort.OrtValue]":
        file, binding = self._model.file(contract.ENCODER), self._model.encoder.io_binding()
        names = list(contract.cache_names("present", "encoder", self._model.layers))
        device = self._handover_device(self._model.encoder)
        with running(file):
            binding.bind_cpu_input("attention_mask", self._mask)
            binding.bind_cpu_input("inputs_embeds", inputs_embeds)
            for name in names:
                binding.bind_output(name, *device)
            self._model.encoder.run_with_iobinding(binding)
        values = list(binding.get_outputs())
        batch, length = self._mask.shape
        heads, head_dim = self._cache_sizes
        for name, value in zip(names, values, strict=True):
            check_value(file, name, value, FLOAT, (batch, heads, length, head_dim))
        return values

    def _empty_cache(self) -> "list[ort.OrtValue]":
        import onnxruntime as ort

        shape = (len(self._mask), self._cache_sizes[0], BLOCK, self._cache_sizes[1])
        # Zeros, because what lies in unseen slots is multiplied by zero and must not be NaN.
        zeros = np.zeros(shape, dtype=np.float32)
        return [ort.OrtValue.ortvalue_from_numpy(zeros.copy(), *self._device) for _ in self._cross]

    def _embed_tokens(self, token_ids: Ids) -> "ort.OrtValue":
        file = self._model.file(contract.EMBED_TOKENS)
        with running(file):
            self._embed.bind_cpu_input("input_ids", token_ids[:, None])
            self._embed.bind_output("inputs_embeds", *self._embeds_device)
            self._model.embed_tokens.run_with_iobinding(self._embed)
        value: ort.OrtValue = self._embed.get_outputs()[0]
        check_value(file, "inputs_embeds", value, FLOAT, (len(token_ids), 1, self._width))
        return value

    def _handover_device(self, session: "ort.InferenceSession") -> Device:
        """Where a graph leaves what the decoder reads: beside the decoder's tensors or on the host.

        Binding an input copies it from the host to the decoder's device, but not from another.
        """
        device = device_of(session)
        return device if device == self._device else HOST

    def _bind_caches(self) -> None:
        """Binds what stays where it is from step to step; past and present share a buffer."""
        layers = self._model.layers
        step = self._step
        step.clear_binding_inputs()
        step.clear_binding_outputs()
        step.bind_cpu_input("encoder_attention_mask", self._mask)
        names = contract.cache_names("past_key_values", "encoder", layers)
        for name, value in zip(names, self._cross, strict=True):
            step.bind_ortvalue_input(name, value)
        for prefix, bind in (
            ("past_key_values", step.bind_ortvalue_input),
            ("present", step.bind_ortvalue_output),
        ):
            names = contract.cache_names(prefix, "decoder", layers)
            for name, value in zip(names, self._cache, strict=True):
                bind(name, value)
        present = contract.cache_names("present", "decoder", layers)
        self._outputs = [*present, "topk_log_probs", "topk_ids", "logits"]

    def _keep(self, kept: Ids) -> None:
        """Drops the other requests from the mask and both caches."""
        count = len(self._cross)
        values = self._gather([*self._cross, *self._cache], kept, axis=0)
        self._cross, self._cache = values[:count], values[count:]
        self._mask = np.ascontiguousarray(self._mask[kept])
        self._bind_caches()

    def _grow(self, blocks: int) -> None:
        """Adds blocks of slots; what they hold is not seen before it is written."""
        capacity, more = self._seen.shape[2], blocks * BLOCK
        slots = np.minimum(np.arange(capacity + more), capacity - 1)
        self._cache = self._gather(self._cache, slots, axis=2)
        self._seen = np.pad(self._seen, ((0, 0), (0, 0), (0, more)))
        self._bind_caches()

    def _gather(
        self, values: "list[ort.OrtValue]", indices: Ids, axis: int
    ) -> "list[ort.OrtValue]":
        """Takes ``indices`` of an axis of every value, where the provider keeps them."""
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1  # Starting threads would take longer than copying.
        decoder = self._model.decoder
        settings = decoder.get_provider_options()
        session = ort.InferenceSession(
            gather_graph(len(values), rank=4, axis=axis),
            options,
            # Of the providers that share the host's memory, the CPU gathers best.
            providers=[
                (name, settings[name]) for name in decoder.get_providers() if name in (CUDA, CPU)
            ],
        )
        binding = session.io_binding()
        binding.bind_cpu_input("indices", indices)
        for i, value in enumerate(values):
            binding.bind_ortvalue_input(f"data_{i}", value)
            binding.bind_output(f"out_{i}", *self._device)
        with running(self._file):
            session.run_with_iobinding(binding)
        return list(binding.get_outputs())
