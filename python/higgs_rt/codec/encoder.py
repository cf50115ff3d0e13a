"""Encoding of reference audio to codes, in torch (spec 8.4)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from higgs_rt.codec.config import CodecConfig
from higgs_rt.codec.hubert import Hubert
from higgs_rt.codec.layers import AcousticEncoder, ResidualQuantizer, SemanticEncoder, resample_sinc
from higgs_rt.codec.names import encoder_tensors
from higgs_rt.codec.tensor_store import TensorStore, load_tensors
from higgs_rt.errors import AudioError

# Zeros on each side of the 16 kHz waveform: half of what HuBERT's convolutions consume.
SEMANTIC_PADDING = 160


class CodecEncoder(nn.Module):
    """The encoding half of the codec; fp32 whatever the checkpoint's dtype."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.semantic_model = Hubert(config.semantic)
        self.encoder_semantic = SemanticEncoder(config.semantic.hidden)
        self.acoustic_encoder = AcousticEncoder(config)
        self.fc = nn.Linear(config.fused, config.fused)
        self.quantizer = ResidualQuantizer(config)

    @staticmethod
    def load(directory: str | Path) -> CodecEncoder:
        """Load a codec directory in either layout.

        Raises CheckpointError naming the file, field or tensor that is missing, extra or wrong.
        """
        directory = Path(directory)
        store = TensorStore.open(directory)
        config = CodecConfig.read(directory / "config.json", store.shapes)
        tensors = load_tensors(store, config, encoder_tensors(config))
        with torch.device("meta"):
            encoder = CodecEncoder(config)
        encoder.load_state_dict(tensors, strict=True, assign=True)
        return encoder.eval().requires_grad_(False)

    def encode(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
        """Codes int32 [num_codebooks, T] of mono `samples` fp32 [T * hop] at `sample_rate`.

        Raises AudioError unless the samples are 1-D, finite and a positive whole number of frames
        (see `higgs_rt.audio.prepare_reference`).
        """
        hop = self.config.hop
        if samples.ndim != 1 or samples.size == 0 or samples.size % hop:
            raise AudioError(
                f"[codec.encode] expected 1-D samples, a multiple of {hop}, got {samples.shape}"
            )
        if not np.isfinite(samples).all():
            raise AudioError("[codec.encode] expected finite samples, got NaN or infinity")
        wave = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))
        with torch.inference_mode():
            codes = self(wave.to(self.fc.weight.device)[None, None])
        return np.asarray(codes.cpu().numpy(), dtype=np.int32)

    def forward(self, wave: Tensor) -> Tensor:
        """`wave` fp32 [1, 1, L] -> codes int64 [num_codebooks, T], T = floor((L + 841) / 960)."""
        semantic = self._semantic(wave)
        acoustic = self.acoustic_encoder(wave)
        if acoustic.shape[2] != semantic.shape[2]:
            # Lengths that are not whole frames: the original's rule, pad and cut the longer.
            padding = SEMANTIC_PADDING * self.config.semantic_stride
            acoustic = self.acoustic_encoder(F.pad(wave, (padding, padding)))
        frames = min(acoustic.shape[2], semantic.shape[2])
        fused = torch.cat([acoustic[:, :, :frames], semantic[:, :, :frames]], dim=1)
        codes: Tensor = self.quantizer(self.fc(fused[0].t()))
        return codes

    def _semantic(self, wave: Tensor) -> Tensor:
        """Semantic features [1, hidden, T] of `wave` [1, 1, L]."""
        config = self.config
        wave = resample_sinc(wave[:, 0], config.sample_rate, config.semantic_sample_rate)
        features = self.semantic_model(F.pad(wave, (SEMANTIC_PADDING, SEMANTIC_PADDING)))
        strided = features[:, :: config.semantic_stride]
        encoded: Tensor = self.encoder_semantic(strided.transpose(1, 2))
        return encoded
