"""OpenVINO on graphs traced from transformers' modules; a variant is the inference precision.

The graphs are a direct conversion of transformers' modules. The engine keeps the decoder's cache
and reorders the beams. Keys and values of the cross-attention are computed once per picture.
Preprocessing, search and parsing are those of this package.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov

from benchmarks.harness.common import ROOT, BenchmarkError, Picture, Setup
from benchmarks.peers import Answer
from florence_onnx.assets.reading import Assets
from florence_onnx.generation.ranking import best_ids, log_softmax
from florence_onnx.generation.search import search
from florence_onnx.parsing import parse_answer
from florence_onnx.prompts import build_prompt

VARIANTS = ("f32", "bf16")
GRAPHS = ("vision", "encoder", "decoder")

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class OpenVino:
    """Peer with three compiled graphs and the code of this package around the graphs."""

    name: str
    """Name of the engine and of the inference precision."""
    assets: Assets
    """Preprocessing, tokenizer and generation policy."""
    vision: Any
    """Graph from pixel_values to image_features."""
    encoder: Any
    """Graph from image_features, input_ids, attention_mask to cross-attention keys and values."""
    decoder: Any
    """Graph from input_ids, attention_mask, beam_idx, keys and values to logits, with a cache."""

    def answer(
        self, pictures: Sequence[Picture], task: str, tokens: int, beams: int
    ) -> list[Answer]:
        """See `Peer`."""
        policy = self.assets.policy.replace(
            num_beams=beams, min_new_tokens=tokens, max_new_tokens=tokens
        )
        tokenizer = self.assets.tokenizer
        features = [
            self.vision([self.assets.preprocessor(picture)[None]])[0] for picture in pictures
        ]
        prompt = [tokenizer.encode(build_prompt(task))] * len(pictures)
        found = search(self._steps(np.concatenate(features), prompt), len(pictures), policy)
        answers = []
        for (best, *_), picture in zip(found, pictures, strict=True):
            size = (picture.shape[1], picture.shape[0])
            parsed = parse_answer(tokenizer.decode(best.token_ids), task, size)
            answers.append(Answer(best.token_ids, parsed.to_dict()))
        return answers

    def _steps(self, features: Floats, prompt: list[list[int]]) -> "_Steps":
        input_ids = np.array(prompt, dtype=np.int64)
        mask = np.ones((len(features), features.shape[1] + input_ids.shape[1]), dtype=np.int64)
        return _Steps(self.decoder, mask, list(self.encoder([features, input_ids, mask]).values()))


class _Steps:
    """Steps of the decoder, for the search of this package."""

    def __init__(self, decoder: Any, mask: Ids, cross: list[Floats]) -> None:
        self._request = decoder.create_infer_request()
        self._mask, self._cross = mask, cross
        self._rows = 0
        _, heads, _, head_dim = cross[0].shape
        for state in self._request.query_state():
            state.state = ov.Tensor(np.zeros((len(mask), heads, 0, head_dim), np.float32))

    def __call__(self, token_ids: Ids, rows: Ids, requests: Ids) -> "_Scores":
        if len(requests) != len(self._mask):
            raise BenchmarkError("requests of one length leave the search together")
        if len(token_ids) != self._rows:
            self._rows = len(token_ids)
            self._repeat(self._rows // len(requests))
        self._set("input_ids", token_ids[:, None])
        self._set("beam_idx", rows)
        self._request.infer()
        return _Scores(self._request.get_tensor("logits").data)

    def _repeat(self, beams: int) -> None:
        """Repeats the encoding of each picture for every beam."""
        self._set("attention_mask", self._mask.repeat(beams, axis=0))
        for i, values in enumerate(self._cross):
            self._set(f"cross.{i}", values.repeat(beams, axis=0))

    def _set(self, name: str, values: npt.NDArray[Any]) -> None:
        self._request.set_tensor(name, ov.Tensor(np.ascontiguousarray(values)))


class _Scores:
    """Scores of one step, for the search of this package."""

    def __init__(self, logits: Floats) -> None:
        self._logits = logits

    def top(self, k: int) -> tuple[Floats, Ids]:
        """Log-probabilities [R,k] and ids [R,k] of the best tokens."""
        ids = best_ids(self._logits, k)
        return np.take_along_axis(log_softmax(self._logits), ids, axis=1), ids

    def logits(self) -> Floats:
        """Logits of every row, [R,V]."""
        return self._logits


def open_peer(variant: str, setup: Setup) -> OpenVino:
    """Traces the checkpoint's modules once, and compiles the graphs."""
    folder = traced(setup)
    compiled = [compile_graph(folder / f"{name}.xml", variant, setup.threads) for name in GRAPHS]
    return OpenVino(f"openvino {variant}", Assets.read(setup.exported), *compiled)


def traced(setup: Setup) -> Path:
    """Folder with the graphs that are traced from the checkpoint's modules.

    Raises:
        BenchmarkError: The benchmark is on a GPU.
    """
    if setup.device != "cpu":
        raise BenchmarkError("OpenVINO runs on the CPU; leave it out of --peers")
    from benchmarks.harness.checkpoint import kept
    from benchmarks.peers.openvino_tracing import trace_graphs

    return kept(
        setup.home,
        "openvino",
        [ROOT / "benchmarks" / "peers" / "openvino_tracing.py"],
        lambda folder: trace_graphs(setup, folder),
    )


def compile_graph(path: Path, precision: str, threads: int) -> Any:
    """Opens an ``.xml`` or ``.onnx`` file for the lowest latency of one request."""
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
    }
    return ov.Core().compile_model(str(path), "CPU", options)
