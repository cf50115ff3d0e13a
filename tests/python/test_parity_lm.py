"""The language model against transformers: greedy columns, logits, endings.

HIGGS_RT_TEST_DEVICE=cuda:0 runs both on the GPU (tests/gpu/run).

Small random checkpoints of several shapes, written in both layouts from one seed; the reference
reads the transformers layout. Weights of the EOS rows of the head are zeroed where a test wants a
given number of columns, and kept where it wants the stream to end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from higgs_rt import _higgs_rt as native
from higgs_rt.checkpoint.random_checkpoint import special_token_id, write_random_checkpoint

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")
transformers = pytest.importorskip("transformers")

IntArray = NDArray[np.int32]
FloatArray = NDArray[np.float32]

CODEBOOKS = 8
NUM_COLUMNS = 64
DEVICE = os.environ.get("HIGGS_RT_TEST_DEVICE", "cpu")
ON_CPU = DEVICE == "cpu"
FP32_BOUND = 1e-4 if ON_CPU else 1e-3
# transformers in bf16 rounds every activation to 8 bits of mantissa, this runtime none on the CPU
# and on a GPU all but the residual stream; logits have a standard deviation of about 2. Greatest
# and root mean square difference.
BF16_BOUND = 0.6
BF16_RMS_BOUND = 0.1


@dataclass(frozen=True)
class Model:
    """A random checkpoint's shape and the layout that the runtime reads."""

    name: str
    layout: str
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    layers: int
    ffn: int
    codes: int
    shards: int = 1
    vocab: int = 320

    def write(self, directory: Path, layout: str, dtype: str, ending: bool) -> None:
        write_random_checkpoint(
            directory,
            hidden=self.hidden,
            layers=self.layers,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            ffn=self.ffn,
            vocab=self.vocab,
            codebook_size=self.codes,
            layout=layout,  # type: ignore[arg-type]
            dtype=dtype,
            shards=self.shards,
            seed=sum(self.name.encode()),
        )
        if not ending:
            silence_eos(directory, self.codes + 2)

    def special(self, released_id: int) -> int:
        return special_token_id(released_id, self.vocab)


MODELS = (
    Model("mha", "transformers", 4, 4, 16, 64, 2, 96, codes=30),
    Model("mha-original", "original", 2, 2, 32, 64, 5, 80, codes=62, shards=3),
    Model("gqa4", "transformers", 8, 2, 16, 128, 4, 160, codes=126, shards=2),
    Model("gqa4-original", "original", 4, 1, 24, 96, 3, 112, codes=62),
    Model("gqa3-original", "original", 6, 2, 16, 96, 6, 144, codes=254),
    Model("gqa2-wide-heads", "transformers", 4, 2, 32, 64, 6, 56, codes=30),
    Model("released-head", "original", 6, 2, 128, 96, 2, 64, codes=1024, vocab=128256),
)
PROMPTS = ("plain", "cloned", "two-references")


def silence_eos(directory: Path, codebook_vocab: int) -> None:
    """Zero the EOS rows of the audio head, so that a greedy stream never ends."""
    for file in directory.glob("*.safetensors"):
        tensors = safetensors_torch.load_file(file)
        heads = [name for name in tensors if name.endswith("audio_lm_head.weight")]
        for name in heads:
            tensors[name][codebook_vocab - 1 :: codebook_vocab] = 0
        if heads:
            safetensors_torch.save_file(tensors, file, metadata={"format": "pt"})


@dataclass(frozen=True)
class Prompt:
    """Alternating text ids and reference codes [8, T], ending with <|audio_out_bos|>."""

    parts: tuple[list[int] | IntArray, ...]

    def segments(self) -> list[native.PromptSegment]:
        return [
            native.PromptSegment.text(part)
            if isinstance(part, list)
            else native.PromptSegment.audio(part)
            for part in self.parts
        ]

    def reference_inputs(self, model: Model) -> dict[str, Any]:
        """Inputs of the transformers model: ids with placeholders, and the delayed columns."""
        ids: list[int] = []
        columns: list[IntArray] = []
        for part in self.parts:
            if isinstance(part, list):
                ids += part
                continue
            delayed = delay(part, model.codes)
            columns.append(delayed)
            tail = CODEBOOKS - 1
            ids += [model.special(128016)] * (len(delayed) - tail) + [model.special(128014)] * tail
        inputs: dict[str, Any] = {"input_ids": torch.tensor([ids], device=DEVICE)}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        if columns:
            audio = torch.from_numpy(np.concatenate(columns)).long()[None].to(DEVICE)
            inputs["audio_input_ids"] = audio
            mask = torch.ones(audio.shape[:2], dtype=torch.bool, device=DEVICE)
            inputs["audio_input_ids_mask"] = mask
        return inputs


def delay(codes: IntArray, codebook_size: int) -> IntArray:
    """Columns [T + 9, 8] of codes [8, T], written down from specification 5."""
    books, frames = codes.shape
    columns = np.empty((frames + books + 1, books), np.int32)
    for column in range(len(columns)):
        for book in range(books):
            frame = column - book - 1
            columns[column, book] = (
                codebook_size
                if frame < 0
                else codebook_size + 1
                if frame >= frames
                else codes[book, frame]
            )
    return columns


def make_prompt(model: Model, kind: str) -> Prompt:
    rng = np.random.default_rng(len(kind))

    def text(count: int) -> list[int]:
        ids: list[int] = rng.integers(0, 256, count).tolist()
        return ids

    def codes(frames: int) -> IntArray:
        return rng.integers(0, model.codes, (CODEBOOKS, frames), dtype=np.int32)

    opening = [model.special(128000), model.special(128006), *text(11), model.special(128009)]
    out_bos, eos = model.special(128013), model.special(128012)
    between = [eos, model.special(128009), *text(14), out_bos]
    if kind == "plain":
        return Prompt(([*opening, *text(9), out_bos],))
    if kind == "cloned":
        return Prompt(([*opening, out_bos], codes(21), between))
    return Prompt(([*opening, out_bos], codes(13), between, codes(6), between))


class Pair:
    """One checkpoint in the runtime and in transformers."""

    def __init__(self, model: Model, directory: Path, dtype: str, ending: bool) -> None:
        self.model = model
        model.write(directory / "reference", "transformers", dtype, ending)
        if model.layout == "original":
            model.write(directory / "native", "original", dtype, ending)
            self.directory = directory / "native"
        else:
            self.directory = directory / "reference"
        self.reference_directory = directory / "reference"

    def config(self) -> native.RuntimeConfig:
        return native.RuntimeConfig(
            str(self.directory), codec_dir="none", device=DEVICE, max_batch=4, max_sequence=512
        )

    @cache  # noqa: B019 - a pair lives as long as the module's tests
    def reference(self, dtype: str = "float32") -> Any:
        model = transformers.HiggsAudioV2ForConditionalGeneration.from_pretrained(
            self.reference_directory, dtype=getattr(torch, dtype), attn_implementation="eager"
        )
        return model.to(DEVICE).eval()

    def reference_columns(self, prompt: Prompt, num_columns: int) -> IntArray:
        """Columns that transformers generates greedily, the all-BOS one first."""
        inputs = prompt.reference_inputs(self.model)
        given = inputs["audio_input_ids"].shape[1] if "audio_input_ids" in inputs else 0
        with torch.no_grad():
            columns = self.reference().generate(
                **inputs, do_sample=False, max_new_tokens=num_columns
            )
        return np.asarray(columns[0, given:].cpu().numpy(), np.int32)

    def reference_logits(self, prompt: Prompt, columns: IntArray, dtype: str) -> FloatArray:
        """Teacher-forced logits [n, 8, V] at `columns`."""
        inputs = prompt.reference_inputs(self.model)
        placeholders = torch.full((1, len(columns)), self.model.special(128016), device=DEVICE)
        ids = torch.cat([inputs["input_ids"], placeholders], dim=1)
        audio = torch.from_numpy(columns).long()[None].to(DEVICE)
        if "audio_input_ids" in inputs:
            audio = torch.cat([inputs["audio_input_ids"], audio], dim=1)
        with torch.no_grad():
            logits = self.reference(dtype)(
                input_ids=ids,
                audio_input_ids=audio,
                audio_input_ids_mask=torch.ones(audio.shape[:2], dtype=torch.bool, device=DEVICE),
            ).logits[0, -len(columns) :]
        shape = (len(columns), CODEBOOKS, self.model.codes + 2)
        return np.asarray(logits.float().reshape(shape).cpu().numpy())

    def native_columns(self, prompt: Prompt, num_columns: int) -> tuple[IntArray, str]:
        sampling = native.SamplingParams(
            temperature=0, ras_window=0, rule=native.StreamRule.TRANSFORMERS
        )
        runtime = native.Runtime.load(self.config())
        try:
            stream = runtime.submit(
                native.Request(
                    prompt.segments(),
                    sampling,
                    max_columns=num_columns,
                    output=native.OutputKind.FRAMES,
                )
            )
            chunk = stream.next()
            assert chunk is not None and chunk.last
            return chunk.columns.copy(), chunk.finish.name
        finally:
            runtime.shutdown()


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Threads cost more than they bring on models this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def get(model: Model, dtype: str = "float32", ending: bool = False) -> Pair:
        return Pair(model, tmp_path_factory.mktemp(model.name), dtype, ending)

    return get


@pytest.mark.parametrize("kind", PROMPTS)
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_greedy_columns_and_logits(pairs: Any, model: Model, kind: str) -> None:
    pair: Pair = pairs(model)
    prompt = make_prompt(model, kind)
    expected = pair.reference_columns(prompt, NUM_COLUMNS)
    assert expected.shape == (NUM_COLUMNS, CODEBOOKS)
    assert len(np.unique(expected)) > CODEBOOKS, "the reference must not repeat one column"
    columns, finish = pair.native_columns(prompt, NUM_COLUMNS)
    np.testing.assert_array_equal(columns, expected)
    assert finish == "LENGTH"

    probe = native.Probe(pair.config())
    logits = probe.logits(prompt.segments(), columns)
    reference = pair.reference_logits(prompt, columns, "float32")
    assert reference.std() > 0.5
    np.testing.assert_allclose(logits, reference, rtol=0, atol=FP32_BOUND)
    chunked = probe.logits(prompt.segments(), columns, 7)
    if ON_CPU:  # the same bits however the sequence is cut into steps
        np.testing.assert_array_equal(chunked, logits)
    np.testing.assert_allclose(chunked, reference, rtol=0, atol=FP32_BOUND)


@pytest.mark.parametrize("kind", PROMPTS)
@pytest.mark.parametrize("model", MODELS[:6], ids=lambda model: model.name)
def test_streams_end_alike(pairs: Any, model: Model, kind: str) -> None:
    pair: Pair = pairs(model, ending=True)
    prompt = make_prompt(model, kind)
    expected = pair.reference_columns(prompt, 200)
    columns, finish = pair.native_columns(prompt, 200)
    np.testing.assert_array_equal(columns, expected)
    ended = bool((expected[-1] == model.codes + 1).all())
    assert finish == ("STOP" if ended else "LENGTH")


@pytest.mark.parametrize("kind", PROMPTS)
@pytest.mark.parametrize("model", MODELS[:6:2], ids=lambda model: model.name)
def test_bf16_checkpoint(pairs: Any, model: Model, kind: str) -> None:
    """fp32 arithmetic on bf16 weights is exact to the fp32 bound; bf16 arithmetic is near.

    The GPU computes bf16 models in bf16.
    """
    pair: Pair = pairs(model, "bfloat16")
    prompt = make_prompt(model, kind)
    columns = pair.reference_columns(prompt, NUM_COLUMNS)
    logits = native.Probe(pair.config()).logits(prompt.segments(), columns)
    widened = pair.reference_logits(prompt, columns, "float32")
    bound = FP32_BOUND if ON_CPU else BF16_BOUND
    np.testing.assert_allclose(logits, widened, rtol=0, atol=bound)
    rounded = pair.reference_logits(prompt, columns, "bfloat16")
    difference = np.abs(logits - rounded)
    assert difference.max() <= BF16_BOUND
    assert np.sqrt(np.square(difference).mean()) <= BF16_RMS_BOUND
