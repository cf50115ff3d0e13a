"""Recordings for tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def make_recording(seconds: float, rate: int) -> NDArray[np.float32]:
    """Something voiced: harmonics of a gliding pitch under a syllable-like envelope, [n]."""
    time = np.arange(int(seconds * rate)) / rate
    phase = 2 * np.pi * (120 * time + 8 * np.sin(2 * np.pi * 0.7 * time))
    wave = sum(np.sin(k * phase) / k for k in range(1, 12))
    envelope = 0.2 * (0.55 + 0.45 * np.sin(2 * np.pi * 3.1 * time))
    noise = np.random.default_rng(0).standard_normal(len(time)) * 0.003
    return np.asarray(wave * envelope * 0.4 + noise, dtype=np.float32)
