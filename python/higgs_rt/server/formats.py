"""Samples to bytes of a format, as they come."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from higgs_rt.audio import pcm16

if TYPE_CHECKING:
    from av import AudioFrame

Samples = NDArray[np.float32]
Format = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]

MEDIA_TYPES: dict[Format, str] = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
# Container and encoder of FFmpeg, bits per second, and options of the container.
_CODED: dict[str, tuple[str, str, int, dict[str, str]]] = {
    "mp3": ("mp3", "libmp3lame", 64_000, {}),
    "opus": ("ogg", "libopus", 48_000, {"page_duration": "200000"}),
    "aac": ("adts", "aac", 64_000, {}),
    "flac": ("flac", "flac", 0, {}),
}
_UNKNOWN = 0xFFFFFFFF  # the size in a WAV header that is written before the end is known


class Encoder(Protocol):
    """Bytes of one answer, in order."""

    def encode(self, samples: Samples) -> bytes:
        """The next bytes; there may be none yet."""
        ...

    def finish(self) -> bytes:
        """The last bytes."""
        ...


def make_encoder(
    name: Format, sample_rate: int, *, speed: float = 1.0, num_samples: int | None = None
) -> Encoder:
    """An encoder; `num_samples`, where known, makes the header of a WAV file exact."""
    encoder: Encoder = (
        _Coded(name, sample_rate)
        if name in _CODED
        else _Raw(_wav_header(sample_rate, num_samples) if name == "wav" else b"")
    )
    return encoder if speed == 1.0 else _Paced(encoder, sample_rate, speed)


def change_speed(samples: Samples, sample_rate: int, speed: float) -> Samples:
    """A whole waveform, faster or slower, of the same pitch."""
    if speed == 1.0:
        return samples
    tempo = _Tempo(sample_rate, speed)
    parts = [*tempo.push(samples), *tempo.finish()]
    return np.concatenate(parts) if parts else samples[:0]


def _wav_header(sample_rate: int, num_samples: int | None) -> bytes:
    size = _UNKNOWN if num_samples is None else 2 * num_samples
    riff = _UNKNOWN if num_samples is None else 36 + size
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", riff, b"WAVE") + form + struct.pack("<4sI", b"data", size)


class _Raw:
    """16-bit little-endian samples behind a header."""

    def __init__(self, header: bytes) -> None:
        self._header = header

    def encode(self, samples: Samples) -> bytes:
        header, self._header = self._header, b""
        return header + pcm16(samples).astype("<i2").tobytes()

    def finish(self) -> bytes:
        return self.encode(np.zeros(0, np.float32))


class _Sink:
    """What FFmpeg writes to; it cannot seek."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        data, self._parts = b"".join(self._parts), []
        return data


class _Coded:
    """A format of FFmpeg, through PyAV."""

    def __init__(self, name: str, sample_rate: int) -> None:
        import av

        container, codec, bits, options = _CODED[name]
        self._sink = _Sink()
        self._container: Any = av.open(self._sink, "w", format=container, options=options)
        stream: Any = self._container.add_stream(codec, rate=sample_rate, layout="mono")
        self._stream = stream
        if bits:
            stream.bit_rate = bits
        self._sample_rate = sample_rate
        self._position = 0

    def encode(self, samples: Samples) -> bytes:
        if len(samples):
            self._mux(_frame(samples, self._sample_rate, self._position))
            self._position += len(samples)
        return self._sink.take()

    def finish(self) -> bytes:
        self._mux(None)
        self._container.close()
        return self._sink.take()

    def _mux(self, frame: AudioFrame | None) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)


class _Tempo:
    """FFmpeg's atempo: another tempo, the same pitch."""

    def __init__(self, sample_rate: int, speed: float) -> None:
        from av.filter import Graph

        self._graph = Graph()
        source = self._graph.add_abuffer(
            format="s16",
            sample_rate=sample_rate,
            layout="mono",
            time_base=f"1/{sample_rate}",  # type: ignore[arg-type]  # FFmpeg reads it
        )
        last = source
        # One filter is good for a factor of two.
        while not 0.5 <= speed <= 2.0:
            step = 2.0 if speed > 2 else 0.5
            last = self._then(last, step)
            speed /= step
        last = self._then(last, speed)
        last.link_to(self._graph.add("abuffersink"))
        self._graph.configure()
        self._sample_rate = sample_rate
        self._position = 0

    def _then(self, last: Any, speed: float) -> Any:
        tempo = self._graph.add("atempo", f"{speed:.6f}")
        last.link_to(tempo)
        return tempo

    def push(self, samples: Samples) -> Iterator[Samples]:
        if len(samples):
            self._graph.push(_frame(samples, self._sample_rate, self._position))
            self._position += len(samples)
        yield from self._pull()

    def finish(self) -> Iterator[Samples]:
        self._graph.push(None)
        yield from self._pull()

    def _pull(self) -> Iterator[Samples]:
        while True:
            try:
                frame: Any = self._graph.pull()
            except (BlockingIOError, EOFError):
                return
            yield frame.to_ndarray().reshape(-1).astype(np.float32) / 32767.0


class _Paced:
    """Another tempo before the encoder."""

    def __init__(self, encoder: Encoder, sample_rate: int, speed: float) -> None:
        self._encoder = encoder
        self._tempo = _Tempo(sample_rate, speed)

    def encode(self, samples: Samples) -> bytes:
        return b"".join(self._encoder.encode(part) for part in self._tempo.push(samples))

    def finish(self) -> bytes:
        last = b"".join(self._encoder.encode(part) for part in self._tempo.finish())
        return last + self._encoder.finish()


def _frame(samples: Samples, sample_rate: int, position: int) -> AudioFrame:
    from fractions import Fraction

    from av import AudioFrame

    frame = AudioFrame.from_ndarray(pcm16(samples)[None, :], format="s16", layout="mono")
    frame.sample_rate = sample_rate
    frame.time_base = Fraction(1, sample_rate)
    frame.pts = position
    return frame
