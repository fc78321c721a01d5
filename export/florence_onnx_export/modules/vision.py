"""Vision encoder: DaViT and the projector, channels last.

The modules are equal to transformers' ``Florence2VisionBackbone`` and
``Florence2MultiModalProjector`` (DaViT: Ding et al. 2022), arranged for a graph engine:

- Activations stay [B,H,W,C]; only the convolutions see [B,C,H,W].
- Attention inside windows is one operator of the engine.
- Attention over channels computes neither queries nor keys.
- Residuals of the depthwise convolutions, and the temporal embedding, are folded into weights.
- Other residuals and biases are fused with matmuls.
- The largest activations are computed in parts.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from florence_onnx.checkpoints.config import VisionConfig
from florence_onnx_export.modules import operators
from florence_onnx_export.modules.layers import (
    FeedForward,
    LayerNorm,
    Linear,
    Weights,
    constant,
    in_parts,
)

LARGE_STAGES = 2
"""Number of stages whose activations are computed in parts. A stage has half the values of the
stage before."""


class Convolution(nn.Module):
    """Convolution on activations with channels last."""

    def __init__(
        self, weight: Tensor, bias: Tensor, stride: int, padding: int, groups: int
    ) -> None:
        super().__init__()
        self.weight = constant(weight)
        self.bias = constant(bias)
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
    """Makes a convolution that computes ``conv(x) + x``: 1 is added at the kernel's centre."""
    kernel = weights["weight"].clone()
    kernel[:, :, kernel.shape[2] // 2, kernel.shape[3] // 2] += 1
    return Convolution(kernel, weights["bias"], 1, kernel.shape[2] // 2, kernel.shape[0])


class PatchEmbedding(nn.Module):
    """Strided convolution with a layer normalisation before or after."""

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


class WindowAttention(nn.Module):
    """Multi-head attention inside square windows."""

    def __init__(self, weights: Weights, heads: int, window: int, large: bool) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.large = large
        joint = weights["qkv.weight"]
        bias = weights.get("qkv.bias")
        bias = joint.new_zeros(joint.shape[0]) if bias is None else bias
        self.weight = constant(joint.t().contiguous())
        self.bias = constant(bias)
        self.proj = Linear.of(weights.at("proj"))

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """Maps [B,H,W,C] to the same shape and adds the residual."""
        windows = operators.to_windows(x, self.window)
        mixed = in_parts(self.attend, windows) if self.large else self.attend(windows)
        return self.proj.onto(operators.from_windows(mixed, x, self.window), residual)

    def attend(self, windows: Tensor) -> Tensor:
        """Maps [windows,window*window,C] to the same shape, before the output projection."""
        return operators.self_attention(windows, self.weight, self.bias, self.heads)


class ChannelAttention(nn.Module):
    """Attention of channels over channels inside groups. The tokens are the features.

    With x [N,C], the scores of a group are q^T k = Wq^T (x^T x) Wk, and the output, with the output
    projection, is x (Wv A^T Wo). So two matmuls go over the tokens instead of four, and x keeps the
    layout [N,C]. Biases enter through the column sums of x.
    """

    def __init__(self, weights: Weights, groups: int) -> None:
        super().__init__()
        channels = weights["proj.weight"].shape[0]
        split = (groups, channels // groups, channels)
        query, key, value = weights["qkv.weight"].chunk(3)
        bias = weights.get("qkv.bias")
        biases = query.new_zeros(3 * channels) if bias is None else bias
        query_bias, key_bias, value_bias = biases.chunk(3)
        self.query = constant(query.reshape(split))
        self.query_bias = constant(query_bias.reshape(groups, -1, 1))
        self.key = constant(key.reshape(split).transpose(1, 2))
        self.key_bias = constant(key_bias.reshape(groups, 1, -1))
        self.value = constant(value.t())
        self.value_bias = constant(value_bias.reshape(1, -1))
        self.output = constant(weights["proj.weight"].t().reshape(split))
        self.output_bias = constant(weights["proj.bias"])

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """Maps [B,H,W,C] to the same shape and adds the residual."""
        batch, height, width, channels = x.shape
        tokens = height * width
        flat = x.reshape(batch, tokens, channels)
        gram = torch.matmul(flat.transpose(1, 2), flat).unsqueeze(1)
        # A matmul with ones: the engine's sums along the middle axis are slower.
        sums = torch.matmul(flat.new_ones(1, tokens), flat).unsqueeze(1)
        # [B,groups,C,C/g]: x^T k, the bias of k included; then q^T k, [B,groups,C/g,C/g].
        keys = torch.matmul(gram, self.key) + sums.transpose(2, 3) * self.key_bias
        key_sums = torch.matmul(sums, self.key) + self.key_bias * tokens
        scores = torch.matmul(self.query, keys) + self.query_bias * key_sums
        attended = torch.softmax(scores * tokens**-0.5, dim=-1)
        mixed = torch.matmul(attended.transpose(2, 3), self.output)
        mixed = mixed.reshape(batch, channels, channels)
        bias = torch.matmul(self.value_bias, mixed) + self.output_bias
        output = torch.matmul(flat, torch.matmul(self.value, mixed)) + bias
        return residual + output.reshape(batch, height, width, channels)


class Block(nn.Module):
    """Block of depthwise convolution, attention, depthwise convolution and feed-forward."""

    def __init__(self, weights: Weights, mixer: nn.Module, activation: str, large: bool) -> None:
        super().__init__()
        self.large = large
        self.conv1 = residual_depthwise(weights.at("conv1"))
        self.norm1 = LayerNorm(weights.at("norm1"))
        self.mixer = mixer
        self.conv2 = residual_depthwise(weights.at("conv2"))
        self.norm2 = LayerNorm(weights.at("norm2"))
        self.ffn = FeedForward(weights.at("ffn"), activation)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B,H,W,C] to the same shape."""
        x = self.conv1(x)
        x = self.mixer(self.norm1(x), x)
        x = self.conv2(x)
        ffn = self.ffn.in_parts_onto if self.large else self.ffn.onto
        return ffn(self.norm2(x), x)


class Projector(nn.Module):
    """Position embeddings, the mean token, and the projection to the text model's width."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        columns = weights["image_position_embed.column_embeddings.weight"]
        rows = weights["image_position_embed.row_embeddings.weight"]
        # A single picture is frame 0 of the temporal embedding, which is added to every token.
        temporal = weights["visual_temporal_embed.pos_idx_to_embed"][0]
        half = columns.shape[1]
        self.columns = constant(columns + temporal[:half])
        self.rows = constant(rows + temporal[half:])
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
    """Vision encoder, from pixel_values to image_features."""

    def __init__(self, weights: Weights, config: VisionConfig) -> None:
        super().__init__()
        tower = weights.at("vision_tower")
        stages: list[nn.Module] = []
        for stage, depth in enumerate(config.depths):
            stages.append(PatchEmbedding(tower.at(f"convs.{stage}"), config, stage))
            large = stage < LARGE_STAGES
            for index in range(depth):
                at = tower.at(f"blocks.{stage}.{index}")
                spatial, channel = at.at("spatial_block"), at.at("channel_block")
                window = WindowAttention(
                    spatial.at("window_attn"), config.num_heads[stage], config.window_size, large
                )
                groups = ChannelAttention(channel.at("channel_attn"), config.num_groups[stage])
                stages.append(Block(spatial, window, config.activation_function, large))
                stages.append(Block(channel, groups, config.activation_function, large))
        self.stages = nn.ModuleList(stages)
        self.projector = Projector(weights.at("multi_modal_projector"))

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Maps pixel_values [B,3,H,W] to image_features [B,N,D]."""
        x = pixel_values.permute(0, 2, 3, 1)
        for stage in self.stages:
            x = stage(x)
        return self.projector(x)
