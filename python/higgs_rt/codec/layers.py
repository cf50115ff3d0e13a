"""Layers of the codec's encoder (spec 8.4). All tensors are fp32 [1, channels, time].

Attribute names are those of the checkpoint's tensors, with weight norms folded.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from higgs_rt.codec.config import CodecConfig

# Windowed-sinc resampling: zero crossings on each side, and the cutoff relative to Nyquist.
RESAMPLE_ZEROS = 6
RESAMPLE_ROLLOFF = 0.99


def resample_sinc(x: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Resample `x` [..., L] between rates in Hz by a Hann-windowed sinc; ceil(L to/from) samples.

    This is what the codec was trained with, so it is part of the model; the kernel is computed in
    fp32, like the reference does. Reference audio is resampled with soxr (`higgs_rt.audio`).
    """
    if from_rate == to_rate:
        return x
    divisor = math.gcd(from_rate, to_rate)
    old, new = from_rate // divisor, to_rate // divisor
    cutoff = RESAMPLE_ROLLOFF * min(old, new)
    reach = math.ceil(RESAMPLE_ZEROS * old / cutoff)
    taps = torch.arange(-reach, reach + old, dtype=x.dtype, device=x.device) / old
    phases = torch.arange(0, -new, -1, dtype=x.dtype, device=x.device)[:, None] / new
    u = ((phases + taps) * cutoff).clamp(-RESAMPLE_ZEROS, RESAMPLE_ZEROS)
    window = torch.cos(u * math.pi / RESAMPLE_ZEROS / 2) ** 2
    u = u * math.pi
    sinc = torch.where(u == 0, torch.ones_like(u), u.sin() / u)
    kernel = (sinc * (window * (cutoff / old)))[:, None]
    length = x.shape[-1]
    padded = F.pad(x.reshape(-1, 1, length), (reach, reach + old))
    # One output channel per phase; the phases are then interleaved.
    phased = F.conv1d(padded, kernel, stride=old)
    flat = phased.transpose(1, 2).reshape(*x.shape[:-1], -1)
    return flat[..., : math.ceil(new * length / old)]


class Snake(nn.Module):
    """`x + sin^2(alpha x) / (alpha + 1e-9)` with one alpha per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.alpha + 1e-9).reciprocal() * torch.sin(self.alpha * x).pow(2)


class AcousticUnit(nn.Module):
    """Residual unit: snake, dilated convolution of 7 taps, snake, 1x1 convolution."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.snake1 = Snake(channels)
        self.conv1 = nn.Conv1d(channels, channels, 7, dilation=dilation, padding=3 * dilation)
        self.snake2 = Snake(channels)
        self.conv2 = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(self.snake2(self.conv1(self.snake1(x))))
        return x + y


class AcousticBlock(nn.Module):
    """Three residual units, snake, and a strided convolution that doubles the channels."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.res_unit1 = AcousticUnit(channels, 1)
        self.res_unit2 = AcousticUnit(channels, 3)
        self.res_unit3 = AcousticUnit(channels, 9)
        self.snake1 = Snake(channels)
        padding = math.ceil(stride / 2)
        self.conv1 = nn.Conv1d(channels, 2 * channels, 2 * stride, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        x = self.res_unit3(self.res_unit2(self.res_unit1(x)))
        y: Tensor = self.conv1(self.snake1(x))
        return y


class AcousticEncoder(nn.Module):
    """Waveform [1, 1, L] -> latent [1, latent, about L / hop]."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        width = config.encoder_hidden
        self.conv1 = nn.Conv1d(1, width, 7, padding=3)
        self.block = nn.ModuleList(
            AcousticBlock(width << index, stride) for index, stride in enumerate(config.ratios)
        )
        self.snake1 = Snake(width << len(config.ratios))
        self.conv2 = nn.Conv1d(width << len(config.ratios), config.latent, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for block in self.block:
            x = block(x)
        y: Tensor = self.conv2(self.snake1(x))
        return y


class SemanticUnit(nn.Module):
    """Residual unit: ELU, convolution of 3 taps, ELU, 1x1 convolution, without biases."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(channels, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv1d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(F.elu(self.conv1(F.elu(x))))
        return x + y


class SemanticBlock(nn.Module):
    """Two residual units and a convolution of 3 taps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.res_units = nn.ModuleList(SemanticUnit(channels) for _ in range(2))
        self.conv = nn.Conv1d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        for unit in self.res_units:
            x = unit(x)
        y: Tensor = self.conv(x)
        return y


class SemanticEncoder(nn.Module):
    """Semantic features [1, channels, T] -> the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 3, padding=1, bias=False)
        self.conv_blocks = nn.ModuleList(SemanticBlock(channels) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        for block in self.conv_blocks:
            x = block(x)
        return x


class Codebook(nn.Module):
    """The code vectors `embed` [codebook_size, codebook_dim]."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.embed = nn.Parameter(torch.empty(config.codebook_size, config.codebook_dim))


class Quantizer(nn.Module):
    """One stage of the residual quantiser."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.codebook = Codebook(config)
        self.project_in = nn.Linear(config.fused, config.codebook_dim)
        self.project_out = nn.Linear(config.codebook_dim, config.fused)

    def nearest(self, residual: Tensor) -> Tensor:
        """Index [T] of the code nearest (Euclid) to each row of `residual` [T, fused]."""
        h = self.project_in(residual)
        embed = self.codebook.embed.t()
        distance: Tensor = (
            h.pow(2).sum(1, keepdim=True) - 2 * h @ embed + embed.pow(2).sum(0, keepdim=True)
        )
        return distance.argmin(dim=-1)

    def value(self, codes: Tensor) -> Tensor:
        """What the codes [T] stand for: [T, fused]."""
        value: Tensor = self.project_out(F.embedding(codes, self.codebook.embed))
        return value


class ResidualQuantizer(nn.Module):
    """`num_codebooks` stages, each quantising what the ones before left over."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.quantizers = nn.ModuleList(Quantizer(config) for _ in range(config.num_codebooks))

    def forward(self, embedding: Tensor) -> Tensor:
        """`embedding` [T, fused] -> codes int64 [num_codebooks, T]."""
        residual, codes = embedding, []
        for stage in self.quantizers:
            assert isinstance(stage, Quantizer)
            codes.append(stage.nearest(residual))
            residual = residual - stage.value(codes[-1])
        return torch.stack(codes)
