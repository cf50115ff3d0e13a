"""What the Python tests share: a random model, the packaged demo model, recordings."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import soundfile

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


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "speech: text to speech to text with the demo model")
    config.addinivalue_line("markers", "gpu: needs a CUDA device")


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model with codec and tokenizer; it speaks noise."""
    directory = tmp_path_factory.mktemp("random_model")
    codec = small_codec_config()
    write_random_checkpoint(directory, vocab=320, codebook_size=codec.codebook_size)
    write_random_codec(directory / "codec", codec)
    return directory


@pytest.fixture(scope="session")
def native() -> None:
    """Skips, visibly, where the native module is not built."""
    pytest.importorskip("higgs_rt._higgs_rt", reason="the native module is not built")


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
