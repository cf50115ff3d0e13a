"""Discriminators on complex spectra, for the adversarial part of the decoder's training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

Features = list[torch.Tensor]


class SpectrumDiscriminator(nn.Module):
    """Judges patches of a complex spectrum: wave [B, T] -> (scores, hidden features)."""

    window: torch.Tensor

    def __init__(self, n_fft: int, channels: int = 24) -> None:
        super().__init__()
        self.n_fft = n_fft
        window = torch.hann_window(n_fft)
        self.register_buffer("window", window / window.square().sum().sqrt())
        self.layers = nn.ModuleList(
            [nn.Conv2d(2, channels, (3, 9), padding=(1, 4))]
            + [
                nn.Conv2d(
                    channels, channels, (3, 9), stride=(1, 2), padding=(d, 4), dilation=(d, 1)
                )
                for d in (1, 2, 4)
            ]
            + [nn.Conv2d(channels, channels, (3, 3), padding=(1, 1))]
        )
        self.last = nn.Conv2d(channels, 1, (3, 3), padding=(1, 1))

    def forward(self, wave: torch.Tensor) -> tuple[torch.Tensor, Features]:
        frames = wave.unfold(-1, self.n_fft, self.n_fft // 4) * self.window
        spectrum = torch.fft.rfft(frames)
        x = torch.stack([spectrum.real, spectrum.imag], 1)
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.1)
            features.append(x)
        return self.last(x), features


class Discriminators(nn.Module):
    """Several window lengths together."""

    def __init__(self, sizes: tuple[int, ...] = (1024, 512, 256)) -> None:
        super().__init__()
        self.parts = nn.ModuleList([SpectrumDiscriminator(n) for n in sizes])

    def judge_loss(self, made: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """Least-squares loss of the discriminators."""
        loss = made.new_zeros(())
        for part in self.parts:
            fake, _ = part(made.detach())
            true, _ = part(real)
            loss = loss + fake.square().mean() + (1.0 - true).square().mean()
        return loss / len(self.parts)

    def maker_loss(
        self, made: torch.Tensor, real: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(adversarial, feature matching) losses of the decoder."""
        adversarial = made.new_zeros(())
        matching = made.new_zeros(())
        for part in self.parts:
            fake, fake_features = part(made)
            with torch.no_grad():
                _, true_features = part(real)
            adversarial = adversarial + (1.0 - fake).square().mean()
            for a, b in zip(fake_features, true_features, strict=True):
                matching = matching + (a - b).abs().mean() / (b.abs().mean() + 1e-4)
        return adversarial / len(self.parts), matching / (len(self.parts) * len(fake_features))
