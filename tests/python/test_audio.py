"""Audio files and reference recordings: formats, round trips and every refusal at the door."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from higgs_rt.audio import (
    Audio,
    ReferenceLimits,
    pcm16,
    prepare_reference,
    read_audio,
    resample,
    write_audio,
)
from higgs_rt.errors import AudioError, HiggsError


def tone(seconds: float, rate: int, hertz: float = 440.0, level: float = 0.5) -> Any:
    t = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * hertz * t)).astype(np.float32)


@pytest.mark.parametrize(("suffix", "tolerance"), [(".wav", 4e-5), (".flac", 4e-5), (".ogg", 0.05)])
def test_written_files_read_back(tmp_path: Path, suffix: str, tolerance: float) -> None:
    samples = tone(1.0, 24000)
    path = tmp_path / f"speech{suffix}"
    write_audio(path, samples, 24000)
    audio = read_audio(path)
    assert audio.sample_rate == 24000
    assert audio.samples.dtype == np.float32
    assert audio.seconds == pytest.approx(1.0)
    assert np.abs(audio.samples - samples)[1000:-1000].max() < tolerance


def test_upper_case_extension_and_long_vorbis(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.WAV", tone(0.5, 24000), 24000)
    # Longer than one write block.
    write_audio(tmp_path / "a.ogg", tone(6.0, 24000), 24000)
    assert read_audio(tmp_path / "a.ogg").seconds == pytest.approx(6.0)


def test_pcm16_clips_and_rounds() -> None:
    values = np.array([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0], np.float32)
    assert pcm16(values).tolist() == [-32767, -32767, 0, 16384, 32767, 32767]
    with pytest.raises(AudioError, match="finite"):
        pcm16(np.array([np.nan], np.float32))


def test_wav_is_clipped_not_wrapped(tmp_path: Path) -> None:
    write_audio(tmp_path / "loud.wav", np.array([1.5, -1.5] * 50, np.float32), 24000)
    data, _ = soundfile.read(tmp_path / "loud.wav", dtype="int16")
    assert set(data.tolist()) == {32767, -32767}


def test_channels_are_mixed(tmp_path: Path) -> None:
    left, right = tone(0.5, 16000, 300.0), tone(0.5, 16000, 500.0)
    channels = np.stack([left, right, left], axis=1)
    soundfile.write(tmp_path / "three.wav", channels, 16000, subtype="FLOAT")
    mixed = read_audio(tmp_path / "three.wav").samples
    np.testing.assert_allclose(mixed, channels.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 24000, 44100, 192000])
def test_resampling_keeps_the_tone(rate: int) -> None:
    out = resample(tone(1.0, rate, 1000.0), rate, 24000)
    assert abs(len(out) - 24000) <= 1
    middle = slice(2000, 22000)
    assert np.abs(out[middle] - tone(1.0, 24000, 1000.0)[: len(out)][middle]).max() < 2e-3


@pytest.mark.parametrize("rate", [8000, 16000, 24000, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_references_become_whole_frames(tmp_path: Path, rate: int, channels: int) -> None:
    samples = np.repeat(tone(1.01, rate)[:, None], channels, axis=1)
    soundfile.write(tmp_path / "ref.flac", samples, rate)
    reference = prepare_reference(tmp_path / "ref.flac")
    assert reference.dtype == np.float32
    assert len(reference) == 26 * 960  # 1.01 s is 25.25 frames
    assert not reference[-700:].any()
    same = prepare_reference(read_audio(tmp_path / "ref.flac"))
    np.testing.assert_array_equal(reference, same)
    array, _ = soundfile.read(tmp_path / "ref.flac", dtype="float32")
    np.testing.assert_allclose(reference, prepare_reference(array, sample_rate=rate), atol=1e-6)


def test_whole_frames_at_24_khz_are_untouched() -> None:
    samples = tone(0.4, 24000)
    np.testing.assert_array_equal(prepare_reference(samples, sample_rate=24000), samples)


def refuse(source: Any, pattern: str, **options: Any) -> None:
    with pytest.raises(AudioError, match=pattern) as caught:
        prepare_reference(source, **options)
    assert isinstance(caught.value, HiggsError)
    assert str(caught.value).startswith("[")


def test_missing_empty_and_foreign_files(tmp_path: Path) -> None:
    refuse(tmp_path / "none.wav", r"none\.wav.*no such file")
    refuse(tmp_path, "a directory")
    (tmp_path / "empty.wav").touch()
    refuse(tmp_path / "empty.wav", "empty file")
    (tmp_path / "text.wav").write_text("this is not audio at all " * 20)
    refuse(tmp_path / "text.wav", r"text\.wav.*readable audio file")
    soundfile.write(tmp_path / "header.wav", np.zeros(0, np.float32), 16000)
    refuse(tmp_path / "header.wav", "expected samples, got none")


def test_damaged_flac(tmp_path: Path) -> None:
    path = tmp_path / "cut.flac"
    rng = np.random.default_rng(0)
    soundfile.write(path, 0.3 * rng.standard_normal(48000), 24000)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refuse(path, r"cut\.flac.*(cut short|readable audio file)")
    path.write_bytes(content[:20])
    refuse(path, r"cut\.flac")


def test_cut_wav(tmp_path: Path) -> None:
    """libsndfile takes what there is of a cut file; of one from a pipe nobody knows the length."""
    path = tmp_path / "cut.wav"
    soundfile.write(path, tone(1.0, 24000), 24000)
    content = path.read_bytes()
    assert content[36:40] == b"data"
    path.write_bytes(content[: len(content) // 2])
    refuse(path, r"cut\.wav\] expected 48000 bytes of samples, got 23978: cut short")
    path.write_bytes(content[:40] + b"\xff\xff\xff\xff" + content[44:])
    assert read_audio(path).seconds == 1.0
    path.write_bytes(content + b"LIST\x04\0\0\0abcd")
    assert read_audio(path).seconds == 1.0


def test_silence_and_values_that_are_not_numbers(tmp_path: Path) -> None:
    refuse(np.zeros(24000, np.float32), "silent", sample_rate=24000)
    refuse(tone(1.0, 24000, level=5e-4), "got 0.0005: silent", sample_rate=24000)
    opposite = np.stack([tone(1.0, 24000), -tone(1.0, 24000)], axis=1)
    refuse(opposite, "mono mix", sample_rate=24000)
    bad = tone(1.0, 24000)
    for value in (np.nan, np.inf):
        bad[100] = value
        refuse(bad, "finite", sample_rate=24000)
        soundfile.write(tmp_path / "bad.wav", bad, 24000, subtype="FLOAT")
        refuse(tmp_path / "bad.wav", r"bad\.wav.*finite")


def test_durations_and_rates(tmp_path: Path) -> None:
    refuse(tone(0.1, 24000), r"0\.2\.\.60 s of audio, got 0\.100 s", sample_rate=24000)
    refuse(tone(61.0, 8000), "got 61.000 s", sample_rate=8000)
    refuse(tone(1.0, 4000), r"8000\.\.192000 Hz, got 4000 Hz", sample_rate=4000)
    refuse(tone(0.3, 384000), "got 384000 Hz", sample_rate=384000)
    soundfile.write(tmp_path / "low.wav", tone(1.0, 4000), 4000)
    refuse(tmp_path / "low.wav", r"low\.wav.*got 4000 Hz")
    short = ReferenceLimits(max_seconds=0.5)
    refuse(tone(1.0, 24000), r"0\.2\.\.0\.5 s", sample_rate=24000, limits=short)


def test_ten_minutes_are_refused_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "long.flac"
    soundfile.write(path, np.tile(tone(1.0, 8000), 600), 8000)
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *_, **__: pytest.fail("decoded"))
    refuse(path, r"long\.flac.*at most 60 s of audio, got 600\.00 s")


def test_arrays_that_are_no_audio() -> None:
    refuse(tone(1.0, 24000), "sample_rate")
    refuse(np.zeros((2, 3, 4), np.float32), "shape", sample_rate=24000)
    refuse(np.ones(24000, np.int16), "floating", sample_rate=24000)
    refuse([0.5] * 24000, "got list", sample_rate=24000)
    refuse(Audio(np.zeros(0, np.float32), 24000), "got 0.000 s")


def test_outputs_that_cannot_be_written(tmp_path: Path) -> None:
    samples = tone(0.1, 24000)
    for name, pattern in (
        ("out.mp3", r"\.wav, \.flac, \.ogg, got \.mp3"),
        ("out", "got none"),
        ("no/such/folder.wav", "expected an existing folder"),
    ):
        with pytest.raises(AudioError, match=pattern):
            write_audio(tmp_path / name, samples, 24000)
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(AudioError, match="got a directory"):
        write_audio(tmp_path / "folder.wav", samples, 24000)
    for refused in (write_audio, lambda path, *_: read_audio(path)):
        with pytest.raises(AudioError, match="too long"):
            refused(tmp_path / f"{'a' * 300}.wav", samples, 24000)
    with pytest.raises(AudioError, match="1-D"):
        write_audio(tmp_path / "two.wav", np.zeros((4, 2), np.float32), 24000)
    with pytest.raises(AudioError):
        write_audio("/proc/speech.wav", samples, 24000)
