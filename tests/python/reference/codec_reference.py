"""transformers' `HiggsAudioV2TokenizerModel` as the reference of the codec, in fp32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from reference import torchaudio_standin


class CodecReference:
    """The reference model of a checkpoint in the transformers layout."""

    def __init__(self, directory: str | Path) -> None:
        self.uses_stand_in = torchaudio_standin.install()
        # From its own module: `transformers` itself remembers, from when it was first imported,
        # that torchaudio was missing.
        from transformers.models.higgs_audio_v2_tokenizer.modeling_higgs_audio_v2_tokenizer import (
            HiggsAudioV2TokenizerModel,
        )

        loaded: Any = HiggsAudioV2TokenizerModel.from_pretrained(
            directory, dtype=torch.float32, output_loading_info=True
        )
        self.model, info = loaded
        problems = {key: sorted(map(str, value)) for key, value in info.items() if value}
        if problems:
            raise AssertionError(f"transformers does not load {directory} cleanly: {problems}")
        self.model.eval()

    def encode(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
        """Codes int32 [K, T] of `samples` fp32 [L] at 24 kHz."""
        with torch.no_grad():
            wave = torch.from_numpy(samples).to(self.model.device)
            codes = self.model.encode(wave[None, None]).audio_codes
        return np.asarray(codes[0].cpu().numpy(), dtype=np.int32)

    def decode(self, codes: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """Waveform fp32 [hop * T] of `codes` int32 [K, T]."""
        with torch.no_grad():
            ids = torch.from_numpy(codes).long().to(self.model.device)
            wave = self.model.decode(ids[None]).audio_values
        return np.asarray(wave[0, 0].cpu().numpy(), dtype=np.float32)
