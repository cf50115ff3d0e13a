"""HuBERT as the codec uses it: 16 kHz samples to the mean of all hidden states (spec 8.4).

Post-norm, inference only. The attribute names are those of the checkpoint's tensors after
`semantic_model.`, with the positional convolution's weight norm folded.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from higgs_rt.codec.config import SemanticConfig


class _ConvLayer(nn.Module):
    """Bias-free strided convolution, GroupNorm with one channel per group if first, gelu."""

    def __init__(self, in_dim: int, out_dim: int, kernel: int, stride: int, first: bool) -> None:
        super().__init__()
        self.conv = nn.Conv1d(in_dim, out_dim, kernel, stride, bias=False)
        if first:
            self.layer_norm = nn.GroupNorm(out_dim, out_dim)
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return F.gelu(self.layer_norm(x) if self.first else x)


class _FeatureExtractor(nn.Module):
    def __init__(self, config: SemanticConfig) -> None:
        super().__init__()
        dims = zip((1, *config.conv_dim), config.conv_dim, strict=False)
        steps = zip(dims, config.conv_kernel, config.conv_stride, strict=True)
        self.conv_layers = nn.ModuleList(
            _ConvLayer(in_dim, out_dim, kernel, stride, first=index == 0)
            for index, ((in_dim, out_dim), kernel, stride) in enumerate(steps)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.conv_layers:
            x = layer(x)
        return x


class _FeatureProjection(nn.Module):
    def __init__(self, config: SemanticConfig) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(config.conv_dim[-1], eps=config.layer_norm_eps)
        self.projection = nn.Linear(config.conv_dim[-1], config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.projection(self.layer_norm(x))
        return projected


class _PositionalConv(nn.Module):
    def __init__(self, config: SemanticConfig) -> None:
        super().__init__()
        self.conv = nn.Conv1d(
            config.hidden,
            config.hidden,
            config.pos_kernel,
            padding=config.pos_kernel // 2,
            groups=config.pos_groups,
        )

    def forward(self, x: Tensor) -> Tensor:
        """`x` [1, T, hidden] -> the same shape; an even kernel makes one frame too many."""
        length = x.shape[1]
        return F.gelu(self.conv(x.transpose(1, 2))[:, :, :length]).transpose(1, 2)


class _Attention(nn.Module):
    def __init__(self, config: SemanticConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.q_proj = nn.Linear(config.hidden, config.hidden)
        self.k_proj = nn.Linear(config.hidden, config.hidden)
        self.v_proj = nn.Linear(config.hidden, config.hidden)
        self.out_proj = nn.Linear(config.hidden, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, hidden = x.shape
        q, k, v = (
            projection(x).view(batch, length, self.heads, -1).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        projected: Tensor = self.out_proj(mixed.reshape(batch, length, hidden))
        return projected


class _FeedForward(nn.Module):
    def __init__(self, config: SemanticConfig) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(config.hidden, config.ffn)
        self.output_dense = nn.Linear(config.ffn, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.output_dense(F.gelu(self.intermediate_dense(x)))
        return projected


class _EncoderLayer(nn.Module):
    def __init__(self, config: SemanticConfig) -> None:
        super().__init__()
        self.attention = _Attention(config)
        self.layer_norm = nn.LayerNorm(config.hidden, eps=config.layer_norm_eps)
        self.feed_forward = _FeedForward(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden, eps=config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer_norm(x + self.attention(x))
        normed: Tensor = self.final_layer_norm(x + self.feed_forward(x))
        return normed


class _Encoder(nn.Module):
    def __init__(self, config: SemanticConfig) -> None:
        super().__init__()
        self.pos_conv_embed = _PositionalConv(config)
        self.layer_norm = nn.LayerNorm(config.hidden, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(_EncoderLayer(config) for _ in range(config.layers))

    def forward(self, x: Tensor) -> Tensor:
        """Mean over the hidden states: the embedding after positions and norm, each layer."""
        x = self.layer_norm(x + self.pos_conv_embed(x))
        states = [x]
        for layer in self.layers:
            states.append(layer(states[-1]))
        return torch.stack(states, dim=1).mean(dim=1)


class Hubert(nn.Module):
    """16 kHz samples fp32 [1, L] -> features fp32 [1, T, hidden], one per 320 samples."""

    def __init__(self, config: SemanticConfig) -> None:
        super().__init__()
        self.feature_extractor = _FeatureExtractor(config)
        self.feature_projection = _FeatureProjection(config)
        self.encoder = _Encoder(config)

    def forward(self, samples: Tensor) -> Tensor:
        features = self.feature_extractor(samples[:, None]).transpose(1, 2)
        mean: Tensor = self.encoder(self.feature_projection(features))
        return mean
