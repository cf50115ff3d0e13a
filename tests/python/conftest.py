"""What the Python tests share: a random model, the packaged demo model, recordings."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import soundfile
from safetensors.numpy import load_file, save_file

from higgs_rt.checkpoint import (
    DEMO_DIRECTORY,
    small_codec_config,
    write_random_checkpoint,
    write_random_codec,
)

if TYPE_CHECKING:
    import openai

    from higgs_rt import Runtime

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
def quiet() -> Iterator[None]:
    """Speech that ends at its limit is no warning."""
    from higgs_rt import LengthStopWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LengthStopWarning)
        yield


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """The packaged demo model, loaded."""
    from higgs_rt import Runtime

    voices = tmp_path_factory.mktemp("voices")
    with Runtime.load(threads=2, max_batch=8, max_queue=8, voices=voices) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def url(demo: Runtime) -> Iterator[str]:
    """The address of a server over the packaged demo model."""
    from serving import served

    with served(demo) as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    """The official client of that server."""
    import openai

    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A mono recording of 2 seconds at 16 kHz."""
    path = tmp_path / "recording.wav"
    soundfile.write(path, make_recording(2.0, 16000), 16000)
    return path
