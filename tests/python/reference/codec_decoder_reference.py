"""Decoding (spec 8.1) in plain torch from the stored tensors, independent of transformers.

For tests of the native decoder, and of what transformers computes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from higgs_rt.codec.config import CodecConfig
from higgs_rt.codec.names import decoder_tensors
from higgs_rt.codec.tensor_store import TensorStore, load_tensors


class CodecDecoderReference:
    """Codes -> waveform, for a codec directory in either layout; `dtype` of the arithmetic."""

    def __init__(self, directory: str | Path, dtype: torch.dtype = torch.float32) -> None:
        store = TensorStore.open(Path(directory))
        self.config = CodecConfig.read(Path(directory) / "config.json", store.shapes)
        tensors = load_tensors(store, self.config, decoder_tensors(self.config))
        self.tensors = {name: value.to(dtype) for name, value in tensors.items()}

    def decode(self, codes: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        """`codes` int [K, T] -> waveform fp64 [hop * T] (values of precision `dtype`)."""
        t = self.tensors
        ids = torch.from_numpy(np.ascontiguousarray(codes)).long()
        parts = []
        for k in range(self.config.num_codebooks):
            name = f"quantizer.quantizers.{k}"
            vector = F.embedding(ids[k], t[f"{name}.codebook.embed"])
            parts.append(self._linear(vector, f"{name}.project_out"))
        x = self._linear(torch.stack(parts).sum(0), "fc2").t()[None]
        with torch.no_grad():
            return np.asarray(self._acoustic(x)[0, 0].numpy(), dtype=np.float64)

    def _acoustic(self, x: torch.Tensor) -> torch.Tensor:
        x = self._conv(x, "acoustic_decoder.conv1", padding=3)
        for index, stride in enumerate(self.config.ratios):
            block = f"acoustic_decoder.block.{index}"
            x = F.conv_transpose1d(
                self._snake(x, f"{block}.snake1"),
                self.tensors[f"{block}.conv_t1.weight"],
                self.tensors[f"{block}.conv_t1.bias"],
                stride=stride,
                padding=(stride + 1) // 2,
                output_padding=stride % 2,
            )
            for unit, dilation in ((1, 1), (2, 3), (3, 9)):
                name = f"{block}.res_unit{unit}"
                y = self._snake(x, f"{name}.snake1")
                y = self._conv(y, f"{name}.conv1", padding=3 * dilation, dilation=dilation)
                x = x + self._conv(self._snake(y, f"{name}.snake2"), f"{name}.conv2")
        x = self._snake(x, "acoustic_decoder.snake1")
        return self._conv(x, "acoustic_decoder.conv2", padding=3)

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"])

    def _conv(
        self, x: torch.Tensor, name: str, padding: int = 0, dilation: int = 1
    ) -> torch.Tensor:
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        return F.conv1d(x, weight, bias, padding=padding, dilation=dilation)

    def _snake(self, x: torch.Tensor, name: str) -> torch.Tensor:
        alpha = self.tensors[f"{name}.alpha"]
        return x + torch.sin(alpha * x) ** 2 / (alpha + 1e-9)
