"""Florence-2 models with random weights whose output is worth comparing.

The weights transformers draws by itself (normal, 0.02) give dull models: every logit is about
zero, one token is generated for ever, and a broken block changes nothing that a tolerance would
see. ``make_model`` therefore draws every parameter again, from ``seed`` alone:

* Linear and convolution weights have the deviation 1/sqrt(fan_in), biases and the offsets of the
  layer norms 0.1, the scales of the layer norms 1 +- 0.1: every block carries signal, so leaving
  out any parameter is visible in the output.
* In the language model the last matmul of every feed-forward block is drawn 3 times larger, so
  that it outweighs its skip connection. Head and embedding are tied: without this the skip
  connection leads the input token straight to its own logit, and the model repeats itself.
* The last matmul of every attention block is multiplied by ``attention_gain`` < 1. Attention
  averages over the sequence, so what it adds is nearly the same at every step, and the deeper
  the model, the less is left of the difference between one step and the next.
* Token embeddings have the deviation ``logit_spread / sqrt(d_model)``. They are the head too, and
  the head's input has unit scale, so the logits have about the deviation ``logit_spread``:
  small enough for several beams to compete, large enough to choose. Position embeddings have
  twice that deviation, so that the output changes along the sequence.
* The layer norm before the head gets a constant offset of length ``2 * logit_spread`` in one
  direction, and the embedding of ``</s>`` a part in that direction that raises its logit by
  ``eos_bias`` at every step: it decides how soon sequences end. (Florence-2 has no head bias.)

With the values below and three beams, about half of the sequences end by themselves within 100
tokens, after one token or after dozens, beams and greedy differ in four of five, and two prompts
for the same model nearly always give different answers.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import (
    BartConfig,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2VisionConfig,
)

BOS, PAD, EOS = 0, 1, 2


@dataclass(frozen=True)
class Geometry:
    """The sizes of a Florence-2 model, and the scales that make random weights interesting."""

    name: str
    image_size: tuple[int, int] = (64, 64)
    """Height and width in pixels that tests feed; the model itself takes any size."""
    d_model: int = 32
    text_layers: int = 2
    text_heads: int = 2
    text_ffn: int = 64
    vocab_size: int = 300
    image_token_id: int = 299
    max_positions: int = 320
    embed_dim: tuple[int, ...] = (16, 32, 48, 64)
    depths: tuple[int, ...] = (1, 1, 1, 1)
    vision_heads: tuple[int, ...] = (2, 4, 4, 8)
    num_groups: tuple[int, ...] = (2, 4, 4, 8)
    window_size: int = 4
    patch_stride: tuple[int, ...] = (4, 2, 2, 2)
    image_positions: int = 50
    """Places per axis of the picture's position table: the most image tokens in a row."""
    logit_spread: float = 2.5
    attention_gain: float = 0.5
    eos_bias: float = 3.0

    @property
    def image_tokens(self) -> int:
        """Number of image features for ``image_size``: one per last patch, and their mean."""
        pixels = math.prod(self.patch_stride)
        height, width = self.image_size
        return (height // pixels) * (width // pixels) + 1

    def config(self) -> Florence2Config:
        """The native transformers configuration of this geometry."""
        text = BartConfig(
            vocab_size=self.vocab_size,
            d_model=self.d_model,
            encoder_layers=self.text_layers,
            decoder_layers=self.text_layers,
            encoder_attention_heads=self.text_heads,
            decoder_attention_heads=self.text_heads,
            encoder_ffn_dim=self.text_ffn,
            decoder_ffn_dim=self.text_ffn,
            max_position_embeddings=self.max_positions,
            bos_token_id=BOS,
            pad_token_id=PAD,
            eos_token_id=EOS,
            decoder_start_token_id=EOS,
            forced_eos_token_id=EOS,
        )
        vision = Florence2VisionConfig(
            embed_dim=list(self.embed_dim),
            depths=list(self.depths),
            num_heads=list(self.vision_heads),
            num_groups=list(self.num_groups),
            window_size=self.window_size,
            patch_stride=list(self.patch_stride),
            max_position_embeddings=self.image_positions,
            projection_dim=self.d_model,
        )
        return Florence2Config(
            text_config=text, vision_config=vision, image_token_id=self.image_token_id
        )


# Small enough for milliseconds. The names say what each one is there for: the grids of `square`
# divide by its window in three stages of four; those of `padded` (32, 16, 8, 4) never do.
SMALL = (
    Geometry("square"),
    Geometry(
        "padded", image_size=(128, 128), window_size=12, d_model=64, text_heads=4, text_ffn=128
    ),
    Geometry("wide-picture", image_size=(64, 128), window_size=4, text_layers=3),
    Geometry("deep-vision", image_size=(96, 64), window_size=12, depths=(1, 1, 2, 1), text_heads=4),
)
REAL_VOCABULARY = Geometry(
    "real-vocabulary", vocab_size=51328, image_token_id=51289, max_positions=1024, eos_bias=6.0
)
BASE = Geometry(
    "base",
    image_size=(768, 768),
    d_model=768,
    text_layers=6,
    text_heads=12,
    text_ffn=3072,
    vocab_size=51328,
    image_token_id=51289,
    max_positions=1024,
    embed_dim=(128, 256, 512, 1024),
    depths=(1, 1, 9, 1),
    vision_heads=(4, 8, 16, 32),
    num_groups=(4, 8, 16, 32),
    window_size=12,
    attention_gain=0.3,
    eos_bias=7.0,
)
LARGE = replace(
    BASE,
    name="large",
    d_model=1024,
    text_layers=12,
    text_heads=16,
    text_ffn=4096,
    embed_dim=(256, 512, 1024, 2048),
    vision_heads=(8, 16, 32, 64),
    num_groups=(8, 16, 32, 64),
)


def make_model(geometry: Geometry, seed: int) -> Florence2ForConditionalGeneration:
    """A float32 model in eval mode whose weights depend on ``geometry`` and ``seed`` alone."""
    model = Florence2ForConditionalGeneration(geometry.config()).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        # The head is the token embedding, drawn with the rest of the model inside.
        for module in model.model.modules():
            _draw_module(module, geometry, generator)
        _scale_language_model(model.model.language_model, geometry, generator)
    return model


def amplify_rounding(model: Florence2ForConditionalGeneration) -> None:
    """Makes a decoder whose answers stay as they are, but for what float32 rounds away.

    A layer norm takes off what it has added to all channels.
    """
    with torch.no_grad():
        model.model.language_model.decoder.layers[-1].fc2.bias.add_(1e4)


def _draw_module(module: nn.Module, geometry: Geometry, generator: torch.Generator) -> None:
    """Draw the parameters that ``module`` itself holds."""

    def draw(parameter: torch.Tensor, std: float, mean: float = 0.0) -> None:
        parameter.normal_(mean, std, generator=generator)

    if isinstance(module, nn.Linear | nn.Conv2d):
        draw(module.weight, module.weight[0].numel() ** -0.5)
        if module.bias is not None:
            draw(module.bias, 0.1)
    elif isinstance(module, nn.LayerNorm):
        draw(module.weight, 0.1, mean=1.0)
        draw(module.bias, 0.1)
    elif isinstance(module, nn.Embedding):
        draw(module.weight, geometry.logit_spread * geometry.d_model**-0.5)


def _scale_language_model(
    language_model: Any, geometry: Geometry, generator: torch.Generator
) -> None:
    """Weigh blocks and positions against the skip connections; raise the logit of ``</s>``."""
    for name, module in language_model.named_modules():
        if name.endswith("fc2"):
            module.weight.mul_(3)
        elif name.endswith("out_proj"):
            module.weight.mul_(geometry.attention_gain)
        elif name.endswith("embed_positions"):
            module.weight.mul_(2)
    direction = torch.randn(geometry.d_model, generator=generator)
    direction /= direction.norm()
    offset = 2 * geometry.logit_spread
    language_model.decoder.layers[-1].final_layer_norm.bias.add_(offset * direction)
    embedding = language_model.shared.weight
    # The other tokens lose their part in this direction, which would favour the same few of them
    # at every step.
    embedding.sub_(torch.outer(embedding @ direction, direction))
    embedding[EOS] += geometry.eos_bias / offset * direction
