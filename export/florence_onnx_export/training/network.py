"""Network of a Florence-2 of any size, with embeddings of positions and locations in order."""

import math
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import Florence2Config, Florence2ForConditionalGeneration

from florence_onnx.checkpoints import key_maps
from florence_onnx.checkpoints.checkpoint import Checkpoint
from florence_onnx.locations import BINS
from florence_onnx_export.training.vocabulary import IMAGE_TOKEN, token_id

_ROW_MULTIPLE = 32
_LOCATION_RMS = 0.04
"""Root mean square of the location embeddings at the start: twice that of BART's embeddings."""
_POSITION_RMS = 0.5
"""Root mean square of the position embeddings at the start, near that of the vision encoder's
outputs. BART's 0.02 would have no effect beside these outputs."""


def build_network(
    vision: dict[str, Any], text: dict[str, Any], tokenizer: Tokenizer
) -> Florence2ForConditionalGeneration:
    """Makes a Florence-2 with random weights.

    Args:
        vision: Fields of transformers' Florence2VisionConfig.
        text: Fields of transformers' BartConfig, without the vocabulary.
        tokenizer: Tokenizer, which decides the vocabulary and the special ids.
    """
    rows = -(-tokenizer.get_vocab_size() // _ROW_MULTIPLE) * _ROW_MULTIPLE
    config = Florence2Config(
        vision_config={**vision, "projection_dim": text["d_model"]},
        text_config={
            **text,
            "model_type": "bart",
            "vocab_size": rows,
            "bos_token_id": 0,
            "pad_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 2,
            "forced_eos_token_id": 2,
            "tie_word_embeddings": True,
        },
        image_token_id=token_id(tokenizer, IMAGE_TOKEN),
        tie_word_embeddings=True,
    )
    network = Florence2ForConditionalGeneration(config)
    _scale_to_width(network.model)
    first = token_id(tokenizer, "<loc_0>")
    with torch.no_grad():
        weight = network.model.language_model.shared.weight
        weight[first : first + BINS] = _LOCATION_RMS * smooth_code(BINS, weight.shape[1], BINS / 12)
        positions = network.model.multi_modal_projector.image_position_embed
        for axis in (positions.column_embeddings, positions.row_embeddings):
            places, width = axis.weight.shape
            axis.weight[:] = _POSITION_RMS * smooth_code(places, width, most_waves=2)
    return network


def _scale_to_width(module: nn.Module) -> None:
    """Gives every matmul outputs as large as its inputs; BART's 0.02 suits a width of 2,500."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            nn.init.normal_(part.weight, std=part.weight[0].numel() ** -0.5)


def tied(
    network: Florence2ForConditionalGeneration, checkpoint: Checkpoint
) -> Florence2ForConditionalGeneration:
    """Ties the weights of a network that the checkpoint ties, so that they stay equal."""
    language = network.model.language_model
    language.encoder.embed_tokens.weight = language.shared.weight
    language.decoder.embed_tokens.weight = language.shared.weight
    weights = checkpoint.weights
    if weights[key_maps.HEAD] == weights[key_maps.EMBEDDING]:
        network.lm_head.weight = language.shared.weight
        network.config.tie_word_embeddings = True
    return network


def smooth_code(places: int, width: int, most_waves: float) -> torch.Tensor:
    """Codes of places on an axis, float32 [places, width], rms 1. Near places have similar codes.

    A code consists of sines and cosines, from half a wave over the axis to ``most_waves`` waves. A
    head that is tied to such an embedding learns the neighbourhood of a bin before the bin itself.
    """
    waves = torch.logspace(math.log10(0.5), math.log10(most_waves), width // 2)
    phase = 2 * math.pi * waves * (torch.arange(places)[:, None] + 0.5) / places
    return torch.cat([phase.sin(), phase.cos()], dim=1) * math.sqrt(2)
