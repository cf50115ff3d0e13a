"""The codec's decoder as a TensorRT network (docs/tensorrt.md, "Codec bindings"), all in fp32.

It computes what csrc/model/codec_decoder.cpp computes (specification 8.1): summed code tables, then
a stack of transposed convolutions and residual units. Time is the last axis; convolutions are
two-dimensional with one row.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from build_engine.backend import Package
from build_engine.definition import Definition, Tensor
from build_engine.dtypes import Array
from build_engine.errors import BuildError
from higgs_rt.codec.config import CodecConfig

DILATIONS = (1, 3, 9)


def read_codec(directory: Path) -> tuple[CodecConfig, dict[str, Array]]:
    """Configuration and decoding tensors by canonical name, fp32, weight norms folded.

    Raises CheckpointError that names a file, field or tensor. Needs torch.
    """
    try:
        from higgs_rt.codec.names import decoder_tensors
        from higgs_rt.codec.tensor_store import TensorStore, load_tensors
    except ImportError as error:
        raise BuildError(
            f"[codec] expected torch (pip install 'higgs-rt[voices]'), got: {error}"
        ) from None
    store = TensorStore.open(directory)
    config = CodecConfig.read(directory / "config.json", store.shapes)
    tensors = load_tensors(store, config, decoder_tensors(config))
    return config, {name: tensor.numpy() for name, tensor in tensors.items()}


def context_frames(ratios: tuple[int, ...]) -> int:
    """Frames on each side that a frame's samples depend on (specification 8.2)."""
    hop = int(np.prod(ratios))
    first, last = -3, hop - 1 + 3
    for ratio in reversed(ratios):
        reach = 3 * sum(DILATIONS)
        padding = (ratio + 1) // 2
        first = -(-(first - reach + padding - 2 * ratio + 1) // ratio)
        last = (last + reach + padding) // ratio
    return max(-(first - 3), last + 3)


def code_tables(config: CodecConfig, tensors: dict[str, Array]) -> tuple[Array, Array]:
    """Quantisers and fc2 folded: tables [K * codebook_size, latent] and their bias [latent]."""
    fc2 = tensors["fc2.weight"].astype(np.float64)
    bias = tensors["fc2.bias"].astype(np.float64)
    tables = []
    for book in range(config.num_codebooks):
        name = f"quantizer.quantizers.{book}"
        out = tensors[f"{name}.project_out.weight"].astype(np.float64)
        embed = tensors[f"{name}.codebook.embed"].astype(np.float64)
        tables.append(embed @ (fc2 @ out).T)
        bias = bias + fc2 @ tensors[f"{name}.project_out.bias"].astype(np.float64)
    return np.concatenate(tables).astype(np.float32), bias.astype(np.float32)


class CodecNetwork:
    """Writes the network into a Definition."""

    def __init__(
        self, package: Package, builder: Any, config: CodecConfig, tensors: dict[str, Array]
    ) -> None:
        """Nothing is written yet; see `write`."""
        self.net = Definition(package, builder)
        self.config = config
        self._tensors = tensors

    def write(self) -> Definition:
        """The whole network."""
        net, config = self.net, self.config
        x = self.conv(self.latent(), "acoustic_decoder.conv1")
        for index, ratio in enumerate(config.ratios):
            name = f"acoustic_decoder.block.{index}"
            x = self.upsample(self.snake(x, f"{name}.snake1"), f"{name}.conv_t1", ratio)
            for unit, dilation in enumerate(DILATIONS, 1):
                x = self.residual_unit(x, f"{name}.res_unit{unit}", dilation)
        x = self.snake(x, "acoustic_decoder.snake1")
        x = self.conv(x, "acoustic_decoder.conv2")
        samples = f"T*{config.hop}"
        net.output(net.reshape(x, (0, -1), "pcm"), "pcm", "f32", ("N", samples))
        return net

    def latent(self) -> Tensor:
        """Codes [N, K, T] as [N, latent, 1, T]."""
        net, config = self.net, self.config
        codes = net.input("codes", "i32", ("N", config.num_codebooks, "T"))
        tables, bias = code_tables(config, self._tensors)
        first = np.arange(config.num_codebooks, dtype=np.int32) * config.codebook_size
        rows = net.add(codes, net.array("code_offsets", first[None, :, None], "i32"), "code_rows")
        parts = net.gather(net.array("code_tables", tables, "f32"), rows, "code_parts")
        summed = net.reduce(parts, "SUM", 1, False, "code_sum")
        biased = net.add(summed, net.array("code_bias", bias[None, None], "f32"), "latent")
        turned = net.reshape(biased, (0, config.latent, 1, -1), "latent.channels", before=(0, 2, 1))
        return turned

    def residual_unit(self, x: Tensor, name: str, dilation: int) -> Tensor:
        """x + conv1x1(snake(conv7(snake(x))))."""
        y = self.conv(self.snake(x, f"{name}.snake1"), f"{name}.conv1", dilation)
        y = self.conv(self.snake(y, f"{name}.snake2"), f"{name}.conv2")
        return self.net.add(x, y, f"{name}.out")

    def snake(self, x: Tensor, name: str) -> Tensor:
        """x + sin^2(alpha x) / (alpha + 1e-9)."""
        net = self.net
        alpha = self._tensors[f"{name}.alpha"].astype(np.float32).reshape(1, -1, 1, 1)
        inverse = (1 / (alpha.astype(np.float64) + 1e-9)).astype(np.float32)
        sine = net.unary(
            net.multiply(x, net.array(f"{name}.alpha", alpha, "f32"), f"{name}.angle"),
            "SIN",
            f"{name}.sin",
        )
        square = net.multiply(sine, sine, f"{name}.square")
        scaled = net.multiply(
            square, net.array(f"{name}.inverse", inverse, "f32"), f"{name}.scaled"
        )
        return net.add(x, scaled, f"{name}.out")

    def conv(self, x: Tensor, name: str, dilation: int = 1) -> Tensor:
        """Convolution that keeps the length."""
        weight = self._tensors[f"{name}.weight"]
        reach = dilation * (weight.shape[2] - 1) // 2
        return self.net.convolution(
            x, weight, self._tensors[f"{name}.bias"], dilation=dilation, padding=reach, name=name
        )

    def upsample(self, x: Tensor, name: str, ratio: int) -> Tensor:
        """Transposed convolution with kernel 2 ratio; exactly `ratio` times as long."""
        padding = (ratio + 1) // 2
        return self.net.deconvolution(
            x,
            self._tensors[f"{name}.weight"],
            self._tensors[f"{name}.bias"],
            stride=ratio,
            # torch's output_padding: less is cut off behind.
            padding=(padding, padding - ratio % 2),
            name=name,
        )
