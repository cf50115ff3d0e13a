"""Where `speak` puts its samples: a file, at once or not at all, or standard output."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from higgs_rt.audio import check_writable, pcm16, write_audio
from higgs_rt.errors import AudioError

Samples = NDArray[np.float32]
STANDARD_OUTPUT = "-"


class Output(Protocol):
    """Takes chunks of samples, then keeps them."""

    name: str

    def write(self, samples: Samples) -> None:
        """Take a chunk, fp32 [n]."""
        ...

    def keep(self, sample_rate: int) -> None:
        """Make what was taken available."""
        ...


def open_output(target: str) -> Output:
    """The output for `-o target`; AudioError at once when it cannot be written."""
    return StandardOutput() if target == STANDARD_OUTPUT else FileOutput(Path(target))


class FileOutput:
    """A .wav, .flac or .ogg file. It appears whole, by renaming, or stays as it was."""

    def __init__(self, path: Path) -> None:
        check_writable(path)
        self.name = str(path)
        self._path = path
        self._temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
        self._chunks: list[Samples] = []
        try:  # permissions do not tell everything
            self._temporary.touch(exist_ok=False)
            self._temporary.unlink()
        except OSError as error:
            raise self._unwritable(error) from None

    def write(self, samples: Samples) -> None:
        """Take a chunk."""
        self._chunks.append(samples)

    def keep(self, sample_rate: int) -> None:
        """Write beside the target, then take its name."""
        samples = np.concatenate(self._chunks) if self._chunks else np.zeros(0, np.float32)
        try:
            write_audio(self._temporary, samples, sample_rate)
            self._temporary.replace(self._path)
        except (OSError, AudioError) as error:
            raise self._unwritable(error) from None
        finally:
            self._temporary.unlink(missing_ok=True)

    def _unwritable(self, error: Exception) -> AudioError:
        return AudioError(f"[{self._path}] expected a writable place, got: {error}")


class StandardOutput:
    """Raw 16-bit little-endian samples, each chunk as soon as it is there."""

    name = "standard output"

    def __init__(self) -> None:
        if sys.stdout.isatty():
            raise AudioError("[standard output] expected a file or a pipe, got a terminal")

    def write(self, samples: Samples) -> None:
        """Write a chunk."""
        try:
            sys.stdout.buffer.write(pcm16(samples).astype("<i2").tobytes())
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            # Python would complain about the pipe once more when it closes the stream.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise AudioError("[standard output] expected a reader, got a closed pipe") from None
        except OSError as error:
            raise AudioError(f"[standard output] expected a writable place, got: {error}") from None

    def keep(self, sample_rate: int) -> None:
        """Nothing is held back."""
