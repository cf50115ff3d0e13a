"""Audio files and reference recordings: reading, resampling, writing, checks at the door."""

from __future__ import annotations

import io
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from higgs_rt.errors import AudioError

Samples = npt.NDArray[np.float32]

# The codec's rate in Hz and the samples of one frame (spec 1.3).
CODEC_SAMPLE_RATE = 24000
FRAME_SAMPLES = 960

# By extension: libsndfile's format and subtype, and whether samples are stored as 16-bit integers.
_WRITERS = {
    ".wav": ("WAV", "PCM_16", True),
    ".flac": ("FLAC", "PCM_16", True),
    ".ogg": ("OGG", "VORBIS", False),
}
# libsndfile's Vorbis encoder overflows its stack on one very long write.
_WRITE_BLOCK = 1 << 16
_READ_BLOCK = 1 << 16  # frames; all channels of a block are held at a time
_MAX_CHANNELS = 8


@dataclass(frozen=True)
class Audio:
    """Mono samples, fp32 [n], nominally in [-1, 1], and their rate in Hz."""

    samples: Samples
    sample_rate: int

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return len(self.samples) / self.sample_rate


@dataclass(frozen=True)
class ReferenceLimits:
    """What a reference recording must satisfy; durations in seconds, rates in Hz."""

    min_seconds: float = 0.2
    max_seconds: float = 60.0
    min_sample_rate: int = 8000
    max_sample_rate: int = 192000
    # Peak of the mono mix below which a recording counts as silent (-60 dB of full scale).
    silence_peak: float = 1e-3


def read_audio(path: str | Path, *, max_seconds: float | None = None) -> Audio:
    """Read a file of any format libsndfile knows, mixed to mono (mean over channels).

    Raises AudioError naming the file when it is missing, unreadable, empty, cut short, or longer
    than `max_seconds`; of a too long file nothing beyond the limit is decoded.
    """
    path = Path(path)
    if not _is_file(path):
        found = "a directory" if path.is_dir() else "no such file"
        raise AudioError(f"[{path}] expected an audio file, got {found}")
    if path.stat().st_size == 0:
        raise AudioError(f"[{path}] expected an audio file, got an empty file")
    try:
        with soundfile.SoundFile(path) as file:
            return _read_open(path, file, max_seconds)
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        raise AudioError(f"[{path}] expected a readable audio file, got: {error}") from None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:  # a name that is too long
        raise AudioError(f"[{path}] expected an audio file, got: {error.strerror}") from None


def read_audio_bytes(
    data: bytes,
    *,
    max_seconds: float,
    where: str = "recording",
    limits: ReferenceLimits | None = None,
) -> Audio:
    """The same for a file in memory that anybody may have sent; AudioError names `where`.

    Sample rate and channels are checked before anything is decoded, and no more than `max_seconds`
    of mono samples, and a block of all channels, are ever held: a bomb does not go off.
    """
    limits = limits or ReferenceLimits()
    path = Path(where)
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            low, high = limits.min_sample_rate, limits.max_sample_rate
            if not low <= file.samplerate <= high:
                got = f"{file.samplerate} Hz"
                raise AudioError(f"[{where}] expected a sample rate of {low}..{high} Hz, got {got}")
            if file.channels > _MAX_CHANNELS:
                raise AudioError(
                    f"[{where}] expected at most {_MAX_CHANNELS} channels, got {file.channels}"
                )
            return _read_open(path, file, max_seconds, check_wav=False)
    except (soundfile.LibsndfileError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, AudioError):
            raise
        raise AudioError(f"[{where}] expected a readable audio file, got: {error}") from None


def _read_open(
    path: Path, file: Any, max_seconds: float | None, *, check_wav: bool = True
) -> Audio:
    rate, declared = int(file.samplerate), int(file.frames)
    limit = -1 if max_seconds is None else int(max_seconds * rate)
    # A stream's header may not know its length; then reading one frame too many tells.
    if limit >= 0 and declared > limit:
        _refuse_long(path, max_seconds, f"{declared / rate:.2f} s")
    blocks: list[Samples] = []
    count = 0
    while limit < 0 or count <= limit:
        block = file.read(_READ_BLOCK, dtype="float32", always_2d=True)
        if len(block) == 0:
            break
        blocks.append(block.mean(axis=1, dtype=np.float32))
        count += len(block)
    if limit >= 0 and count > limit:
        _refuse_long(path, max_seconds, "more")
    if count == 0:
        raise AudioError(f"[{path}] expected samples, got none")
    if check_wav and file.format in ("WAV", "WAVEX"):  # libsndfile takes the file's size for it
        _refuse_cut_wav(path)
    # A compressed stream's declared length can be an estimate; a FLAC or PCM header is exact.
    if file.format not in ("MP3", "MPEG", "OGG") and count < declared:
        raise AudioError(f"[{path}] expected {declared} frames, got {count}: cut short")
    return Audio(np.concatenate(blocks), rate)


# A WAV file written to a pipe does not know its length and declares (nearly) the largest one.
_UNKNOWN_WAV_BYTES = 0x7FFFF000


def _refuse_cut_wav(path: Path) -> None:
    """AudioError when the data chunk of a RIFF file goes on beyond the end of the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(4) != b"RIFF":
            return
        begin = 12
        while begin + 8 <= size:
            file.seek(begin)
            name, length = struct.unpack("<4sI", file.read(8))
            begin += 8
            if name == b"data":
                found = size - begin
                if found < length < _UNKNOWN_WAV_BYTES:
                    raise AudioError(
                        f"[{path}] expected {length} bytes of samples, got {found}: cut short"
                    )
                return
            begin += length + length % 2


def _refuse_long(path: Path, max_seconds: float | None, got: str) -> None:
    raise AudioError(f"[{path}] expected at most {max_seconds:g} s of audio, got {got}")


def resample(samples: Samples, from_rate: int, to_rate: int) -> Samples:
    """Resample fp32 [n] between rates in Hz with soxr's HQ quality; about n to/from samples."""
    if from_rate == to_rate:
        return samples
    out = soxr.resample(samples, from_rate, to_rate, quality="HQ")
    return np.asarray(out, dtype=np.float32)


def pcm16(samples: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int16]:
    """16-bit samples of a waveform: clipped to [-1, 1], scaled by 32767, rounded.

    Raises AudioError when a sample is NaN or infinite.
    """
    if not np.isfinite(samples).all():
        raise AudioError("[pcm16] expected finite samples, got NaN or infinity")
    return np.asarray(np.rint(np.clip(samples, -1.0, 1.0) * 32767.0), dtype=np.int16)


def check_writable(path: str | Path) -> None:
    """Raise AudioError unless `write_audio` can write a file at `path` (extension, folder)."""
    path = Path(path)
    if path.suffix.lower() not in _WRITERS:
        raise AudioError(
            f"[{path}] expected an extension of {', '.join(_WRITERS)}, got {path.suffix or 'none'}"
        )
    parent = path.parent
    try:
        directory = path.is_dir()
    except OSError as error:  # a name that is too long
        raise AudioError(f"[{path}] expected a file name, got: {error.strerror}") from None
    if directory:
        raise AudioError(f"[{path}] expected a file name, got a directory")
    if not parent.is_dir():
        raise AudioError(f"[{path}] expected an existing folder {parent}, got none")
    if not os.access(path if path.exists() else parent, os.W_OK):
        raise AudioError(f"[{path}] expected a writable place, got no permission")


def write_audio(path: str | Path, samples: npt.NDArray[np.floating[Any]], sample_rate: int) -> None:
    """Write a mono waveform [n], clipped to [-1, 1], as .wav, .flac (16 bit) or .ogg (Vorbis).

    Raises AudioError for another extension, a place that cannot be written, or samples that are
    not finite and 1-D.
    """
    if samples.ndim != 1:
        raise AudioError(f"[{path}] expected 1-D samples, got shape {samples.shape}")
    pcm16(samples)  # finite, or nothing is written
    writer = AudioWriter(path, sample_rate)
    writer.write(samples)
    writer.close()


class AudioWriter:
    """A mono file, written as samples come: .wav, .flac (16 bit) or .ogg (Vorbis)."""

    def __init__(self, path: str | Path, sample_rate: int) -> None:
        """AudioError for another extension or a place that cannot be written."""
        self._path = Path(path)
        check_writable(self._path)
        container, subtype, self._integers = _WRITERS[self._path.suffix.lower()]
        try:
            self._file = soundfile.SoundFile(
                self._path, "w", sample_rate, channels=1, format=container, subtype=subtype
            )
        except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
            raise self._unwritable(error) from None

    def write(self, samples: npt.NDArray[np.floating[Any]]) -> None:
        """Append samples [n], clipped to [-1, 1]; AudioError unless they are finite."""
        data: npt.NDArray[Any] = pcm16(samples)
        if not self._integers:
            data = np.clip(samples, -1.0, 1.0).astype(np.float32)
        try:
            for begin in range(0, len(data), _WRITE_BLOCK):
                self._file.write(data[begin : begin + _WRITE_BLOCK])
        except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
            raise self._unwritable(error) from None

    def close(self) -> None:
        """Finish the file."""
        try:
            self._file.close()
        except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: Exception) -> AudioError:
        return AudioError(f"[{self._path}] expected a writable place, got: {error}")


def prepare_reference(
    source: str | Path | Audio | npt.NDArray[np.floating[Any]],
    *,
    sample_rate: int | None = None,
    limits: ReferenceLimits | None = None,
) -> Samples:
    """Reference audio for the codec: fp32 [960 T] at 24 kHz, zeros appended to whole frames.

    `source` is a file, an `Audio`, or an array [n] or [n, channels] with its `sample_rate` in Hz.
    Several channels are mixed to mono. Raises AudioError, naming the source, the value and the
    limit, when the audio is unreadable, empty, silent, not finite, too short, too long, or of a
    sample rate outside the limits.
    """
    limits = limits or ReferenceLimits()
    if isinstance(source, str | Path):
        where = str(source)
        audio = read_audio(source, max_seconds=limits.max_seconds)
    elif isinstance(source, Audio):
        where, audio = "reference", source
    else:
        where, audio = "reference", _from_array(source, sample_rate)
    _check_reference(where, audio, limits)
    samples = resample(audio.samples, audio.sample_rate, CODEC_SAMPLE_RATE)
    return np.pad(samples, (0, -len(samples) % FRAME_SAMPLES))


def _from_array(array: npt.NDArray[Any], sample_rate: int | None) -> Audio:
    if not isinstance(array, np.ndarray):
        raise AudioError(
            "[reference] expected a file, an Audio or an array of samples, "
            f"got {type(array).__name__}"
        )
    if sample_rate is None:
        raise AudioError("[reference] expected the sample_rate of an array, got none")
    if array.ndim not in (1, 2) or not np.issubdtype(array.dtype, np.floating):
        raise AudioError(
            "[reference] expected floating samples [n] or [n, channels], "
            f"got {array.dtype} of shape {array.shape}"
        )
    mono = array if array.ndim == 1 else array.mean(axis=1)
    return Audio(np.ascontiguousarray(mono, dtype=np.float32), sample_rate)


def _check_reference(where: str, audio: Audio, limits: ReferenceLimits) -> None:
    low, high = limits.min_sample_rate, limits.max_sample_rate
    if not low <= audio.sample_rate <= high:
        raise AudioError(
            f"[{where}] expected a sample rate of {low}..{high} Hz, got {audio.sample_rate} Hz"
        )
    if not limits.min_seconds <= audio.seconds <= limits.max_seconds:
        raise AudioError(
            f"[{where}] expected {limits.min_seconds:g}..{limits.max_seconds:g} s of audio, "
            f"got {audio.seconds:.3f} s"
        )
    if not np.isfinite(audio.samples).all():
        raise AudioError(f"[{where}] expected finite samples, got NaN or infinity")
    peak = float(np.abs(audio.samples).max())
    if peak < limits.silence_peak:
        raise AudioError(
            f"[{where}] expected a peak of at least {limits.silence_peak:g} in the mono mix, "
            f"got {peak:.2g}: silent"
        )
