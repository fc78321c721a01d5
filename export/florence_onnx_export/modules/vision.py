"""The vision encoder: DaViT and the projector, channels last.

Equal to transformers' ``Florence2VisionBackbone`` + ``Florence2MultiModalProjector`` (DaViT: Ding
et al. 2022), laid out for a graph engine: activations stay [B,H,W,C] and only the convolutions
see [B,C,H,W]; queries, keys and values are three products instead of one that is permuted
afterwards; scales, residuals of the depthwise convolutions and the temporal embedding are folded
into the weights.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from florence_onnx_export.config import VisionConfig
from florence_onnx_export.modules.layers import FeedForward, LayerNorm, Linear, Weights, attention


class Convolution(nn.Module):
    """A 2-D convolution on channels-last activations."""

    def __init__(
        self, weight: Tensor, bias: Tensor, stride: int, padding: int, groups: int
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.clone(), requires_grad=False)
        self.bias = nn.Parameter(bias.clone(), requires_grad=False)
        self.stride = stride
        self.padding = padding
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B,H,W,C] to [B,H',W',C']."""
        y = F.conv2d(
            x.permute(0, 3, 1, 2),
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            groups=self.groups,
        )
        return y.permute(0, 2, 3, 1)


def residual_depthwise(weights: Weights) -> Convolution:
    """``conv(x) + x`` as one convolution: the identity is added to the kernel's centre."""
    kernel = weights["weight"].clone()
    kernel[:, :, kernel.shape[2] // 2, kernel.shape[3] // 2] += 1
    return Convolution(kernel, weights["bias"], 1, kernel.shape[2] // 2, kernel.shape[0])


class PatchEmbedding(nn.Module):
    """A strided convolution with layer normalisation before or after it."""

    def __init__(self, weights: Weights, config: VisionConfig, stage: int) -> None:
        super().__init__()
        self.norm = LayerNorm(weights.at("norm"))
        self.norm_first = config.patch_prenorm[stage]
        self.conv = Convolution(
            weights["conv.weight"],
            weights["conv.bias"],
            config.patch_stride[stage],
            config.patch_padding[stage],
            1,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B,H,W,C] to [B,H/stride,W/stride,C']."""
        return self.conv(self.norm(x)) if self.norm_first else self.norm(self.conv(x))


def query_key_value(weights: Weights, query_scale: float) -> tuple[Linear, Linear, Linear]:
    """Splits a joint qkv layer in three, the query scaled."""
    layers = []
    bias = weights.get("bias")
    biases = [None] * 3 if bias is None else list(bias.chunk(3))
    for weight, part, scale in zip(
        weights["weight"].chunk(3), biases, (query_scale, 1, 1), strict=True
    ):
        layers.append(Linear(weight * scale, None if part is None else part * scale))
    return layers[0], layers[1], layers[2]


class WindowAttention(nn.Module):
    """Multi-head attention inside square windows."""

    def __init__(self, weights: Weights, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        head_dim = weights["proj.weight"].shape[0] // heads
        self.query, self.key, self.value = query_key_value(weights.at("qkv"), head_dim**-0.5)
        self.proj = Linear.of(weights.at("proj"))

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B,H,W,C] to the same shape; the grid is padded with zeros to whole windows."""
        batch, height, width, channels = x.shape
        w = self.window
        x = F.pad(x, (0, 0, 0, -width % w, 0, -height % w))
        rows, columns = x.shape[1] // w, x.shape[2] // w
        # One transpose of [w, columns] blocks of w*C contiguous values makes the windows.
        x = x.reshape(batch * rows, w, columns, w * channels).transpose(1, 2)
        x = self.attend(x.reshape(batch * rows * columns, w * w, channels))
        x = x.reshape(batch * rows, columns, w, w * channels).transpose(1, 2)
        return x.reshape(batch, rows * w, columns * w, channels)[:, :height, :width]

    def attend(self, x: Tensor) -> Tensor:
        """Attention over [windows, tokens, C]."""
        windows, tokens, channels = x.shape
        query, key, value = (
            layer(x).reshape(windows, tokens, self.heads, channels // self.heads).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = attention(query, key, value).transpose(1, 2)
        return self.proj(mixed.reshape(windows, tokens, channels))


class ChannelAttention(nn.Module):
    """Attention of channels over channels, inside groups; tokens are the features."""

    def __init__(self, weights: Weights, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.query, self.key, self.value = query_key_value(weights.at("qkv"), 1.0)
        self.proj = Linear.of(weights.at("proj"))

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B,H,W,C] to the same shape."""
        batch, height, width, channels = x.shape
        tokens = height * width
        x = x.reshape(batch, tokens, channels)
        query, key, value = (
            layer(x).reshape(batch, tokens, self.groups, channels // self.groups)
            for layer in (self.query, self.key, self.value)
        )
        # [B,groups,C/g,N] x [B,groups,N,C/g], scaled by N^-0.5 (small here, so scaled last).
        scores = torch.matmul(query.permute(0, 2, 3, 1), key.permute(0, 2, 1, 3))
        weights = torch.softmax(scores * tokens**-0.5, dim=-1)
        mixed = torch.matmul(value.permute(0, 2, 1, 3), weights.transpose(-1, -2))
        mixed = mixed.permute(0, 2, 1, 3).reshape(batch, height, width, channels)
        return self.proj(mixed)


class Block(nn.Module):
    """Depthwise convolution, attention, depthwise convolution, feed-forward."""

    def __init__(self, weights: Weights, mixer: nn.Module, activation: str) -> None:
        super().__init__()
        self.conv1 = residual_depthwise(weights.at("conv1"))
        self.norm1 = LayerNorm(weights.at("norm1"))
        self.mixer = mixer
        self.conv2 = residual_depthwise(weights.at("conv2"))
        self.norm2 = LayerNorm(weights.at("norm2"))
        self.ffn = FeedForward(weights.at("ffn"), activation)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B,H,W,C] to the same shape."""
        x = self.conv1(x)
        x = x + self.mixer(self.norm1(x))
        x = self.conv2(x)
        return x + self.ffn(self.norm2(x))


class Projector(nn.Module):
    """Position embeddings, the mean token, and the projection to the text model's width."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        columns = weights["image_position_embed.column_embeddings.weight"]
        rows = weights["image_position_embed.row_embeddings.weight"]
        # A single picture is frame 0 of the temporal embedding, which is added to every token.
        temporal = weights["visual_temporal_embed.pos_idx_to_embed"][0]
        half = columns.shape[1]
        self.columns = nn.Parameter(columns + temporal[:half], requires_grad=False)
        self.rows = nn.Parameter(rows + temporal[half:], requires_grad=False)
        self.projection = Linear.of(weights.at("image_projection"))
        self.norm = LayerNorm(weights.at("image_proj_norm"))

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B,H,W,C] to [B,1+H*W,D], the mean token first."""
        batch, height, width, channels = x.shape
        columns = self.columns[:width].unsqueeze(0).expand(height, -1, -1)
        rows = self.rows[:height].unsqueeze(1).expand(-1, width, -1)
        tokens = (x + torch.cat([columns, rows], dim=-1)).reshape(batch, height * width, channels)
        tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)
        return self.norm(self.projection(tokens))


class VisionEncoder(nn.Module):
    """pixel_values -> image_features."""

    def __init__(self, weights: Weights, config: VisionConfig) -> None:
        super().__init__()
        tower = weights.at("vision_tower")
        stages: list[nn.Module] = []
        for stage, depth in enumerate(config.depths):
            stages.append(PatchEmbedding(tower.at(f"convs.{stage}"), config, stage))
            for index in range(depth):
                at = tower.at(f"blocks.{stage}.{index}")
                spatial, channel = at.at("spatial_block"), at.at("channel_block")
                window = WindowAttention(
                    spatial.at("window_attn"), config.num_heads[stage], config.window_size
                )
                groups = ChannelAttention(channel.at("channel_attn"), config.num_groups[stage])
                stages.append(Block(spatial, window, config.activation_function))
                stages.append(Block(channel, groups, config.activation_function))
        self.stages = nn.ModuleList(stages)
        self.projector = Projector(weights.at("multi_modal_projector"))

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Maps pixel_values [B,3,H,W] to image_features [B,N,D]."""
        x = pixel_values.permute(0, 2, 3, 1)
        for stage in self.stages:
            x = stage(x)
        return self.projector(x)
