"""Reconstruction losses of the codec."""

from __future__ import annotations

import torch
from torch import nn


def mel_filters(mels: int, n_fft: int, rate: int) -> torch.Tensor:
    """Triangular filters [n_fft/2+1, mels] on the mel scale (2595 log10(1 + f/700)), peak one."""
    top = 2595.0 * torch.log10(torch.tensor(1.0 + rate / 2 / 700.0))
    edges = 700.0 * (10.0 ** (torch.linspace(0, float(top), mels + 2) / 2595.0) - 1.0)
    hertz = torch.linspace(0, rate / 2, n_fft // 2 + 1)[:, None]
    low, mid, high = edges[:-2], edges[1:-1], edges[2:]
    rising = (hertz - low) / (mid - low)
    falling = (high - hertz) / (high - mid)
    return torch.minimum(rising, falling).clamp(min=0.0)


class MelLoss(nn.Module):
    """Mean over several window lengths of L1 between log-mel spectra, plus spectral convergence.

    `floor` is the magnitude (of unit-energy windows) under which differences do not matter.
    """

    def __init__(
        self,
        rate: int = 24_000,
        scales: tuple[tuple[int, int], ...] = ((256, 24), (512, 48), (1024, 80), (2048, 96)),
        floor: float = 1e-3,
    ) -> None:
        super().__init__()
        self.scales = scales
        self.floor = floor
        for n_fft, mels in scales:
            window = torch.hann_window(n_fft)
            self.register_buffer(f"window_{n_fft}", window / window.square().sum().sqrt())
            self.register_buffer(f"filters_{n_fft}", mel_filters(mels, n_fft, rate))

    def magnitude(self, wave: torch.Tensor, n_fft: int) -> torch.Tensor:
        """wave [B, T] -> magnitudes [B, frames, n_fft/2+1], hop n_fft/4, no centring."""
        frames = wave.unfold(-1, n_fft, n_fft // 4) * getattr(self, f"window_{n_fft}")
        spectrum = torch.fft.rfft(frames)
        power: torch.Tensor = spectrum.real.square() + spectrum.imag.square()
        return (power + 1e-12).sqrt()

    def forward(self, made: torch.Tensor, real: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """made, real [B, T] -> (log-mel L1 in nats, spectral convergence), both scalars."""
        mel = made.new_zeros(())
        convergence = made.new_zeros(())
        for n_fft, _ in self.scales:
            filters = getattr(self, f"filters_{n_fft}")
            a, b = self.magnitude(made, n_fft), self.magnitude(real, n_fft)
            log_a = (a @ filters + self.floor).log()
            log_b = (b @ filters + self.floor).log()
            mel = mel + (log_a - log_b).abs().mean()
            convergence = convergence + (a - b).norm() / (b.norm() + 1e-6)
        return mel / len(self.scales), convergence / len(self.scales)
