"""Training runs: of a checkpoint on examples, and of a new model on drawn scenes."""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from florence_onnx.assets.reading import Assets
from florence_onnx.assets.writing import write_assets
from florence_onnx.checkpoints.checkpoint import check_values, read_checkpoint
from florence_onnx.errors import InputError
from florence_onnx.tasks import Task
from florence_onnx_export.graphs.reference import transformers_model
from florence_onnx_export.scenes.answers import ask
from florence_onnx_export.scenes.scene import sample_scene
from florence_onnx_export.training.batches import ExampleSource, SceneSource
from florence_onnx_export.training.cache import cached_pictures
from florence_onnx_export.training.config import Recipe
from florence_onnx_export.training.dense import DenseHead
from florence_onnx_export.training.evaluation import evaluate, evaluate_examples
from florence_onnx_export.training.examples import read_examples
from florence_onnx_export.training.folder import (
    MODEL,
    model_folder,
    run_folder,
    save_folder,
    save_tuned,
)
from florence_onnx_export.training.loop import train
from florence_onnx_export.training.network import build_network, tied
from florence_onnx_export.training.vocabulary import IMAGE_TOKEN, token_id, train_tokenizer
from florence_onnx_export.weights import torch_weights

_TOKENIZER_SCENES = 1000
_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def train_from_scratch(recipe: Recipe, out: Path) -> list[float]:
    """Trains a new model on drawn scenes and writes the model to ``out/model``.

    Args:
        recipe: The recipe, with a section for training from scratch.
        out: The folder of the run.

    Returns:
        The losses.

    Raises:
        InputError: The recipe has no section for training from scratch.
    """
    scratch, settings = recipe.needed_scratch(), recipe.optimisation
    with run_folder(out) as unfinished:
        torch.manual_seed(settings.seed)
        tokenizer = scene_tokenizer(scratch.text_tokens)
        network = build_network(scratch.vision, scratch.text, tokenizer)
        network.to(_DEVICE)  # type: ignore[arg-type]
        size = scratch.image_size
        pictures = cached_pictures(out / f"pictures-{size}.npy", scratch.pictures, size, unfinished)
        losses = train(
            network,
            tokenizer,
            SceneSource(scratch, pictures, settings.seed),
            settings,
            out,
            unfinished,
            head=DenseHead(scratch.text["d_model"]).to(_DEVICE),
            dense_weight=scratch.dense_weight,
            evaluate=partial(evaluate, network, tokenizer, size, scratch.evaluated_scenes),
        )
        with model_folder(out / MODEL) as folder:
            save_folder(network, tokenizer, size, scratch.grid**2 + 1, folder)
    return losses


def fine_tune(
    recipe: Recipe, checkpoint: str, data: Path, out: Path, validation: Path | None = None
) -> list[float]:
    """Trains a checkpoint on examples of the user and writes the model to ``out/model``.

    Args:
        recipe: The recipe. Only the settings of the optimisation are used.
        checkpoint: Folder or hub id.
        data: File of the examples.
        out: The folder of the run.
        validation: File of examples to measure on.

    Returns:
        The losses.

    Raises:
        InputError: An example cannot be used, or the checkpoint's picture size is no square.
    """
    settings = recipe.optimisation
    with run_folder(out, checkpoint) as unfinished:
        torch.manual_seed(settings.seed)
        start = read_checkpoint(checkpoint)
        with tempfile.TemporaryDirectory() as folder:
            write_assets(start.folder, start.config, start.raw_config, Path(folder))
            tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
            assets = Assets.read(Path(folder))
        size, width = assets.preprocessor.size
        if size != width:
            raise InputError(f"{checkpoint} takes pictures of {width}x{size}, and not squares")
        examples = read_examples(data, assets)
        held_out = [] if validation is None else read_examples(validation, assets)
        check_values(start)
        network = tied(transformers_model(start.config, torch_weights(start)), start)
        network.to(_DEVICE)  # type: ignore[arg-type]
        # Microsoft's tokenizers have no image token: take an id that no prompt has.
        placeholder = IMAGE_TOKEN if tokenizer.token_to_id(IMAGE_TOKEN) is not None else "<mask>"
        network.config.image_token_id = token_id(tokenizer, placeholder)
        source = ExampleSource(examples, size, settings.batch_size, settings.seed)
        evaluate_held_out = None
        if held_out:
            validated = ExampleSource(held_out, size, settings.batch_size, settings.seed)
            evaluate_held_out = partial(
                evaluate_examples, network, tokenizer, validated, settings.bfloat16
            )
        losses = train(
            network, tokenizer, source, settings, out, unfinished, evaluate=evaluate_held_out
        )
        with model_folder(out / MODEL) as made:
            save_tuned(network, start, made)
    return losses


def scene_tokenizer(text_tokens: int) -> Tokenizer:
    """Trains a tokenizer on the texts of the first training scenes."""
    texts = []
    for seed in range(_TOKENIZER_SCENES):
        scene, rng = sample_scene(seed), np.random.default_rng(seed)
        for task in Task:
            question = ask(scene, task, rng)
            texts += [question.prompt, question.answer]
    return train_tokenizer(texts, text_tokens)
