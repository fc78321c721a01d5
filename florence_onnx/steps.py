"""The decoder as a step() callable, with its cache kept where the provider keeps it."""

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from florence_onnx import graphs
from florence_onnx.gather import gather_graph
from florence_onnx.sessions import Graphs

if TYPE_CHECKING:
    import onnxruntime as ort

Ids = npt.NDArray[np.int64]


class Scores:
    """The log-probabilities of one step; they come to the host only as far as they are read."""

    def __init__(self, best: "tuple[ort.OrtValue, ort.OrtValue]", logits: "ort.OrtValue") -> None:
        self._log_probs, self._ids = best
        self._logits = logits

    def top(self, k: int) -> tuple[npt.NDArray[np.float32], Ids]:
        """The ``k`` best tokens per row: log-probabilities descending [R,k] and ids [R,k]."""
        if k <= self._ids.shape()[1]:
            return self._log_probs.numpy()[:, :k], self._ids.numpy()[:, :k]
        logits = self._logits.numpy()[:, -1]
        k = min(k, logits.shape[1])
        # In order of their ids, so that the lower id comes first where logits are equal.
        best = np.sort(np.argpartition(logits, -k, axis=1)[:, -k:], axis=1)
        order = np.argsort(-np.take_along_axis(logits, best, axis=1), axis=1, kind="stable")
        ids = np.take_along_axis(best, order, axis=1)
        peak = logits.max(axis=1, keepdims=True)
        norm = peak + np.log(np.exp(logits - peak).sum(axis=1, keepdims=True))
        return np.take_along_axis(logits, ids, axis=1) - norm, ids


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
        import onnxruntime as ort

        self._ort = ort
        self._model = model
        self._requests = np.arange(len(attention_mask))
        self._mask = attention_mask
        self._past_names = list(graphs.cache_names("past_key_values", "decoder", model.layers))
        self._cross_names = list(graphs.cache_names("past_key_values", "encoder", model.layers))
        self._present_names = list(graphs.cache_names("present", "decoder", model.layers))
        self._cross = self._encode(inputs_embeds)
        batch, heads, _, head_dim = self._cross[0].shape()
        empty = ort.OrtValue.ortvalue_from_shape_and_type(
            [batch, heads, 0, head_dim], np.float32, model.device, model.device_id
        )
        self._past = [empty] * len(self._past_names)
        self._embed = model.embed_tokens.io_binding()
        self._step = model.decoder.io_binding()
        self._bind_cross()

    def __call__(self, token_ids: Ids, rows: Ids, requests: Ids) -> Scores:
        """One step of the search.

        Args:
            token_ids: The token each row appends, int64 [R].
            rows: The row of the previous call that each row continues, int64 [R].
            requests: The requests still in the batch, int64 [active]; R is a multiple of it.
        """
        if len(requests) < len(self._requests):
            self._keep(np.searchsorted(self._requests, requests))
            self._requests = requests
        step = self._step
        step.bind_ortvalue_input("inputs_embeds", self._embed_tokens(token_ids))
        step.bind_cpu_input("beam_idx", rows)
        for name, value in zip(self._past_names, self._past, strict=True):
            step.bind_ortvalue_input(name, value)
        step.clear_binding_outputs()
        step.bind_output("topk_log_probs", "cpu")
        step.bind_output("topk_ids", "cpu")
        for name in ("logits", *self._present_names):
            self._bind_output(step, name)
        self._model.decoder.run_with_iobinding(step)
        log_probs, ids, logits, *self._past = step.get_outputs()
        return Scores((log_probs, ids), logits)

    def _encode(self, inputs_embeds: npt.NDArray[np.float32]) -> "list[ort.OrtValue]":
        binding = self._model.encoder.io_binding()
        binding.bind_cpu_input("attention_mask", self._mask)
        binding.bind_cpu_input("inputs_embeds", inputs_embeds)
        for name in graphs.cache_names("present", "encoder", self._model.layers):
            self._bind_output(binding, name)
        self._model.encoder.run_with_iobinding(binding)
        return list(binding.get_outputs())

    def _embed_tokens(self, token_ids: Ids) -> "ort.OrtValue":
        self._embed.bind_cpu_input("input_ids", token_ids[:, None])
        self._embed.clear_binding_outputs()
        self._bind_output(self._embed, "inputs_embeds")
        self._model.embed_tokens.run_with_iobinding(self._embed)
        value: ort.OrtValue = self._embed.get_outputs()[0]
        return value

    def _bind_cross(self) -> None:
        self._step.bind_cpu_input("encoder_attention_mask", self._mask)
        for name, value in zip(self._cross_names, self._cross, strict=True):
            self._step.bind_ortvalue_input(name, value)

    def _bind_output(self, binding: "ort.IOBinding", name: str) -> None:
        """Leaves an output where the graphs run."""
        binding.bind_output(name, self._model.device, self._model.device_id)

    def _keep(self, kept: Ids) -> None:
        """Drops the other requests from the mask and the cross-attention cache."""
        binding = self._gather.io_binding()
        binding.bind_cpu_input("rows", kept)
        for i, value in enumerate(self._cross):
            binding.bind_ortvalue_input(f"data_{i}", value)
            self._bind_output(binding, f"out_{i}")
        self._gather.run_with_iobinding(binding)
        self._cross = list(binding.get_outputs())
        self._mask = np.ascontiguousarray(self._mask[kept])
        self._bind_cross()

    @cached_property
    def _gather(self) -> "ort.InferenceSession":
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = 1
        decoder = self._model.decoder
        given = decoder.get_provider_options()
        providers = [(name, given[name]) for name in decoder.get_providers()]
        graph = gather_graph(len(self._cross), rank=4)
        return self._ort.InferenceSession(graph, options, providers=providers)
