"""The recipe of a training run, read from a JSON file."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from florence_onnx.errors import InputError


@dataclass(frozen=True)
class Optimisation:
    """How any checkpoint is trained; the defaults are for fine-tuning."""

    seed: int = 0
    """Seeds weights, the order of pictures and the choice of questions."""
    steps: int = 1000
    """Optimiser steps in all."""
    batch_size: int = 8
    """Pictures per step; on drawn scenes, each stage has its own."""
    learning_rate: float = 1e-5
    """AdamW's, at its highest."""
    warmup_steps: int = 50
    """Steps of linear rise to `learning_rate`."""
    hold_steps: int = 50
    """The step at which the cosine decay to zero begins."""
    weight_decay: float = 0.01
    """AdamW's, on matrices only."""
    clip: float = 1.0
    """The most the gradient's norm may be."""
    location_sigma: tuple[float, float] = (2.0, 2.0)
    """Width in bins of the targets of location tokens: while held, and at the end of the decay."""
    bfloat16: bool = False
    """Whether the language model's products run in bfloat16, on processors that are fast at it."""
    save_every: int = 500
    """Steps between checkpoints, and between evaluations on held-out questions."""


@dataclass(frozen=True)
class Stage:
    """What is asked from a step on."""

    first_step: int
    """The step at which it begins."""
    batch_size: int
    """Pictures per step, in place of the optimisation's."""
    most_shapes: int
    """The most shapes a scene may have."""
    questions: int
    """Questions per picture and step, of different tasks; 0 to train the auxiliary head alone."""
    task_weights: dict[str, float]
    """How often each task is asked, in relation to the others."""


@dataclass(frozen=True)
class Scratch:
    """What a run from scratch on drawn scenes needs besides."""

    image_size: int
    """Side in pixels of the square that pictures are squashed to."""
    text_tokens: int
    """The most token ids that text may take."""
    vision: dict[str, Any]
    """Fields of transformers' Florence2VisionConfig."""
    text: dict[str, Any]
    """Fields of transformers' BartConfig."""
    pictures: int
    """Training scenes 0..pictures-1, from which every step draws by lot."""
    dense_weight: float
    """Weight of the auxiliary head's loss."""
    evaluated_scenes: int
    """Held-out scenes that every task is asked about at each checkpoint; 0 for none."""
    stages: tuple[Stage, ...]
    """In the order of their first steps; the first begins at step 0."""

    def stage(self, step: int) -> Stage:
        """The stage a step belongs to."""
        return [stage for stage in self.stages if stage.first_step <= step][-1]

    @property
    def grid(self) -> int:
        """Image tokens per side."""
        side = self.image_size
        for stride in self.vision["patch_stride"]:
            side //= stride
        return int(side)


@dataclass(frozen=True)
class Recipe:
    """A whole configuration file."""

    optimisation: Optimisation
    """Under "optimisation"; fields left out have their defaults."""
    scratch: Scratch | None
    """Under "scratch"; only needed without a checkpoint to start from."""


def load_recipe(path: Path) -> Recipe:
    """Read a configuration file.

    Raises:
        InputError: if it is not JSON or has unknown, missing or misplaced fields.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        unknown = set(raw) - {field.name for field in fields(Recipe)}
        if unknown:
            raise TypeError(f"unknown sections {sorted(unknown)}")
        settings = raw.get("optimisation", {})
        if "location_sigma" in settings:
            start, end = settings["location_sigma"]
            settings = {**settings, "location_sigma": (start, end)}
        scratch = None
        if "scratch" in raw:
            stages = tuple(Stage(**stage) for stage in raw["scratch"]["stages"])
            scratch = Scratch(**{**raw["scratch"], "stages": stages})
        return Recipe(Optimisation(**settings), scratch)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} is not a training configuration: {error}") from error
