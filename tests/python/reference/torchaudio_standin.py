"""A stand-in for `torchaudio` so that transformers' codec runs where torchaudio is not installed.

transformers' `HiggsAudioV2TokenizerModel` needs one function, `torchaudio.functional.resample`.
This one evaluates the documented band-limited interpolation directly, sample by sample in fp64,
and shares no code with `higgs_rt`: with o and n the two rates divided by their common divisor and
c = 0.99 min(o, n),

    y[m] = sum_i x[i] * (c / o) * sinc(c u) * cos(pi c u / 12)^2,   u = m / n - i / o,  |c u| < 6

for the ceil(n L / o) output samples. The real library is used instead whenever it is installed;
`run_codec_reference_torchaudio.py` compares against it on a machine that has it.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import math
import sys
import types

import torch


def resample(waveform: torch.Tensor, orig_freq: int, new_freq: int) -> torch.Tensor:
    """Resample `waveform` [..., L] from `orig_freq` to `new_freq` (Hz)."""
    divisor = math.gcd(orig_freq, new_freq)
    orig, new = orig_freq // divisor, new_freq // divisor
    cutoff = 0.99 * min(orig, new)
    length = waveform.shape[-1]
    out_length = math.ceil(new * length / orig)
    reach = math.ceil(6 * orig / cutoff) + 1
    out_index = torch.arange(out_length)
    in_index = (out_index * orig // new)[:, None] + torch.arange(-reach, reach + 1)[None, :]
    distance = cutoff * (out_index[:, None].double() / new - in_index.double() / orig)
    weight = torch.sinc(distance) * torch.cos(distance * math.pi / 12) ** 2 * cutoff / orig
    weight[(distance.abs() >= 6) | (in_index < 0) | (in_index >= length)] = 0.0
    taken = waveform.double()[..., in_index.clamp(0, length - 1)]
    return (taken * weight).sum(-1).to(waveform.dtype)


def install() -> bool:
    """Make `import torchaudio` work; returns whether the stand-in (not the library) is in use."""
    if "torchaudio" in sys.modules:
        return bool(getattr(sys.modules["torchaudio"], "is_stand_in", False))
    if importlib.util.find_spec("torchaudio") is not None:
        return False
    module = types.ModuleType("torchaudio")
    functional = types.ModuleType("torchaudio.functional")
    for part, name in ((module, "torchaudio"), (functional, "torchaudio.functional")):
        part.__spec__ = importlib.machinery.ModuleSpec(name, loader=None)
        sys.modules[name] = part
    functional.resample = resample  # type: ignore[attr-defined]
    module.functional = functional  # type: ignore[attr-defined]
    module.is_stand_in = True  # type: ignore[attr-defined]
    # transformers remembers an earlier "not available" answer.
    from transformers.utils import import_utils

    clear = getattr(import_utils.is_torchaudio_available, "cache_clear", None)
    if clear is not None:
        clear()
    return True
