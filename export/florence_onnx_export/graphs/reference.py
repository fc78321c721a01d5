"""The export modules against transformers' own model, stage by stage."""

from collections.abc import Mapping
from dataclasses import asdict

import torch
from torch import Tensor, nn
from transformers import Florence2Config, Florence2ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from florence_onnx.checkpoints.config import ModelConfig
from florence_onnx.engine import contract
from florence_onnx.errors import ValidationError
from florence_onnx_export.graphs.float64 import default_dtype
from florence_onnx_export.graphs.specs import GraphSpec, head_bias

TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}
"""Largest difference of a stage, relative to its largest value: what a decoder that amplifies
rounding a million times makes of float64's, and what one that does not makes of float32's."""


def transformers_model(
    config: ModelConfig, weights: Mapping[str, Tensor]
) -> Florence2ForConditionalGeneration:
    """Transformers' model with a checkpoint's geometry and tensors, which it shares."""
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
        # Microsoft's model adds it to the logits; transformers' has no place of its own for it.
        model.lm_head.bias = torch.nn.Parameter(bias)
    return model.eval()


def compare_with_transformers(
    specs: list[GraphSpec],
    model: Florence2ForConditionalGeneration,
    height: int,
    width: int,
) -> dict[str, float]:
    """Runs every stage of both models on the same inputs, in the type of their weights.

    In float32 a checkpoint may amplify rounding until two equal models differ. The decoder is run
    token by token through the export modules' cache and at once in transformers, with two beams
    per picture.

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
    expected_features = model.model.get_image_features(pixels).pooler_output
    expected_embeds = model.get_input_embeddings()(ids)

    sequence = torch.cat([expected_features, expected_embeds], dim=1)
    mask = torch.ones(sequence.shape[:2], dtype=torch.int64)
    mask[-1, -3:] = 0
    hidden, *cross = modules[contract.ENCODER](mask, sequence)
    expected_hidden = model.model.language_model.encoder(
        attention_mask=mask, inputs_embeds=sequence
    ).last_hidden_state

    logits = _decode(modules, mask, cross, decoded)
    expected_logits = model(
        encoder_outputs=BaseModelOutput(expected_hidden.repeat_interleave(beams, 0)),
        attention_mask=mask.repeat_interleave(beams, 0),
        decoder_input_ids=decoded,
    ).logits
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
    """Logits token by token; every row takes slots of its own, in no particular order."""
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
