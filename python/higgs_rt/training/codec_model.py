"""The codec under training: transformers' HiggsAudioV2TokenizerModel with a differentiable forward.

The module tree, and so every tensor name, is transformers'; only the computation is written out
here, because the model's own encode runs the semantic branch without gradients and its quantiser
has no training form. In evaluation mode the codes equal ``HiggsAudioV2TokenizerModel.encode`` on
clips of whole frames.
"""

from __future__ import annotations

import math
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


def resample_kernel(source: int, target: int) -> tuple[torch.Tensor, int]:
    """Hann-windowed sinc kernel [target, 1, taps] and its left pad, for reduced rates (spec 8.4: 3
    to 2).
    """
    base = min(source, target) * 0.99
    width = math.ceil(6 * source / base)
    time = torch.arange(-width, width + source, dtype=torch.float64)[None, None] / source
    time = (torch.arange(0, -target, -1, dtype=torch.float64)[:, None, None] / target + time) * base
    time = time.clamp(-6, 6)
    window = torch.cos(time * math.pi / 12) ** 2
    angle = time * math.pi
    sinc = torch.where(angle == 0, torch.ones_like(angle), angle.sin() / angle)
    return (sinc * window * (base / source)).float(), width


def resample_24k_to_16k(wave: torch.Tensor, kernel: torch.Tensor, width: int) -> torch.Tensor:
    """wave [B, L] at 24 kHz -> [B, ceil(2L/3)] at 16 kHz."""
    length = wave.shape[-1]
    padded = F.pad(wave, (width, width + 3))[:, None]
    phases = F.conv1d(padded, kernel, stride=3)
    return phases.transpose(1, 2).reshape(wave.shape[0], -1)[:, : math.ceil(2 * length / 3)]


def import_codec_classes() -> tuple[Any, Any]:
    """(config class, model class) of transformers' codec, also where torchaudio is not installed.

    transformers needs torchaudio for one resampling call only, which this module replaces; without
    it a module that carries that one function stands in.
    """
    try:
        import torchaudio  # noqa: F401
    except ImportError:
        kernel, width = resample_kernel(3, 2)

        def resample(wave: torch.Tensor, source: int, target: int) -> torch.Tensor:
            if (source, target) != (24_000, 16_000):
                raise ValueError(f"[resample] expected 24000 to 16000, got {source} to {target}")
            flat = wave.reshape(-1, wave.shape[-1])
            out = resample_24k_to_16k(flat, kernel.to(wave), width)
            return out.reshape(*wave.shape[:-1], -1)

        stand_in: Any = types.ModuleType("torchaudio")
        stand_in.functional = types.SimpleNamespace(resample=resample)
        stand_in.__spec__ = ModuleSpec("torchaudio", None, origin="stand-in")
        sys.modules["torchaudio"] = stand_in
        import transformers.utils.import_utils as import_utils

        import_utils.BACKENDS_MAPPING["torchaudio"] = (lambda: True, "{0}")
    from transformers.models.higgs_audio_v2_tokenizer import (
        configuration_higgs_audio_v2_tokenizer as configuration,
    )
    from transformers.models.higgs_audio_v2_tokenizer import (
        modeling_higgs_audio_v2_tokenizer as modeling,
    )

    return configuration.HiggsAudioV2TokenizerConfig, modeling.HiggsAudioV2TokenizerModel


def _snake(x: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    return x + (alpha + 1e-9).reciprocal() * torch.sin(alpha * x).square()


def _snake_gradients(
    x: torch.Tensor, alpha: torch.Tensor, g: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    inverse = (alpha + 1e-9).reciprocal()
    double = torch.sin(2.0 * alpha * x)
    sine = torch.sin(alpha * x).square()
    to_x = g * (1.0 + alpha * inverse * double)
    to_alpha = (g * (inverse * x * double - inverse * inverse * sine)).sum((0, 2), keepdim=True)
    return to_x, to_alpha


class FusedSnake(torch.autograd.Function):
    """Snake that keeps only its input for the backward pass; both passes one compiled kernel."""

    forward_kernel: Callable[..., torch.Tensor] = staticmethod(_snake)
    backward_kernel: Callable[..., tuple[torch.Tensor, torch.Tensor]] = staticmethod(
        _snake_gradients
    )

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, alpha)
        return FusedSnake.forward_kernel(x, alpha.detach())

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, alpha = ctx.saved_tensors
        return FusedSnake.backward_kernel(x, alpha.detach(), g.contiguous())


def _apply_snake(module: Any, x: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = FusedSnake.apply(x, module.alpha)  # type: ignore[no-untyped-call]
    return made


def compile_snake() -> None:
    """Compiles the snake kernels (for CUDA); without the call they run as written."""
    import torch._dynamo

    torch._dynamo.config.recompile_limit = 64  # one kernel per width, where widths stay static
    FusedSnake.forward_kernel = staticmethod(torch.compile(_snake, dynamic=True))
    FusedSnake.backward_kernel = staticmethod(torch.compile(_snake_gradients, dynamic=True))


def plain_snake() -> None:
    """Undoes `compile_snake`, for shapes that change from call to call; captured graphs stay."""
    FusedSnake.forward_kernel = staticmethod(_snake)
    FusedSnake.backward_kernel = staticmethod(_snake_gradients)


@dataclass
class Quantised:
    """What the quantiser gives: latent [B, T, D], codes [B, 8, T], losses (scalars)."""

    latent: torch.Tensor
    codes: torch.Tensor
    commitment: torch.Tensor
    residual: torch.Tensor


class TrainableCodec(nn.Module):
    """transformers' codec model `core` with a training forward and moving-average codebooks."""

    kernel: torch.Tensor
    decay: torch.Tensor
    revive: torch.Tensor

    def __init__(self, core: Any) -> None:
        super().__init__()
        self.core = core
        kernel, self.width = resample_kernel(3, 2)
        self.register_buffer("kernel", kernel, persistent=False)
        self.register_buffer("decay", torch.tensor(0.9), persistent=False)
        self.register_buffer("revive", torch.tensor(0.0), persistent=False)
        for module in core.modules():
            if type(module).__name__ == "Snake1d":
                module.forward = types.MethodType(_apply_snake, module)

    def reset(self) -> None:
        """Fan-in initialisation of the convolutions, orthogonal quantiser projections, unused parts
        zero.
        """
        for part in (self.core.acoustic_encoder, self.core.acoustic_decoder):
            for module in part.modules():
                if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
                    module.reset_parameters()
        for linear in (self.core.fc, self.core.fc2):
            linear.reset_parameters()
        for quantizer in self.core.quantizer.quantizers:
            nn.init.orthogonal_(quantizer.project_in.weight)
            quantizer.project_out.weight.data.copy_(quantizer.project_in.weight.data.t())
            nn.init.zeros_(quantizer.project_in.bias)
            nn.init.zeros_(quantizer.project_out.bias)
            codebook = quantizer.codebook
            nn.init.normal_(codebook.embed, std=0.5)
            codebook.embed_avg.copy_(codebook.embed)
            codebook.cluster_size.fill_(1.0)
        for unused in (self.core.decoder_semantic, self.core.fc1):
            for parameter in unused.parameters():
                parameter.requires_grad_(False).zero_()
        self.core.semantic_model.masked_spec_embed = None

    def semantic(self, wave: torch.Tensor) -> torch.Tensor:
        """wave [B, L] at 24 kHz -> semantic features [B, C, frames]: mean of all hidden states."""
        model = self.core.semantic_model
        x = F.pad(resample_24k_to_16k(wave, self.kernel, self.width), (160, 160))[:, None]
        for layer in model.feature_extractor.conv_layers:
            x = layer(x)
        hidden = model.feature_projection(x.transpose(1, 2))
        hidden = model.encoder.layer_norm(hidden + model.encoder.pos_conv_embed(hidden))
        total = hidden
        for layer in model.encoder.layers:
            hidden = layer(hidden)
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden
            total = total + hidden
        mean = total / (len(model.encoder.layers) + 1)
        mean = mean[:, :: self.core.config.semantic_downsample_factor]
        encoded: torch.Tensor = self.core.encoder_semantic(mean.transpose(1, 2))
        return encoded

    def encode_latent(self, wave: torch.Tensor) -> torch.Tensor:
        """wave [B, 960 n] -> latent [B, n, D] before quantisation."""
        both = torch.cat([self.core.acoustic_encoder(wave[:, None]), self.semantic(wave)], 1)
        latent: torch.Tensor = self.core.fc(both.transpose(1, 2))
        return latent

    def decode_latent(self, latent: torch.Tensor) -> torch.Tensor:
        """latent [B, n, D] -> wave [B, 960 n]."""
        wave: torch.Tensor = self.core.acoustic_decoder(self.core.fc2(latent).transpose(1, 2))
        return wave[:, 0]

    def quantise(self, latent: torch.Tensor, books: torch.Tensor | None = None) -> Quantised:
        """Residual quantisation of latent [B, T, D].

        `books` [B] is the number of codebooks in use per item (training); the rest contribute
        nothing. Training also moves the codebooks. The two losses tie each projection to its
        codeword and the sum of the codewords to the latent, so that the books go from coarse to
        fine.
        """
        batch, frames, _ = latent.shape
        scale = latent.detach().var() + 1e-5
        remainder = latent
        total = torch.zeros_like(latent)
        commitment = latent.new_zeros(())
        residual = latent.new_zeros(())
        codes = []
        for index, quantizer in enumerate(self.core.quantizer.quantizers):
            used = latent.new_ones(batch, 1, 1) if books is None else _used(books, index, latent)
            h = quantizer.project_in(remainder)
            embed = quantizer.codebook.embed
            flat = h.detach().reshape(-1, h.shape[-1])
            distance = embed.square().sum(1) - 2.0 * flat @ embed.t()
            code = distance.argmin(1)
            word = embed[code].reshape(h.shape)
            if self.training:
                self._move_codebook(quantizer.codebook, flat, code, used.expand(-1, frames, 1))
            commitment = commitment + (used * (h - word).square()).mean() / (word.var() + 1e-5)
            out = quantizer.project_out(h + (word - h).detach())
            residual = residual + (used * (remainder.detach() - out).square()).mean() / scale
            residual = residual + 0.25 * (used * (remainder - out.detach()).square()).mean() / scale
            total = total + used * out
            remainder = remainder - out.detach()
            codes.append(code.reshape(batch, frames))
        return Quantised(total, torch.stack(codes, 1), commitment, residual)

    @torch.no_grad()
    def _move_codebook(
        self, codebook: Any, flat: torch.Tensor, code: torch.Tensor, used: torch.Tensor
    ) -> None:
        """Moving averages of counts and sums; codes hardly used restart at batch vectors."""
        size = codebook.embed.shape[0]
        slots = torch.arange(size, device=flat.device)
        hot = (code[:, None] == slots).to(flat.dtype) * used.reshape(-1, 1)
        rest = 1.0 - self.decay
        codebook.cluster_size.mul_(self.decay).add_(hot.sum(0) * rest)
        codebook.embed_avg.mul_(self.decay).add_((hot.t() @ flat) * rest)
        mean = codebook.cluster_size.mean()
        dead = (codebook.cluster_size < 0.08 * mean) & (self.revive > 0.5)
        pick = flat[torch.randint(0, flat.shape[0], (size,), device=flat.device)]
        codebook.embed_avg.copy_(torch.where(dead[:, None], pick * mean, codebook.embed_avg))
        codebook.cluster_size.copy_(torch.where(dead, mean, codebook.cluster_size))
        codebook.embed.copy_(codebook.embed_avg / codebook.cluster_size.clamp(min=1e-3)[:, None])

    @torch.no_grad()
    def seed_codebooks(self, waves: list[torch.Tensor], rounds: int = 8) -> None:
        """Sets every codebook by k-means over the latents of `waves` ([B, 960 n] each)."""
        remainder = torch.cat([self.encode_latent(w).flatten(0, 1) for w in waves])
        for quantizer in self.core.quantizer.quantizers:
            h = quantizer.project_in(remainder)
            size = quantizer.codebook.embed.shape[0]
            pick = torch.randperm(h.shape[0], device=h.device)
            centres = h[pick[torch.arange(size, device=h.device) % h.shape[0]]]
            for _ in range(rounds):
                code = torch.cdist(h, centres).argmin(1)
                hot = F.one_hot(code, size).to(h.dtype)
                count = hot.sum(0)
                fresh = h[torch.randint(0, h.shape[0], (size,), device=h.device)]
                centres = torch.where(
                    count[:, None] > 0, (hot.t() @ h) / count.clamp(min=1.0)[:, None], fresh
                )
            codebook = quantizer.codebook
            codebook.embed.copy_(centres)
            share = count.clamp(min=1.0) / count.mean()
            codebook.cluster_size.copy_(share)
            codebook.embed_avg.copy_(centres * share[:, None])
            code = torch.cdist(h, centres).argmin(1)
            remainder = remainder - quantizer.project_out(centres[code])


def _used(books: torch.Tensor, index: int, like: torch.Tensor) -> torch.Tensor:
    return (books > index).to(like.dtype)[:, None, None]


def perplexity(codes: torch.Tensor, size: int) -> list[float]:
    """Perplexity of each book's code use; codes [B, 8, T]."""
    result = []
    for book in codes.unbind(1):
        share = torch.bincount(book.reshape(-1), minlength=size).float()
        share = share / share.sum()
        entropy = -(share * (share + 1e-12).log()).sum()
        result.append(round(float(entropy.exp()), 1))
    return result
