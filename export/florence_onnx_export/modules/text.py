"""The text model: BART's encoder and decoder with a key/value cache.

Equal to transformers' ``BartModel`` inside Florence-2 (post-norm blocks, learned positions with
an offset of 2). The cross-attention keys and values are outputs of the encoder, computed once per
picture and shared by all beams; the decoder gathers its own cache by ``beam_idx``.
"""

import torch
from torch import Tensor, nn

from florence_onnx_export.config import TextConfig
from florence_onnx_export.modules.layers import (
    FeedForward,
    LayerNorm,
    Linear,
    Weights,
    attention,
    constant,
)

POSITION_OFFSET = 2
"""Rows of BART's position table before position 0."""


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B,T,heads*head_dim] -> [B,heads,T,head_dim]."""
    batch, tokens, channels = x.shape
    return x.reshape(batch, tokens, heads, channels // heads).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[B,heads,T,head_dim] -> [B,T,heads*head_dim]."""
    batch, heads, tokens, head_dim = x.shape
    return x.transpose(1, 2).reshape(batch, tokens, heads * head_dim)


def mask_bias(mask: Tensor) -> Tensor:
    """A mask of ones and zeros [B,S] as a bias on scores [B,1,1,S]."""
    lowest = torch.finfo(torch.float32).min
    return ((1 - mask) * lowest).to(torch.float32)[:, None, None, :]


class Embedding(nn.Module):
    """Token embedding, scaled when the configuration asks for it."""

    def __init__(self, table: Tensor, config: TextConfig) -> None:
        super().__init__()
        scale = config.d_model**0.5 if config.scale_embedding else 1.0
        self.table = constant(table * scale)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Maps input_ids [B,T] to inputs_embeds [B,T,D]."""
        return nn.functional.embedding(input_ids, self.table)


class Positions(nn.Module):
    """Adds learned positions, then normalises."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        table = weights["embed_positions.weight"][POSITION_OFFSET:]
        self.table = constant(table)
        self.norm = LayerNorm(weights.at("layernorm_embedding"))

    def forward(self, x: Tensor, start: int) -> Tensor:
        """Embeds positions ``start`` and on into x [B,T,D]."""
        return self.norm(x + self.table[start : start + x.shape[1]])


class SelfAttention(nn.Module):
    """The four layers of an attention block; heads are split, not mixed yet."""

    def __init__(self, weights: Weights, heads: int) -> None:
        super().__init__()
        self.heads = heads
        head_dim = weights["q_proj.weight"].shape[0] // heads
        self.q_proj = Linear.of(weights.at("q_proj"), scale=head_dim**-0.5)
        self.k_proj = Linear.of(weights.at("k_proj"))
        self.v_proj = Linear.of(weights.at("v_proj"))
        self.out_proj = Linear.of(weights.at("out_proj"))

    def query(self, x: Tensor) -> Tensor:
        """Scaled queries [B,heads,T,head_dim]."""
        return split_heads(self.q_proj(x), self.heads)

    def key_value(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B,heads,T,head_dim]."""
        return split_heads(self.k_proj(x), self.heads), split_heads(self.v_proj(x), self.heads)

    def output(self, mixed: Tensor) -> Tensor:
        """Mixed heads [B,heads,T,head_dim] to [B,T,D]."""
        return self.out_proj(merge_heads(mixed))


class CrossKeyValue(nn.Module):
    """Keys and values of one decoder layer's cross-attention."""

    def __init__(self, weights: Weights, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj = Linear.of(weights.at("k_proj"))
        self.v_proj = Linear.of(weights.at("v_proj"))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps last_hidden_state [B,S,D] to two tensors [B,heads,S,head_dim]."""
        return split_heads(self.k_proj(x), self.heads), split_heads(self.v_proj(x), self.heads)


class CrossAttention(nn.Module):
    """Attention of all beams of a picture over the picture's keys and values."""

    def __init__(self, weights: Weights, heads: int) -> None:
        super().__init__()
        self.heads = heads
        head_dim = weights["q_proj.weight"].shape[0] // heads
        self.q_proj = Linear.of(weights.at("q_proj"), scale=head_dim**-0.5)
        self.out_proj = Linear.of(weights.at("out_proj"))

    def forward(self, x: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """Maps x [R,T,D] to the same shape; key and value are [B,heads,S,head_dim]."""
        rows, tokens, channels = x.shape
        batch = key.shape[0]
        # The beams of a picture become tokens of one query, so its keys are read once.
        query = split_heads(self.q_proj(x).reshape(batch, -1, channels), self.heads)
        mixed = merge_heads(attention(query, key, value, bias))
        return self.out_proj(mixed.reshape(rows, tokens, channels))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each followed by its normalisation."""

    def __init__(self, weights: Weights, config: TextConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(weights.at("self_attn"), config.encoder_attention_heads)
        self.attention_norm = LayerNorm(weights.at("self_attn_layer_norm"))
        self.ffn = FeedForward(weights, config.activation_function)
        self.ffn_norm = LayerNorm(weights.at("final_layer_norm"))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Maps [B,S,D] to the same shape."""
        mixed = attention(self.attention.query(x), *self.attention.key_value(x), bias)
        x = self.attention_norm(x + self.attention.output(mixed))
        return self.ffn_norm(x + self.ffn(x))


class TextEncoder(nn.Module):
    """BART's encoder, and the cross-attention keys and values of every decoder layer."""

    def __init__(self, weights: Weights, config: TextConfig) -> None:
        super().__init__()
        encoder, decoder = weights.at("encoder"), weights.at("decoder")
        self.positions = Positions(encoder)
        self.layers = nn.ModuleList(
            EncoderLayer(encoder.at(f"layers.{i}"), config) for i in range(config.encoder_layers)
        )
        self.cross = nn.ModuleList(
            CrossKeyValue(decoder.at(f"layers.{i}.encoder_attn"), config.decoder_attention_heads)
            for i in range(config.decoder_layers)
        )

    def forward(self, attention_mask: Tensor, inputs_embeds: Tensor) -> tuple[Tensor, ...]:
        """Maps inputs_embeds [B,S,D] to last_hidden_state [B,S,D], then key, value per layer."""
        bias = mask_bias(attention_mask)
        x = self.positions(inputs_embeds, 0)
        for layer in self.layers:
            x = layer(x, bias)
        return (x, *(tensor for cross in self.cross for tensor in cross(x)))


class DecoderLayer(nn.Module):
    """Self-attention over the cache, cross-attention, feed-forward."""

    def __init__(self, weights: Weights, config: TextConfig) -> None:
        super().__init__()
        heads = config.decoder_attention_heads
        self.attention = SelfAttention(weights.at("self_attn"), heads)
        self.attention_norm = LayerNorm(weights.at("self_attn_layer_norm"))
        self.cross = CrossAttention(weights.at("encoder_attn"), heads)
        self.cross_norm = LayerNorm(weights.at("encoder_attn_layer_norm"))
        self.ffn = FeedForward(weights, config.activation_function)
        self.ffn_norm = LayerNorm(weights.at("final_layer_norm"))

    def forward(
        self,
        x: Tensor,
        past: tuple[Tensor, Tensor],
        causal_bias: Tensor,
        cross: tuple[Tensor, Tensor],
        cross_bias: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Maps x [R,T,D] to the same shape and the extended keys and values."""
        key, value = self.attention.key_value(x)
        key = torch.cat([past[0], key], dim=2)
        value = torch.cat([past[1], value], dim=2)
        mixed = attention(self.attention.query(x), key, value, causal_bias)
        x = self.attention_norm(x + self.attention.output(mixed))
        x = self.cross_norm(x + self.cross(x, *cross, cross_bias))
        return self.ffn_norm(x + self.ffn(x)), key, value


class TextDecoder(nn.Module):
    """BART's decoder with the output head and the best candidates of the last token."""

    def __init__(
        self,
        weights: Weights,
        head: Tensor,
        head_bias: Tensor | None,
        config: TextConfig,
        topk: int,
    ) -> None:
        super().__init__()
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
        beam_idx: Tensor,
        decoder_cache: list[Tensor],
        encoder_cache: list[Tensor],
    ) -> tuple[Tensor, ...]:
        """One step: logits [R,T,V], the top candidates, and the extended cache.

        Args:
            encoder_attention_mask: int64 [B,S].
            inputs_embeds: [R,T,D].
            beam_idx: int64 [R], the row of ``decoder_cache`` that each row continues.
            decoder_cache: key and value of every layer, [Q,heads,P,head_dim].
            encoder_cache: key and value of every layer, [B,heads,S,head_dim].
        """
        past = [tensor.index_select(0, beam_idx) for tensor in decoder_cache]
        start, tokens = past[0].shape[2], inputs_embeds.shape[1]
        causal = causal_bias(start, tokens)
        cross_bias = mask_bias(encoder_attention_mask)
        x = self.positions(inputs_embeds, start)
        present: list[Tensor] = []
        for i, layer in enumerate(self.layers):
            pair = slice(2 * i, 2 * i + 2)
            x, key, value = layer(
                x, tuple(past[pair]), causal, tuple(encoder_cache[pair]), cross_bias
            )
            present += [key, value]
        logits = self.head(x)
        log_probs = torch.log_softmax(logits[:, -1], dim=-1)
        best = torch.topk(log_probs, self.topk, dim=-1)
        return (logits, best.values, best.indices, *present)


def causal_bias(past: int, tokens: int) -> Tensor:
    """Bias [T,P+T] that hides later tokens from earlier ones."""
    query = torch.arange(tokens).unsqueeze(1) + past
    key = torch.arange(past + tokens).unsqueeze(0)
    return (key > query).to(torch.float32) * torch.finfo(torch.float32).min
