"""Training loop: AdamW, warm-up, cosine decay, clipping, checkpoints, resuming."""

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import Florence2ForConditionalGeneration

from florence_onnx.errors import InputError
from florence_onnx.files import whole_file
from florence_onnx_export.training.batches import Batch, Source
from florence_onnx_export.training.config import Optimisation
from florence_onnx_export.training.dense import DenseHead
from florence_onnx_export.training.log import Log
from florence_onnx_export.training.steps import AnswerLoss

_LOG_EVERY = 50
_GROUPS = 4


def train(
    network: Florence2ForConditionalGeneration,
    tokenizer: Tokenizer,
    source: Source,
    settings: Optimisation,
    out: Path,
    unfinished: Path,
    *,
    head: DenseHead | None = None,
    dense_weight: float = 0.0,
    evaluate: Callable[[], dict[str, float]] | None = None,
) -> list[float]:
    """Trains a network in place. A checkpoint in ``out`` is resumed.

    The function writes ``out/state.pt`` (to resume from) and ``out/log.jsonl`` (losses, speed,
    metrics), each by way of the folder ``unfinished``.

    Returns:
        The loss of the answers at every step of this call.

    Raises:
        InputError: ``out`` holds another training's state or log, or the loss becomes NaN or
            infinite.
    """
    log = Log(out / "log.jsonl", unfinished)
    descent = _Descent(network, tokenizer, settings, head, dense_weight, out / "state.pt")
    first = descent.first
    losses: list[float] = []
    started, seen = time.perf_counter(), 0
    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(source.batch, first)
        for step in range(first, settings.steps):
            batch = coming.result()
            coming = ahead.submit(source.batch, step + 1)
            measured = descent.step(batch, step)
            losses.append(measured["loss"])
            seen += len(batch.pictures)
            done = step + 1
            if done % _LOG_EVERY == 0:
                recent = losses[-_LOG_EVERY:]
                measured["loss"] = sum(recent) / len(recent)
                speed = seen / (time.perf_counter() - started)
                log.add(step=done, **measured, pictures_per_second=speed)
                started, seen = time.perf_counter(), 0
            if done % settings.save_every == 0 or done == settings.steps:
                descent.save(out / "state.pt", unfinished, done)
                network.eval()
                metrics = evaluate() if evaluate is not None else {}
                if metrics:
                    log.add(step=done, **metrics)
                started, seen = time.perf_counter(), 0
    network.eval()
    return losses


class _Descent:
    """Steps of the optimiser."""

    def __init__(
        self,
        network: Florence2ForConditionalGeneration,
        tokenizer: Tokenizer,
        settings: Optimisation,
        head: DenseHead | None,
        dense_weight: float,
        state: Path,
    ) -> None:
        self._network, self._settings = network, settings
        self._head, self._dense_weight = head, dense_weight
        self.parts = nn.ModuleDict({"network": network})
        if head is not None:
            self.parts["head"] = head
        self.optimiser = _optimiser(self.parts, settings)
        self.first = _resume(state, self.parts, self.optimiser)
        self._losses = AnswerLoss(network, tokenizer, _GROUPS, settings.bfloat16)

    def step(self, batch: Batch, number: int) -> dict[str, float]:
        """Updates the weights by one batch.

        Returns:
            The losses, the norm of the gradients and the learning rate, for the log.

        Raises:
            InputError: The loss or the norm is NaN or infinite.
        """
        settings = self._settings
        self._network.train()
        rate = learning_rate(number, settings)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        start, end = settings.location_sigma
        sigma = start + (end - start) * decay_progress(number, settings)
        loss, dense = self._losses(batch, sigma, self._head)
        (loss + self._dense_weight * dense).backward()
        norm = nn.utils.clip_grad_norm_(self.parts.parameters(), settings.clip)
        measured = {"loss": loss.item(), "dense": dense.item(), "norm": norm.item()}
        if not (math.isfinite(measured["loss"]) and math.isfinite(measured["norm"])):
            raise InputError(
                f"the training has diverged at step {number}: its loss is {measured['loss']}, the "
                f"norm of its gradients {measured['norm']}; begin again with a lower learning_rate"
            )
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return {**measured, "learning_rate": rate}

    def save(self, path: Path, unfinished: Path, done: int) -> None:
        """Writes a checkpoint after ``done`` steps."""
        state = {
            "step": done,
            "parts": self.parts.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        with whole_file(path, unfinished) as file:
            torch.save(state, file)


def decay_progress(step: int, settings: Optimisation) -> float:
    """Progress of the cosine decay, 0 to 1."""
    length = max(1, settings.steps - settings.hold_steps)
    return min(max(step - settings.hold_steps, 0) / length, 1.0)


def learning_rate(step: int, settings: Optimisation) -> float:
    """Learning rate: linear warm-up, constant until ``hold_steps``, then a cosine to zero."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * decay_progress(step, settings)))
    return settings.learning_rate * warm * cosine


def _optimiser(parts: nn.Module, settings: Optimisation) -> torch.optim.Optimizer:
    matrices = [p for p in parts.parameters() if p.ndim > 1]
    vectors = [p for p in parts.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98), fused=True)


def _resume(path: Path, parts: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Loads a checkpoint if there is one; returns the number of steps done."""
    if not path.exists():
        return 0
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        parts.load_state_dict(state["parts"])
        optimiser.load_state_dict(state["optimiser"])
        return int(state["step"])
    except MemoryError:
        raise
    except Exception as error:  # For a damaged file torch raises almost any error.
        raise InputError(
            f"{path} is damaged or the state of another training, so that this one cannot go on "
            "from it; choose another --out, or delete the file to begin again"
        ) from error
