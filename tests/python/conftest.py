"""What the Python tests share: a random model, the packaged demo model, recordings."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
import soundfile
from safetensors.numpy import load_file, save_file

from higgs_rt.checkpoint import (
    DEMO_DIRECTORY,
    small_codec_config,
    write_random_checkpoint,
    write_random_codec,
)

# Helpers beside the tests are imported by name.
sys.path.insert(0, str(Path(__file__).parent))
from recordings import make_recording

DATA = Path(__file__).resolve().parent.parent / "data"


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Ctrl-C works here and in what the tests start, also where a shell started pytest without it.

    Shells let background jobs ignore the signal, and programs inherit that.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model with codec and tokenizer; it speaks noise."""
    directory = tmp_path_factory.mktemp("random_model")
    codec = small_codec_config()
    write_random_checkpoint(directory, vocab=320, codebook_size=codec.codebook_size)
    write_random_codec(directory / "codec", codec)
    return directory


@pytest.fixture(scope="session")
def endless_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model that never ends by itself when it is greedy or top_k is small.

    Its logits of EOS are all zero, and 30 other ids have logits of standard deviation two.
    """
    directory = tmp_path_factory.mktemp("endless_model")
    codec = small_codec_config()
    shape = write_random_checkpoint(
        directory, hidden=128, layers=4, heads=4, head_dim=32, ffn=256, codebook_size=32
    )
    path = directory / "model.safetensors"
    tensors = load_file(path)
    heads = tensors["audio_lm_head.weight"].reshape(8, 34, shape.hidden)
    heads[:, 33] = 0
    save_file(tensors, path, {"format": "pt"})
    write_random_codec(directory / "codec", codec)
    return directory


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """The packaged demo model. Its absence is a fault of the package, so it is not skipped."""
    assert (DEMO_DIRECTORY / "model.safetensors").is_file(), "the demo model is not packaged"
    return DEMO_DIRECTORY


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A mono recording of 2 seconds at 16 kHz."""
    path = tmp_path / "recording.wav"
    soundfile.write(path, make_recording(2.0, 16000), 16000)
    return path
