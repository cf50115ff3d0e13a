"""TensorRT networks against the native engine: right ones are equal, wrong ones are caught."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorrt_rtx_bindings", reason="needs the extra tensorrt-rtx")
pytest.importorskip("torch")

from build_engine.backend import load_package
from build_engine.build import Workshop
from build_engine.codec import CodecNetwork
from build_engine.decoder import DecoderNetwork
from build_engine.definition import Tensor
from build_engine.dtypes import Precision
from build_engine.options import DecoderOptions, WeightMode
from build_engine.verify import Check, check_codec, check_decoder, decoder_differences

from higgs_rt.checkpoint import small_codec_config, write_random_checkpoint, write_random_codec

LIMITS: dict[str, int] = {"max_batch": 6, "max_seq_len": 160, "max_prefill": 24}


@pytest.fixture(scope="module")
def workshop() -> Workshop:
    return Workshop(load_package("tensorrt_rtx"))


@pytest.fixture(scope="module")
def model_f32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Square projections, so that a transposed weight has the right shape."""
    directory = tmp_path_factory.mktemp("tensorrt_f32")
    codec = small_codec_config()
    write_random_checkpoint(directory, layers=3, codebook_size=codec.codebook_size)
    write_random_codec(directory / "codec", codec)
    return directory


@pytest.fixture(scope="module")
def model_bf16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tensorrt_bf16")
    write_random_checkpoint(
        directory,
        layout="original",
        dtype="bfloat16",
        heads=6,
        kv_heads=2,
        head_dim=32,
        hidden=96,
        layers=2,
        shards=2,
        seed=5,
    )
    return directory


def options(precision: Precision = "fp32", weights: WeightMode = "constants") -> DecoderOptions:
    return DecoderOptions(precision=precision, weights=weights, **LIMITS)


def failed(checks: list[Check]) -> list[str]:
    return [check.what for check in checks if not check.passed]


@pytest.mark.parametrize("weights", ["constants", "inputs"])
def test_fp32_is_the_native_engine(
    weights: WeightMode, model_f32: Path, workshop: Workshop
) -> None:
    chosen = options("fp32", weights)
    made = workshop.decoder(model_f32, chosen)
    for difference in decoder_differences(made, chosen, rounding=False):
        assert difference.max_error <= 1e-5
        assert difference.agreement == 1.0
    assert failed(check_decoder(made, chosen)) == []


@pytest.mark.parametrize(
    ("precision", "weights"), [("bf16", "constants"), ("bf16", "inputs"), ("fp16", "constants")]
)
def test_16_bits_stay_in_their_bounds(
    precision: Precision, weights: WeightMode, model_bf16: Path, workshop: Workshop
) -> None:
    chosen = options(precision, weights)
    assert failed(check_decoder(workshop.decoder(model_bf16, chosen), chosen)) == []


def test_old_attention_without_lengths(model_f32: Path) -> None:
    """TensorRT 10.15 and 10.16 have the mask only; their layer is there in newer packages too."""
    package = load_package("tensorrt_rtx")
    older = type(package)(package.backend, package.trt, package.version, False, True)
    made = Workshop(older).decoder(model_f32, options())
    assert all(
        None in layer.inputs or len(layer.inputs) < 7 or layer.inputs[6] is None
        for layer in made.graph.layers
        if layer.kind == "ATTENTION_INPUT"
    )
    assert failed(check_decoder(made, options())) == []


def test_one_sequence_and_the_smallest_limits(model_f32: Path, workshop: Workshop) -> None:
    least = DecoderOptions(
        precision="fp32", max_batch=1, max_seq_len=48, max_prefill=1, max_prompt_table=1
    )
    assert failed(check_decoder(workshop.decoder(model_f32, least), least)) == []


class TransposedWeight(DecoderNetwork):
    def weight(self, name: str, rows: int, columns: int, leading: int = 0) -> Tensor:
        if name != "layers.1.self_attn.o_proj":
            return super().weight(name, rows, columns, leading)
        stored = self._checkpoint.get(f"{name}.weight", (rows, columns))
        turned = type(stored)(stored.name, stored.dtype, np.ascontiguousarray(stored.values.T))
        return self.net.parameter(turned, self._dtype, leading)


class ShiftedRotary(DecoderNetwork):
    def rotate(
        self, x: Tensor, tables: tuple[Tensor, Tensor], position: Tensor, name: str
    ) -> Tensor:
        """Queries of one layer turn as if they stood one position later."""
        if name == "layers.0.q":
            position = self.net.add(position, self.net.scalar(1, 2, "i32"), "shifted")
        return super().rotate(x, tables, position, name)


class SwappedFeedForward(DecoderNetwork):
    def feed_forward(self, x: Tensor, layer: str, modality: str) -> Tensor:
        if layer == "layers.1":
            modality = "" if modality else "audio_"
        return super().feed_forward(x, layer, modality)


class MaskSeesTheNext(DecoderNetwork):
    def mask(self, position: Tensor) -> Tensor:
        """Every query also sees the position behind it."""
        one = self.net.scalar(1, 2, "i32")
        return super().mask(self.net.add(position, one, "mask.late"))


class MaskMissesItself(DecoderNetwork):
    def mask(self, position: Tensor) -> Tensor:
        """No query but the first of a sequence sees its own position."""
        one, zero = self.net.scalar(1, 2, "i32"), self.net.scalar(0, 2, "i32")
        earlier = self.net.elementwise(position, one, "SUB", "mask.early")
        return super().mask(self.net.elementwise(earlier, zero, "MAX", "mask.first"))


class TextNormForAudio(DecoderNetwork):
    def rms_norm(self, x: Tensor, name: str) -> Tensor:
        return super().rms_norm(x, name.replace("1.audio_input", "1.input"))


class ForgottenFeedback(DecoderNetwork):
    def columns(self, ids: Tensor) -> Tensor:
        """Every column comes from the host."""
        zero = self.net.scalar(0, 1, "i32")
        books = self.config.num_codebooks
        self.net.input("last_columns", "i32", ("R", books))
        return self.net.gather(
            self.net.input("columns", "i32", ("C", books)),
            self.net.elementwise(ids, zero, "MIN", "row"),
            "given",
        )


class UnscaledQueries(DecoderNetwork):
    def rotate(
        self, x: Tensor, tables: tuple[Tensor, Tensor], position: Tensor, name: str
    ) -> Tensor:
        return super().rotate(x, tables, position, name.replace(".q", ".query"))


class ForgottenTable(DecoderNetwork):
    def embed_text(self, ids: Tensor) -> Tensor:
        """A prompt-table row is taken for the last token."""
        last = self.net.scalar(self.config.text_vocab - 1, 1, "i32")
        return super().embed_text(self.net.elementwise(ids, last, "MIN", "only_tokens"))


WRONG = [
    TransposedWeight,
    ShiftedRotary,
    SwappedFeedForward,
    MaskSeesTheNext,
    MaskMissesItself,
    TextNormForAudio,
    ForgottenFeedback,
    UnscaledQueries,
    ForgottenTable,
]


@pytest.mark.parametrize("network", WRONG, ids=lambda network: network.__name__)
def test_a_wrong_layer_is_caught(
    network: type[DecoderNetwork], model_f32: Path, workshop: Workshop
) -> None:
    """Each is legal for TensorRT, and every check of the decode steps notices it."""
    try:
        checks = check_decoder(workshop.decoder(model_f32, options(), network), options())
    except Exception as error:  # an index that no table has is refused by the interpreter
        assert "expected indices" in str(error)
        return
    assert any("decode" in what and "structure" in what for what in failed(checks))


@pytest.mark.parametrize(
    "network", [TransposedWeight, ShiftedRotary, SwappedFeedForward, MaskSeesTheNext]
)
def test_a_wrong_layer_is_caught_under_rounding_too(
    network: type[DecoderNetwork], model_f32: Path, workshop: Workshop
) -> None:
    """Rounding to bf16 hides none of them: they also leave the wider bounds."""
    chosen = options("bf16")
    checks = check_decoder(workshop.decoder(model_f32, chosen, network), chosen)
    assert any("bf16 per layer" in what for what in failed(checks))


def test_codec_is_the_native_decoder(model_f32: Path, workshop: Workshop) -> None:
    assert failed(check_codec(workshop.codec(model_f32 / "codec"), model_f32)) == []


class LateUpsampling(CodecNetwork):
    def upsample(self, x: Tensor, name: str, ratio: int) -> Tensor:
        """The odd ratio's missing sample is cut in front instead of behind."""
        padding = (ratio + 1) // 2
        tensors = self._tensors
        return self.net.deconvolution(
            x,
            tensors[f"{name}.weight"],
            tensors[f"{name}.bias"],
            stride=ratio,
            padding=(padding - ratio % 2, padding),
            name=name,
        )


class UndilatedUnits(CodecNetwork):
    def residual_unit(self, x: Tensor, name: str, dilation: int) -> Tensor:
        return super().residual_unit(x, name, 3 if dilation == 9 else dilation)


class ReversedSnake(CodecNetwork):
    def snake(self, x: Tensor, name: str) -> Tensor:
        """The last snake has its channels in the wrong order."""
        if name == "acoustic_decoder.snake1":
            self._tensors[f"{name}.alpha"] = self._tensors[f"{name}.alpha"][:, ::-1]
        return super().snake(x, name)


@pytest.mark.parametrize("network", [LateUpsampling, UndilatedUnits, ReversedSnake])
def test_a_wrong_codec_is_caught(
    network: type[CodecNetwork], model_f32: Path, workshop: Workshop
) -> None:
    made: Any = workshop.codec(model_f32 / "codec", network)
    assert failed(check_codec(made, model_f32)) == ["codec"]
