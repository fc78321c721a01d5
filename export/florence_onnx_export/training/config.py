"""Recipe of a training run, from a JSON file."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from florence_onnx.checkpoints.config import ModelConfig, TextConfig, VisionConfig
from florence_onnx.errors import InputError
from florence_onnx.fields import Fields
from florence_onnx.files import read_json
from florence_onnx.tasks import Task

_DROPOUTS = ("dropout", "attention_dropout", "activation_dropout")


@dataclass(frozen=True)
class Optimisation:
    """Settings of any training. The defaults are for fine-tuning."""

    seed: int = 0
    """Seed of weights, of the order of pictures and of the choice of questions."""
    steps: int = 1000
    """Optimiser steps in all."""
    batch_size: int = 8
    """Pictures per step. For drawn scenes, each stage has its own number."""
    learning_rate: float = 1e-5
    """Highest learning rate of AdamW."""
    warmup_steps: int = 50
    """Number of steps of linear warm-up to `learning_rate`."""
    hold_steps: int = 50
    """Step at which the cosine decay to zero begins."""
    weight_decay: float = 0.01
    """Weight decay of AdamW, on matrices only."""
    clip: float = 1.0
    """Largest norm of the gradients, beyond which gradients are clipped."""
    location_sigma: tuple[float, float] = (2.0, 2.0)
    """Width in bins of the targets of location tokens: before the decay, and at its end."""
    bfloat16: bool = False
    """Tells whether the language model's matmuls run in bfloat16, which is fast with AMX."""
    save_every: int = 500
    """Steps between checkpoints, and between evaluations on held-out questions."""


@dataclass(frozen=True)
class Stage:
    """Questions that are asked from a step on."""

    first_step: int
    """First step of the stage."""
    batch_size: int
    """Pictures per step, in place of the optimisation's."""
    most_shapes: int
    """Largest number of shapes in a scene."""
    questions: int
    """Questions per picture and step, of different tasks; 0 trains the auxiliary head alone."""
    task_weights: dict[str, float]
    """Frequencies of the tasks, relative to each other."""


@dataclass(frozen=True)
class Scratch:
    """Settings of a run from scratch on drawn scenes."""

    image_size: int
    """Side in pixels of the square to which pictures are resized."""
    text_tokens: int
    """Largest number of token ids for text."""
    vision: dict[str, Any]
    """Fields of transformers' Florence2VisionConfig."""
    text: dict[str, Any]
    """Fields of transformers' BartConfig."""
    pictures: int
    """Number of training scenes, from which every step takes random ones."""
    dense_weight: float
    """Weight of the auxiliary head's loss."""
    evaluated_scenes: int
    """Number of held-out scenes for the evaluation at each checkpoint; 0 for no evaluation."""
    stages: tuple[Stage, ...]
    """Stages in the order of their first steps; the first stage begins at step 0."""

    def stage(self, step: int) -> Stage:
        """Returns the stage of a step."""
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
    """Content of a configuration file."""

    optimisation: Optimisation
    """Settings under "optimisation". A field that is left out has the default."""
    scratch: Scratch | None
    """Settings under "scratch", needed only without a checkpoint to start from."""

    def needed_scratch(self) -> Scratch:
        """Returns the settings for training from scratch.

        Raises:
            InputError: The recipe has no such settings.
        """
        if self.scratch is None:
            raise InputError("training from scratch needs a recipe with a 'scratch' section")
        return self.scratch


def read_recipe(config: Path | None, steps: int | None) -> Recipe:
    """Reads a recipe.

    Args:
        config: JSON file; None for the default recipe, which is for fine-tuning.
        steps: Number of optimiser steps, in place of the number in the recipe.

    Raises:
        InputError: The file is no recipe.
    """
    read = Recipe(Optimisation(), None) if config is None else load_recipe(config)
    if steps is None:
        return read
    return replace(read, optimisation=replace(read.optimisation, steps=steps))


def load_recipe(path: Path) -> Recipe:
    """Reads a configuration file.

    Raises:
        InputError: The file is not JSON, or a field is unknown, missing or out of range.
    """
    recipe = Fields(read_json(path, InputError), str(path), InputError)
    recipe.refuse_others(field.name for field in fields(Recipe))
    scratch = None
    if recipe.get("scratch") is not None:
        scratch = _scratch(recipe.section("scratch"), path)
    return Recipe(_optimisation(recipe.section("optimisation")), scratch)


def _optimisation(given: Fields) -> Optimisation:
    given.refuse_others(field.name for field in fields(Optimisation))
    unsaid = Optimisation()
    start, end = given.numbers("location_sigma", 2, 0, 1000, unsaid.location_sigma)
    return Optimisation(
        seed=given.integer("seed", 0, 2**32 - 1, unsaid.seed),
        steps=given.integer("steps", 1, 10**9, unsaid.steps),
        batch_size=given.integer("batch_size", 1, 10_000, unsaid.batch_size),
        learning_rate=given.number("learning_rate", 0, 1, unsaid.learning_rate),
        warmup_steps=given.integer("warmup_steps", 0, 10**9, unsaid.warmup_steps),
        hold_steps=given.integer("hold_steps", 0, 10**9, unsaid.hold_steps),
        weight_decay=given.number("weight_decay", 0, 1, unsaid.weight_decay),
        clip=given.number("clip", 1e-6, 1e6, unsaid.clip),
        location_sigma=(start, end),
        bfloat16=given.boolean("bfloat16", unsaid.bfloat16),
        save_every=given.integer("save_every", 1, 10**9, unsaid.save_every),
    )


def _scratch(given: Fields, path: Path) -> Scratch:
    given.refuse_others(field.name for field in fields(Scratch))
    vision, text = given.section("vision"), given.section("text")
    vision.refuse_others([*(field.name for field in fields(VisionConfig)), "drop_path_rate"])
    text.refuse_others([*(field.name for field in fields(TextConfig)), *_DROPOUTS])
    if vision.get("patch_stride") is None:
        raise vision.refused("patch_stride", "a list of whole numbers")
    text.integer("d_model", 1, 16384)
    vision.number("drop_path_rate", 0, 1, 0)
    for name in _DROPOUTS:
        text.number(name, 0, 1, 0)
    scratch = Scratch(
        image_size=given.integer("image_size", 8, 4096),
        text_tokens=given.integer("text_tokens", 260, 1_000_000),
        vision=given.get("vision"),
        text=given.get("text"),
        pictures=given.integer("pictures", 1, 10**8),
        dense_weight=given.number("dense_weight", 0, 1e6),
        evaluated_scenes=given.integer("evaluated_scenes", 0, 10**6),
        stages=tuple(map(_stage, given.sections("stages"))),
    )
    starts = [stage.first_step for stage in scratch.stages]
    if starts[:1] != [0] or starts != sorted(set(starts)):
        raise given.refused("stages", "a list that begins with first_step 0 and goes up from there")
    _check_network(scratch, path)
    return scratch


def _stage(given: Fields) -> Stage:
    given.refuse_others(field.name for field in fields(Stage))
    weights = given.section("task_weights")
    names = list(given.get("task_weights", {}))
    weights.refuse_others(task.value for task in Task)
    stage = Stage(
        first_step=given.integer("first_step", 0, 10**9),
        batch_size=given.integer("batch_size", 1, 10_000),
        most_shapes=given.integer("most_shapes", 1, 100),
        questions=given.integer("questions", 0, len(Task)),
        task_weights={name: weights.number(name, 1e-6, 1e6) for name in names},
    )
    if stage.questions > len(names):
        raise given.refused("questions", f"at most {len(names)}, the tasks in task_weights")
    return stage


def _check_network(scratch: Scratch, path: Path) -> None:
    """Checks the geometry of the network, by the rules for checkpoints."""
    config = ModelConfig.from_dict(
        {
            "model_type": "florence2",
            "text_config": {**scratch.text, "model_type": "bart"},
            "vision_config": {**scratch.vision, "projection_dim": scratch.text["d_model"]},
        },
        InputError,
        f"{path}: scratch",
    )
    side = scratch.image_size
    places, positions = config.vision.max_position_embeddings, config.text.max_position_embeddings
    grid = config.vision.grid(side, side)
    if grid != (scratch.grid, scratch.grid):
        raise InputError(
            f"{path}: scratch.image_size is {side}, but must be a multiple of all strides together"
        )
    if not 0 < scratch.grid <= places or scratch.grid**2 + 1 >= positions:
        raise InputError(
            f"{path}: scratch.image_size is {side}: pictures become {grid[1]}x{grid[0]} image "
            f"tokens, but vision.max_position_embeddings is {places} and "
            f"text.max_position_embeddings {positions}"
        )
