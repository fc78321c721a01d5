"""Evaluation of a network on held-out scenes, with transformers' generation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import Florence2ForConditionalGeneration

from florence_onnx.tasks import Task
from florence_onnx_export.graphs.stages import image_features
from florence_onnx_export.scenes.answers import fixed_question
from florence_onnx_export.scenes.drawing import draw
from florence_onnx_export.scenes.measures import score
from florence_onnx_export.scenes.metrics import Answered, plain
from florence_onnx_export.scenes.scene import sample_scene
from florence_onnx_export.training.batches import ExampleSource
from florence_onnx_export.training.cache import squashed
from florence_onnx_export.training.steps import PAD, AnswerLoss, padded, pixel_values

_LONGEST = 160
"""Limit of generated tokens, above the length of any right answer about a drawn scene."""
_AROUND = 2
"""Number of tokens of an answer that are not its text: the first token and the end."""


def evaluate(
    network: Florence2ForConditionalGeneration,
    tokenizer: Tokenizer,
    image_size: int,
    scenes: int,
) -> dict[str, float]:
    """Measures the answers to all tasks on the first held-out scenes."""
    if scenes == 0:
        return {}
    answers: list[Answered] = []
    drawn = [sample_scene(seed, "held-out") for seed in range(scenes)]
    pictures = np.stack([squashed(draw(scene), image_size) for scene in drawn])
    for task in Task:
        questions = [fixed_question(scene, task) for scene in drawn]
        prompts = [question.prompt for question in questions]
        texts = generate(network, tokenizer, pictures, prompts, _LONGEST)
        answers += map(Answered, drawn, questions, texts)
    return score(answers)


def evaluate_examples(
    network: Florence2ForConditionalGeneration,
    tokenizer: Tokenizer,
    source: ExampleSource,
    bfloat16: bool,
) -> dict[str, float]:
    """Measures the loss per token and the share of exact greedy answers on examples."""
    answer_loss = AnswerLoss(network, tokenizer, groups=1, bfloat16=bfloat16)
    losses, exact = [], []
    for batch in source.once():
        with torch.inference_mode():
            loss, _ = answer_loss(batch, sigma=0.0, head=None)
        losses += [loss.item()] * len(batch.questions)
        prompts = [prompt for _, prompt, _ in batch.questions]
        answers = [answer for _, _, answer in batch.questions]
        longest = max(len(tokenizer.encode(answer).ids) for answer in answers) + _AROUND
        texts = generate(network, tokenizer, batch.pictures, prompts, longest)
        exact += [plain(text) == answer for text, answer in zip(texts, answers, strict=True)]
    return {"validation_loss": float(np.mean(losses)), "validation_exact": float(np.mean(exact))}


def generate(
    network: Florence2ForConditionalGeneration,
    tokenizer: Tokenizer,
    pictures: NDArray[np.uint8],
    prompts: Sequence[str],
    longest: int,
) -> list[str]:
    """Generates one greedy answer per picture (uint8 [pictures, size, size, 3]) and prompt.

    The answers contain special tokens. ``longest`` is in tokens.
    """
    inputs = model_inputs(network, tokenizer, pictures, prompts)
    with torch.inference_mode():
        generated = network.generate(**inputs, num_beams=1, do_sample=False, max_new_tokens=longest)
    rows = torch.as_tensor(generated).tolist()
    return [tokenizer.decode(row, skip_special_tokens=False) for row in rows]


def model_inputs(
    network: Florence2ForConditionalGeneration,
    tokenizer: Tokenizer,
    pictures: NDArray[np.uint8],
    prompts: Sequence[str],
) -> dict[str, Any]:
    """Makes the arguments of the network for pictures with one prompt each."""
    pixels = pixel_values(pictures).to(network.device)
    with torch.inference_mode():
        tokens = image_features(network, pixels[:1]).shape[1]
    image = [network.config.image_token_id] * tokens
    ids = padded([image + tokenizer.encode(prompt).ids for prompt in prompts])
    ids = ids.to(network.device)
    return {
        "input_ids": ids,
        "attention_mask": (ids != PAD).long(),
        "pixel_values": pixels,
    }
