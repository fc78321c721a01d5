"""Text model: BART's encoder and decoder with a key/value cache.

The modules are equal to transformers' ``BartModel`` inside Florence-2 (post-norm blocks, learned
positions with an offset of 2). The keys and values of the cross-attention are outputs of the
encoder, computed once per picture and shared by all beams. The keys and values of the
self-attention lie in slots that the beams of a picture also share. A mask says which slots are the
past of a beam. So no slot moves when beams are reordered, and a common past of several beams is
stored and read once.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from florence_onnx.checkpoints.config import TextConfig
from florence_onnx_export.modules import operators
from florence_onnx_export.modules.layers import (
    FeedForward,
    LayerNorm,
    Linear,
    Weights,
    attention,
    constant,
)

POSITION_OFFSET = 2
"""Number of rows before position 0 in BART's table of positions."""

LOWEST = torch.finfo(torch.float32).min
"""Bias that hides a key. The value is finite, so that a row without visible keys gives no NaN."""


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Splits [B,T,heads*head_dim] into [B,heads,T,head_dim]."""
    batch, tokens, channels = x.shape
    return x.reshape(batch, tokens, heads, channels // heads).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """Joins [B,heads,T,head_dim] to [B,T,heads*head_dim]."""
    batch, heads, tokens, head_dim = x.shape
    return x.transpose(1, 2).reshape(batch, tokens, heads * head_dim)


def mask_bias(mask: Tensor) -> Tensor:
    """Turns a mask of ones and zeros [B,S] into a bias on scores [B,1,1,S]."""
    return torch.where(mask.bool(), 0.0, LOWEST)[:, None, None, :]


class Embedding(nn.Module):
    """Token embedding, scaled where the configuration says so."""

    def __init__(self, table: Tensor, config: TextConfig) -> None:
        super().__init__()
        scale = config.d_model**0.5 if config.scale_embedding else 1.0
        self.table = constant(table * scale)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Maps input_ids [B,T] to inputs_embeds [B,T,D]."""
        return nn.functional.embedding(input_ids, self.table)


class Positions(nn.Module):
    """Learned positions and the normalisation after."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        table = weights["embed_positions.weight"][POSITION_OFFSET:]
        self.table = constant(table)
        self.norm = LayerNorm(weights.at("layernorm_embedding"))

    def forward(self, x: Tensor) -> Tensor:
        """Adds the embeddings of the positions from 0 on to x [B,T,D], and normalises."""
        return self.norm(x + self.table[: x.shape[1]])

    def at(self, x: Tensor, position_ids: Tensor) -> Tensor:
        """Adds the embeddings of position_ids int64 [T] to x [B,T,D], and normalises."""
        return self.norm(x + nn.functional.embedding(position_ids, self.table))


class Attention(nn.Module):
    """Linear layers of an attention block: queries before the attention, output after."""

    def __init__(self, weights: Weights, heads: int) -> None:
        super().__init__()
        self.heads = heads
        head_dim = weights["q_proj.weight"].shape[0] // heads
        self.q_proj = Linear.of(weights.at("q_proj"), scale=head_dim**-0.5)
        self.out_proj = Linear.of(weights.at("out_proj"))

    def query(self, x: Tensor) -> Tensor:
        """Maps x [B,T,D] to scaled queries [B,heads,T,head_dim]."""
        return split_heads(self.q_proj(x), self.heads)

    def output(self, mixed: Tensor) -> Tensor:
        """Maps the attention's result [B,heads,T,head_dim] to [B,T,D]."""
        return self.out_proj(merge_heads(mixed))


class KeyValue(nn.Module):
    """Keys and values of an attention block."""

    def __init__(self, weights: Weights, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj = Linear.of(weights.at("k_proj"))
        self.v_proj = Linear.of(weights.at("v_proj"))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps x [B,T,D] to two tensors [B,heads,T,head_dim]."""
        return split_heads(self.k_proj(x), self.heads), split_heads(self.v_proj(x), self.heads)


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each followed by its normalisation."""

    def __init__(self, weights: Weights, config: TextConfig) -> None:
        super().__init__()
        heads = config.encoder_attention_heads
        self.attention = Attention(weights.at("self_attn"), heads)
        self.key_value = KeyValue(weights.at("self_attn"), heads)
        self.attention_norm = LayerNorm(weights.at("self_attn_layer_norm"))
        self.ffn = FeedForward(weights, config.activation_function)
        self.ffn_norm = LayerNorm(weights.at("final_layer_norm"))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Maps [B,S,D] to the same shape."""
        key, value = self.key_value(x)
        mixed = attention(self.attention.query(x), key, value, bias)
        x = self.attention_norm(x + self.attention.output(mixed))
        return self.ffn_norm(x + self.ffn(x))


class Encoder(nn.Module):
    """Encoder of BART."""

    def __init__(self, weights: Weights, config: TextConfig) -> None:
        super().__init__()
        encoder = weights.at("encoder")
        self.positions = Positions(encoder)
        self.layers = nn.ModuleList(
            EncoderLayer(encoder.at(f"layers.{i}"), config) for i in range(config.encoder_layers)
        )

    def states(self, attention_mask: Tensor, inputs_embeds: Tensor) -> Tensor:
        """Maps inputs_embeds [B,S,D] to last_hidden_state [B,S,D]."""
        bias = mask_bias(attention_mask)
        x = self.positions(inputs_embeds)
        for layer in self.layers:
            x = layer(x, bias)
        return x


class TextEncoder(Encoder):
    """Encoder of BART, with the keys and values of every decoder layer's cross-attention."""

    def __init__(self, weights: Weights, config: TextConfig) -> None:
        super().__init__(weights, config)
        self.cross = nn.ModuleList(
            KeyValue(weights.at(f"decoder.layers.{i}.encoder_attn"), config.decoder_attention_heads)
            for i in range(config.decoder_layers)
        )

    def forward(self, attention_mask: Tensor, inputs_embeds: Tensor) -> tuple[Tensor, ...]:
        """Maps inputs_embeds [B,S,D] to last_hidden_state [B,S,D], then key, value per layer."""
        x = self.states(attention_mask, inputs_embeds)
        return (x, *(tensor for cross in self.cross for tensor in cross(x)))


class DecoderBlock(nn.Module):
    """Parts of a decoder layer."""

    def __init__(self, weights: Weights, config: TextConfig) -> None:
        super().__init__()
        heads = config.decoder_attention_heads
        self.attention = Attention(weights.at("self_attn"), heads)
        self.key_value = KeyValue(weights.at("self_attn"), heads)
        self.attention_norm = LayerNorm(weights.at("self_attn_layer_norm"))
        self.cross = Attention(weights.at("encoder_attn"), heads)
        self.cross_norm = LayerNorm(weights.at("encoder_attn_layer_norm"))
        self.ffn = FeedForward(weights, config.activation_function)
        self.ffn_norm = LayerNorm(weights.at("final_layer_norm"))


class DecoderLayer(DecoderBlock):
    """Self-attention over the cache, cross-attention, feed-forward."""

    def forward(
        self, x: Tensor, own: "Cache", cross: "Cache", slots: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Maps x [B,beams,D] to the same shape; also returns the updated keys and values."""
        new_key, new_value = self.key_value(x)
        key = operators.scatter(own.key, slots, new_key)
        value = operators.scatter(own.value, slots, new_value)
        mixed = attention(self.attention.query(x), key, value, own.bias)
        x = self.attention_norm(x + self.attention.output(mixed))
        mixed = attention(self.cross.query(x), cross.key, cross.value, cross.bias)
        x = self.cross_norm(x + self.cross.output(mixed))
        return self.ffn_norm(x + self.ffn(x)), key, value


class Cache(NamedTuple):
    """Keys and values [B,heads,length,head_dim], and a bias that hides some keys."""

    key: Tensor
    value: Tensor
    bias: Tensor


class TextDecoder(nn.Module):
    """Step of BART's decoder, the output head, and the best candidates of each row."""

    def __init__(
        self,
        weights: Weights,
        head: Tensor,
        head_bias: Tensor | None,
        config: TextConfig,
        topk: int,
    ) -> None:
        super().__init__()
        self.heads = config.decoder_attention_heads
        self.positions = Positions(weights.at("decoder"))
        self.layers = nn.ModuleList(
            DecoderLayer(weights.at(f"decoder.layers.{i}"), config)
            for i in range(config.decoder_layers)
        )
        self.head = Linear(head, head_bias)
        self.topk = min(topk, head.shape[0])

    def forward(
        self,
        encoder_attention_mask: Tensor,
        inputs_embeds: Tensor,
        position_ids: Tensor,
        cache_slots: Tensor,
        cache_mask: Tensor,
        decoder_cache: list[Tensor],
        encoder_cache: list[Tensor],
    ) -> tuple[Tensor, ...]:
        """Runs one step: logits [R,1,V], the top candidates [R,K], and the cache.

        The beams of a picture are the tokens of one query, so the keys are read once for all beams.

        Args:
            encoder_attention_mask: int64 [B,S].
            inputs_embeds: [R,1,D], rows ordered by picture.
            position_ids: int64 [1], the number of tokens that every answer has so far.
            cache_slots: int64 [B,beams], the slot for the key and value of each row.
            cache_mask: bool [B,beams,C], the slots that each row sees, its new slot included.
            decoder_cache: Key and value of every layer, [B,heads,C,head_dim].
            encoder_cache: Key and value of every layer, [B,heads,S,head_dim].
        """
        batch, beams = cache_slots.shape
        rows, _, width = inputs_embeds.shape
        slots = slot_indices(cache_slots, self.heads)
        hidden = torch.where(cache_mask, 0.0, LOWEST).unsqueeze(1)
        cross_bias = mask_bias(encoder_attention_mask)
        x = self.positions.at(inputs_embeds, position_ids).reshape(batch, beams, width)
        present: list[Tensor] = []
        for i, layer in enumerate(self.layers):
            own = Cache(decoder_cache[2 * i], decoder_cache[2 * i + 1], hidden)
            cross = Cache(encoder_cache[2 * i], encoder_cache[2 * i + 1], cross_bias)
            x, key, value = layer(x, own, cross, slots)
            present += [key, value]
        logits = self.head(x.reshape(rows, width))
        best = torch.topk(torch.log_softmax(logits, dim=-1), self.topk, dim=-1)
        return (logits.unsqueeze(1), best.values, best.indices, *present)


def slot_indices(slots: Tensor, heads: int) -> Tensor:
    """Indices [B,heads,beams,3] of cache_slots [B,beams] in a cache [B,heads,C,head_dim]."""
    batch, beams = slots.shape
    shape = (batch, heads, beams)
    return torch.stack(
        [
            torch.arange(batch)[:, None, None].expand(shape),
            torch.arange(heads)[None, :, None].expand(shape),
            slots[:, None, :].expand(shape),
        ],
        dim=-1,
    )
