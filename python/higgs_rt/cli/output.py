"""Where `speak` puts its samples: a file, at once or not at all, or standard output."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from higgs_rt.audio import AudioWriter, check_writable, pcm16
from higgs_rt.errors import AudioError

Samples = NDArray[np.float32]
STANDARD_OUTPUT = "-"


class Output(Protocol):
    """Takes chunks of samples, then keeps them."""

    name: str

    def write(self, samples: Samples, sample_rate: int) -> None:
        """Take a chunk, fp32 [n], of the same rate in Hz as the others."""
        ...

    def keep(self, sample_rate: int) -> None:
        """Make what was taken available."""
        ...

    def discard(self) -> None:
        """Leave nothing behind."""
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
        self._writer: AudioWriter | None = None
        try:  # permissions do not tell everything
            self._temporary.touch(exist_ok=False)
            self._temporary.unlink()
        except OSError as error:
            raise self._unwritable(error) from None

    def write(self, samples: Samples, sample_rate: int) -> None:
        """Write a chunk beside the target."""
        try:
            if self._writer is None:
                self._writer = AudioWriter(self._temporary, sample_rate)
            self._writer.write(samples)
        except (OSError, AudioError) as error:
            self.discard()
            raise self._unwritable(error) from None

    def keep(self, sample_rate: int) -> None:
        """Take the target's name."""
        self.write(np.zeros(0, np.float32), sample_rate)
        assert self._writer is not None
        try:
            self._writer.close()
            self._temporary.replace(self._path)
        except (OSError, AudioError) as error:
            raise self._unwritable(error) from None
        finally:
            self._temporary.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove what was written."""
        if self._writer is not None:
            with contextlib.suppress(AudioError):
                self._writer.close()
        self._temporary.unlink(missing_ok=True)

    def _unwritable(self, error: Exception) -> AudioError:
        return AudioError(f"[{self._path}] expected a writable place, got: {error}")


class StandardOutput:
    """Raw 16-bit little-endian samples, each chunk as soon as it is there."""

    name = "standard output"

    def __init__(self) -> None:
        if sys.stdout.isatty():
            raise AudioError("[standard output] expected a file or a pipe, got a terminal")

    def write(self, samples: Samples, sample_rate: int) -> None:
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

    def discard(self) -> None:
        """Nothing can be taken back."""
