"""Comparison of the export modules with transformers' own model, stage by stage."""

from collections.abc import Mapping
from dataclasses import asdict

import torch
from torch import Tensor, nn
from transformers import Florence2Config, Florence2ForConditionalGeneration

from florence_onnx.checkpoints.config import ModelConfig
from florence_onnx.engine import contract
from florence_onnx.errors import ValidationError
from florence_onnx_export.graphs.float64 import default_dtype
from florence_onnx_export.graphs.specs import GraphSpec, head_bias
from florence_onnx_export.graphs.stages import decode, embed, encode, image_features

TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}
"""Largest difference of a stage, relative to the stage's largest value: the rounding of float64
amplified a million times, or the rounding of float32 in a decoder that does not amplify."""


def transformers_model(
    config: ModelConfig, weights: Mapping[str, Tensor]
) -> Florence2ForConditionalGeneration:
    """Makes transformers' model of a checkpoint. The model shares the checkpoint's tensors."""
    native = Florence2Config(
        vision_config=asdict(config.vision),
        text_config={"model_type": "bart", **asdict(config.text)},
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        model = Florence2ForConditionalGeneration(native)
    text = "model.language_model."
    shared = weights[f"{text}shared.weight"]
    tied = {f"{text}{side}.embed_tokens.weight": shared for side in ("encoder", "decoder")}
    model.load_state_dict({**weights, **tied}, strict=False, assign=True)
    left = [name for name, tensor in model.state_dict().items() if tensor.is_meta]
    if left:
        raise ValidationError(f"transformers' model needs tensors that were not read: {left[:3]}")
    bias = head_bias(weights)
    if bias is not None:
        # Microsoft's model adds a bias to the logits; transformers' model has no bias there.
        model.lm_head.bias = torch.nn.Parameter(bias)
    return model.eval()


def compare_with_transformers(
    specs: list[GraphSpec],
    model: Florence2ForConditionalGeneration,
    height: int,
    width: int,
) -> dict[str, float]:
    """Runs every stage of both models on the same inputs, in the type of the weights.

    A checkpoint may amplify rounding so much that two equal models differ in float32. The decoder
    of the export modules runs token by token through its cache, the decoder of transformers runs
    once over all tokens. Each picture has two beams.

    Args:
        specs: The graphs' modules, made by ``build_specs``.
        model: transformers' model with the same weights, float64 or float32.
        height: Picture height in pixels.
        width: Picture width in pixels.

    Returns:
        The relative difference per stage.

    Raises:
        ValidationError: A stage differs by more than ``TOLERANCE``.
    """
    modules = {spec.name: spec.module for spec in specs}
    with torch.inference_mode(), default_dtype(model.dtype):
        differences = _compare_stages(modules, model, height, width)
    allowed = TOLERANCE[model.dtype]
    for stage, difference in differences.items():
        if not difference <= allowed:
            raise ValidationError(
                f"{stage} differs from transformers by {difference:.2g} of its largest value at "
                f"{width}x{height} pixels; {allowed:g} is allowed"
            )
    return differences


def _compare_stages(
    modules: dict[str, nn.Module],
    model: Florence2ForConditionalGeneration,
    height: int,
    width: int,
) -> dict[str, float]:
    batch, beams, steps = 2, 2, 3
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn((batch, 3, height, width), generator=generator, dtype=model.dtype)
    ids = torch.randint(0, 100, (batch, 8), generator=generator)
    decoded = torch.randint(0, 100, (batch * beams, steps), generator=generator)

    features = modules[contract.VISION_ENCODER](pixels)
    embeds = modules[contract.EMBED_TOKENS](ids)
    expected_features = image_features(model, pixels)
    expected_embeds = embed(model, ids)["inputs_embeds"]

    sequence = torch.cat([expected_features, expected_embeds], dim=1)
    mask = torch.ones(sequence.shape[:2], dtype=torch.int64)
    mask[-1, -3:] = 0
    hidden, *cross = modules[contract.ENCODER](mask, sequence)
    expected_hidden = encode(model, mask, sequence)["last_hidden_state"]

    logits = _decode(modules, mask, cross, decoded)
    expected_logits = decode(
        model,
        mask.repeat_interleave(beams, 0),
        expected_hidden.repeat_interleave(beams, 0),
        embed(model, decoded)["inputs_embeds"],
    )["logits"]
    real = mask.bool()
    return {
        contract.VISION_ENCODER: _relative(features, expected_features),
        contract.EMBED_TOKENS: _relative(embeds, expected_embeds),
        contract.ENCODER: _relative(hidden[real], expected_hidden[real]),
        contract.DECODER: _relative(logits, expected_logits),
    }


def _decode(
    modules: dict[str, nn.Module], mask: Tensor, cross: list[Tensor], ids: Tensor
) -> Tensor:
    """Computes logits token by token. Every row has its own slots, in random order."""
    batch = len(mask)
    rows, steps = ids.shape
    beams = rows // batch
    order = torch.randperm(rows // batch * steps, generator=torch.Generator().manual_seed(1))
    slots = order.reshape(steps, 1, beams).expand(-1, batch, -1)
    cache = [t.new_zeros((batch, t.shape[1], len(order), t.shape[3])) for t in cross]
    seen = torch.zeros((batch, beams, len(order)), dtype=torch.bool)
    logits = []
    for step in range(steps):
        seen.scatter_(2, slots[step].unsqueeze(-1), True)
        embeds = modules[contract.EMBED_TOKENS](ids[:, step : step + 1])
        step_inputs = (embeds, torch.tensor([step]), slots[step], seen)
        outputs = modules[contract.DECODER](mask, *step_inputs, cache, cross)
        logits.append(outputs[0])
        cache = list(outputs[3:])
    return torch.cat(logits, dim=1)


def _relative(got: Tensor, want: Tensor) -> float:
    if got.shape != want.shape:
        return float("inf")
    return float((got - want).abs().max() / want.abs().max())
