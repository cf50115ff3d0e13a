"""The packaged voice on another device: HIGGS_RT_TEST_DEVICE=cuda:0 compares a GPU with the CPU.

Weights are widened to fp32 first, so that greedy columns must be equal. On the CPU the comparison
is of two runtimes of the same kind.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from higgs_rt import HiggsError, Runtime
from higgs_rt.checkpoint.files import resolve_model

DEVICE = os.environ.get("HIGGS_RT_TEST_DEVICE", "cpu")
GREEDY: dict[str, Any] = {"temperature": 0.0, "ras_window": 0, "max_seconds": 4}
TEXTS = (
    "The old man opens the door.",
    "She can hear the music from the garden.",
    "We must leave the city before the winter.",
    "A bird.",
)


@pytest.fixture(scope="module")
def widened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged model with fp32 weights."""
    torch_file = pytest.importorskip("safetensors.torch")
    source = resolve_model().model_dir
    target = tmp_path_factory.mktemp("model") / "fp32"
    shutil.copytree(source, target)
    weights = torch_file.load_file(target / "model.safetensors")
    torch_file.save_file(
        {name: tensor.float() for name, tensor in weights.items()}, target / "model.safetensors"
    )
    return target


@pytest.fixture(scope="module")
def device_runtime(widened: Path) -> Iterator[Runtime]:
    try:
        runtime = Runtime.load(widened, device=DEVICE)
    except HiggsError as error:
        if DEVICE == "cpu":
            raise
        pytest.fail(f"{DEVICE} was asked for: {error}")
    with runtime:
        yield runtime


def spoken(runtime: Runtime, together: bool) -> list[NDArray[np.int32]]:
    """Columns of every text, one after another or all at once."""
    if not together:
        return [runtime.speak(text, **GREEDY).columns for text in TEXTS]
    answers = [runtime.submit(text, **GREEDY) for text in TEXTS]
    return [answer.result().columns for answer in answers]


def test_greedy_columns_are_those_of_the_cpu(widened: Path, device_runtime: Runtime) -> None:
    with Runtime.load(widened, device="cpu") as runtime:
        expected = spoken(runtime, together=False)
    for together in (False, True):
        for text, got, columns in zip(
            TEXTS, spoken(device_runtime, together), expected, strict=True
        ):
            assert np.array_equal(got, columns), text


def test_waveforms_are_close_to_those_of_the_cpu(widened: Path, device_runtime: Runtime) -> None:
    with Runtime.load(widened, device="cpu") as runtime:
        expected = runtime.speak(TEXTS[0], **GREEDY).samples
    got = device_runtime.speak(TEXTS[0], **GREEDY).samples
    assert got.shape == expected.shape
    noise = float(np.sqrt(np.mean((got - expected) ** 2)))
    assert noise <= 0.01 * float(np.sqrt(np.mean(expected**2)))  # 40 dB: the codec may use fp16


def test_memory_is_reported(device_runtime: Runtime) -> None:
    info = device_runtime.info
    on_gpu = DEVICE != "cpu"
    assert (info.device_bytes > 0) == on_gpu
    assert (info.weight_bytes > 0) == on_gpu
    used = info.weight_bytes + info.workspace_bytes + info.codec_bytes + info.graph_bytes
    assert used + info.kv_bytes * on_gpu <= max(info.device_bytes, 1)
