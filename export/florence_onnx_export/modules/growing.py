"""Text model as transformers.js runs it: BART's encoder, and BART's decoder with a growing cache.

The decoder is two modules. The first step computes the keys and values of the cross-attention from
the encoder's states. Later steps take the cross-attention's keys and values as inputs, and also the
self-attention's keys and values of all earlier steps.
"""

import torch
from torch import Tensor, nn

from florence_onnx.checkpoints.config import TextConfig
from florence_onnx_export.modules.layers import Linear, Weights, attention
from florence_onnx_export.modules.text import (
    LOWEST,
    Cache,
    DecoderBlock,
    Encoder,
    KeyValue,
    Positions,
    mask_bias,
)


class StatesEncoder(Encoder):
    """Encoder of BART, without the keys and values of the cross-attention."""

    def forward(self, attention_mask: Tensor, inputs_embeds: Tensor) -> Tensor:
        """Maps inputs_embeds [B,S,D] to last_hidden_state [B,S,D]."""
        return self.states(attention_mask, inputs_embeds)


class GrowingLayer(DecoderBlock):
    """Layer that appends its keys and values to the keys and values of the past."""

    def follow(
        self, x: Tensor, past: list[Tensor], cross: Cache, hidden: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Maps x [B,T,D] to the same shape; also returns the keys and values, past included.

        Args:
            x: The tokens.
            past: Keys and values of the past [B,heads,P,head_dim]; empty at the first step.
            cross: Keys and values of the cross-attention, and the bias of its mask.
            hidden: Bias [T,P+T] that hides later tokens.
        """
        key, value = self.key_value(x)
        if past:
            key = torch.cat([past[0], key], dim=2)
            value = torch.cat([past[1], value], dim=2)
        mixed = attention(self.attention.query(x), key, value, hidden)
        x = self.attention_norm(x + self.attention.output(mixed))
        # The rows of a picture are the tokens of one query, so its keys are read once for all rows.
        grouped = x.reshape(cross.key.shape[0], -1, x.shape[2])
        mixed = attention(self.cross.query(grouped), cross.key, cross.value, cross.bias)
        x = self.cross_norm(x + self.cross.output(mixed).reshape(x.shape))
        return self.ffn_norm(x + self.ffn(x)), key, value


class _Decoder(nn.Module):
    Layer: type[GrowingLayer]

    def __init__(
        self, weights: Weights, head: Tensor, head_bias: Tensor | None, config: TextConfig
    ) -> None:
        super().__init__()
        self.positions = Positions(weights.at("decoder"))
        self.layers = nn.ModuleList(
            self.Layer(weights.at(f"decoder.layers.{i}"), config)
            for i in range(config.decoder_layers)
        )
        self.head = Linear(head, head_bias)


class LaterLayer(GrowingLayer):
    """Layer at a later step."""

    def forward(
        self, x: Tensor, past: list[Tensor], cross: Cache, hidden: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `GrowingLayer.follow`."""
        return self.follow(x, past, cross, hidden)


class LaterDecoder(_Decoder):
    """Decoder at every step but the first."""

    Layer = LaterLayer

    def forward(
        self,
        encoder_attention_mask: Tensor,
        inputs_embeds: Tensor,
        decoder_cache: list[Tensor],
        encoder_cache: list[Tensor],
    ) -> tuple[Tensor, ...]:
        """Maps inputs_embeds [B,T,D] to logits [B,T,V], then key and value of every layer.

        Args:
            encoder_attention_mask: int64 [B,S].
            inputs_embeds: [B,T,D].
            decoder_cache: Key and value of every layer, [B,heads,P,head_dim].
            encoder_cache: Key and value of every layer, [B,heads,S,head_dim].
        """
        past, tokens = decoder_cache[0].shape[2], inputs_embeds.shape[1]
        positions = torch.arange(past, past + tokens)
        hidden = _later_hidden(positions, past + tokens)
        bias = mask_bias(encoder_attention_mask)
        x = self.positions.at(inputs_embeds, positions)
        present: list[Tensor] = []
        for i, layer in enumerate(self.layers):
            cross = Cache(encoder_cache[2 * i], encoder_cache[2 * i + 1], bias)
            x, key, value = layer(x, decoder_cache[2 * i : 2 * i + 2], cross, hidden)
            present += [key, value]
        return (self.head(x), *present)


class FirstLayer(GrowingLayer):
    """Layer at the first step."""

    def __init__(self, weights: Weights, config: TextConfig) -> None:
        super().__init__(weights, config)
        heads = config.decoder_attention_heads
        self.cross_key_value = KeyValue(weights.at("encoder_attn"), heads)

    def forward(
        self, x: Tensor, states: Tensor, bias: Tensor, hidden: Tensor
    ) -> tuple[Tensor, ...]:
        """Maps x [B,T,D] to the same shape; also returns keys and values of both attentions.

        Args:
            x: The tokens.
            states: States of the encoder, [B,S,D].
            bias: Bias [B,1,1,S] that hides masked states.
            hidden: Bias [T,T] that hides later tokens.
        """
        key, value = self.cross_key_value(states)
        x, own_key, own_value = self.follow(x, [], Cache(key, value, bias), hidden)
        return x, own_key, own_value, key, value


class FirstDecoder(_Decoder):
    """Decoder at the first step."""

    Layer = FirstLayer

    def forward(
        self, encoder_attention_mask: Tensor, encoder_hidden_states: Tensor, inputs_embeds: Tensor
    ) -> tuple[Tensor, ...]:
        """Maps inputs_embeds [B,T,D] to logits [B,T,V], then four tensors of every layer.

        The four tensors are key and value of the self-attention [B,heads,T,head_dim], then key and
        value of the cross-attention [B,heads,S,head_dim].

        Args:
            encoder_attention_mask: int64 [B,S].
            encoder_hidden_states: [B,S,D].
            inputs_embeds: [B,T,D].
        """
        tokens = inputs_embeds.shape[1]
        positions = torch.arange(tokens)
        hidden = _later_hidden(positions, tokens)
        bias = mask_bias(encoder_attention_mask)
        x = self.positions.at(inputs_embeds, positions)
        present: list[Tensor] = []
        for layer in self.layers:
            x, *tensors = layer(x, encoder_hidden_states, bias, hidden)
            present += tensors
        return (self.head(x), *present)


def _later_hidden(positions: Tensor, length: int) -> Tensor:
    """Bias [T,length] that hides, from tokens at positions int64 [T], all later positions."""
    return torch.where(torch.arange(length) <= positions[:, None], 0.0, LOWEST)
