"""Voices: encoding once, the file, the store, and everything that can be wrong with them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors.numpy import save_file

from higgs_rt.audio import prepare_reference
from higgs_rt.checkpoint import small_codec_config, write_random_codec
from higgs_rt.errors import AudioError, CheckpointError, InvalidRequestError, VoiceError
from higgs_rt.voices import (
    VoiceStore,
    codec_fingerprint,
    default_directory,
    read_voice,
    write_voice,
)
from higgs_rt.voices.package import main as package_main
from recordings import make_recording

TEXT = "The sun rises in the east."


@pytest.fixture
def store(random_model: Path, tmp_path: Path) -> VoiceStore:
    return VoiceStore(tmp_path / "voices", codec_dir=random_model / "codec", packaged=None)


def test_add_encodes_once_and_load_gives_the_same(store: VoiceStore, recording: Path) -> None:
    from higgs_rt.codec import CodecEncoder

    voice = store.add("anna", recording, f"  {TEXT}\n")
    expected = CodecEncoder.load(store.encoder.codec_dir).encode(prepare_reference(recording))
    loaded = store.load("anna")
    np.testing.assert_array_equal(loaded.codes, expected)
    assert loaded.codes.dtype == np.int32
    assert loaded.codes.shape == (8, 50)
    for field in ("name", "transcript", "codec", "sample_rate", "created", "source"):
        assert getattr(loaded, field) == getattr(voice, field)
    assert loaded.transcript == TEXT
    assert loaded.source == "recording.wav"
    assert loaded.seconds == pytest.approx(2.0)
    assert loaded.reference().transcript == TEXT
    assert store.names() == ["anna"]
    assert "anna" in store
    assert [path.name for path in store.directory.iterdir()] == ["anna.voice.safetensors"]


@pytest.mark.parametrize(
    ("rate", "channels"), [(8000, 1), (16000, 2), (24000, 1), (44100, 6), (48000, 2)]
)
def test_any_rate_and_channels(store: VoiceStore, tmp_path: Path, rate: int, channels: int) -> None:
    path = tmp_path / "reference.flac"
    soundfile.write(path, np.tile(make_recording(1.0, rate)[:, None], channels), rate)
    voice = store.add("anna", path, TEXT)
    assert voice.codes.shape == (8, 25)
    assert voice.sample_rate == 24000


def test_an_array_with_its_rate(store: VoiceStore) -> None:
    voice = store.add("anna", make_recording(1.0, 16000), TEXT, sample_rate=16000)
    assert voice.source == "samples"
    with pytest.raises(AudioError, match="sample_rate"):
        store.add("bert", make_recording(1.0, 16000), TEXT)


@pytest.mark.parametrize("name", ["", "-x", "a/b", "../up", "a b", "ä", "x" * 65, ".hidden"])
def test_names(store: VoiceStore, recording: Path, name: str) -> None:
    with pytest.raises(VoiceError, match=r"\[voice name\]"):
        store.add(name, recording, TEXT)
    with pytest.raises(VoiceError, match=r"\[voice name\]"):
        store.load(name)


def test_an_existing_voice_is_replaced_only_by_force(store: VoiceStore, recording: Path) -> None:
    store.add("anna", recording, TEXT)
    with pytest.raises(VoiceError, match=r"\[voice anna\] expected a new name"):
        store.add("anna", recording, "Other words.")
    assert store.load("anna").transcript == TEXT
    store.add("anna", recording, "Other words.", force=True)
    assert store.load("anna").transcript == "Other words."


@pytest.mark.parametrize("transcript", [None, "", "  \n"])
def test_a_missing_transcript(store: VoiceStore, recording: Path, transcript: str | None) -> None:
    with pytest.raises(VoiceError, match=r"\[voice anna\] expected the transcript of recording"):
        store.add("anna", recording, transcript)
    assert store.names() == []


def test_a_transcript_without_words(store: VoiceStore, recording: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"\[transcript of voice anna\]"):
        store.add("anna", recording, "...")


def write_bad_recording(path: Path, fault: str) -> None:
    if fault == "silent":
        soundfile.write(path, np.zeros(24000, np.float32), 24000)
    elif fault == "10-minute":
        soundfile.write(path, np.tile(make_recording(10.0, 8000), 60), 8000)
    elif fault == "short":
        soundfile.write(path, make_recording(0.1, 24000), 24000)
    elif fault == "truncated":
        soundfile.write(path.with_suffix(".flac"), make_recording(2.0, 24000), 24000)
        data = path.with_suffix(".flac").read_bytes()
        path.write_bytes(data[: len(data) // 2])
    elif fault == "corrupt":
        path.write_bytes(b"RIFF" + os.urandom(4000))
    elif fault == "empty":
        path.touch()
    elif fault == "opposite stereo":
        wave = make_recording(1.0, 24000)
        soundfile.write(path, np.stack([wave, -wave], axis=1), 24000, subtype="FLOAT")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("silent", "silent"),
        ("10-minute", "expected at most 60 s of audio, got 600.00 s"),
        ("short", r"expected 0.2..60 s of audio, got 0.100 s"),
        ("truncated", "expected"),
        ("corrupt", "expected a readable audio file"),
        ("empty", "got an empty file"),
        ("missing", "no such file"),
        ("opposite stereo", "silent"),
    ],
)
def test_bad_recordings_are_named(
    store: VoiceStore, tmp_path: Path, fault: str, message: str
) -> None:
    path = tmp_path / "bad.wav"
    write_bad_recording(path, fault)
    with pytest.raises(AudioError, match=message) as caught:
        store.add("anna", path, TEXT)
    assert str(path) in str(caught.value)
    assert store.names() == []


def test_an_unknown_voice_lists_the_known_ones(store: VoiceStore, recording: Path) -> None:
    store.add("anna", recording, TEXT)
    store.add("bert", recording, TEXT)
    with pytest.raises(VoiceError, match=r"\[voice carl\].*\(anna, bert\), got carl"):
        store.load("carl")
    with pytest.raises(VoiceError, match=r"\[voice carl\]"):
        store.remove("carl")


def test_a_voice_of_another_codec_is_refused(
    store: VoiceStore, recording: Path, tmp_path: Path
) -> None:
    store.add("anna", recording, TEXT)
    write_random_codec(tmp_path / "other", seed=7)
    other = VoiceStore(store.directory, codec_dir=tmp_path / "other", packaged=None)
    with pytest.raises(VoiceError, match=r"\[voice anna\] expected codes of codec"):
        other.load("anna")
    assert not other.usable(other.show("anna"))
    assert VoiceStore(store.directory, packaged=None).load("anna").transcript == TEXT


def test_remove_and_packaged_voices(store: VoiceStore, recording: Path, tmp_path: Path) -> None:
    store.add("anna", recording, TEXT)
    user = VoiceStore(
        tmp_path / "mine", codec_dir=store.encoder.codec_dir, packaged=store.directory
    )
    assert user.names() == ["anna"]
    assert user.is_packaged("anna")
    with pytest.raises(VoiceError, match=r"\[voice anna\].*packaged"):
        user.remove("anna")
    user.add("anna", recording, "Other words.")
    assert user.names() == ["anna"]
    assert user.load("anna").transcript == "Other words."
    user.remove("anna")
    assert user.load("anna").transcript == TEXT


def test_a_store_without_codec_does_not_encode(tmp_path: Path, recording: Path) -> None:
    with pytest.raises(VoiceError, match="store without one"):
        VoiceStore(tmp_path, packaged=None).add("anna", recording, TEXT)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_directory(store: VoiceStore, recording: Path) -> None:
    store.directory.mkdir(mode=0o500)
    with pytest.raises(VoiceError, match="expected a writable place"):
        store.add("anna", recording, TEXT)


def test_a_directory_that_is_a_file(random_model: Path, tmp_path: Path, recording: Path) -> None:
    (tmp_path / "voices").touch()
    blocked = VoiceStore(tmp_path / "voices", codec_dir=random_model / "codec", packaged=None)
    with pytest.raises(VoiceError, match="expected a folder"):
        blocked.add("anna", recording, TEXT)


GOOD = {
    "format": "higgs_rt.voice",
    "format_version": "1",
    "transcript": TEXT,
    "codec": "0" * 64,
    "sample_rate": "24000",
    "samples_per_frame": "960",
    "created": "2026-01-01T00:00:00+00:00",
    "source": "x.wav",
}
CODES = np.zeros((8, 3), np.int32)


@pytest.mark.parametrize(
    ("metadata", "tensors", "message"),
    [
        ({"format": "other"}, {"codes": CODES}, "got format other"),
        ({"format_version": "2"}, {"codes": CODES}, "format version 1, got 2"),
        ({"transcript": ""}, {"codes": CODES}, "field transcript"),
        ({"codec": ""}, {"codes": CODES}, "field codec"),
        ({"sample_rate": "fast"}, {"codes": CODES}, "sample_rate, got 'fast'"),
        ({"samples_per_frame": "0"}, {"codes": CODES}, "samples_per_frame, got '0'"),
        ({}, {"other": CODES}, "expected one tensor"),
        ({}, {"codes": CODES, "more": CODES}, "expected one tensor"),
        ({}, {"codes": CODES.astype(np.float32)}, "got float32"),
        ({}, {"codes": CODES[0]}, r"got int32 \[3\]"),
        ({}, {"codes": CODES[:, :0]}, r"got int32 \[8, 0\]"),
        ({}, {"codes": CODES - 1}, "codes >= 0, got -1"),
    ],
)
def test_malformed_files(
    tmp_path: Path, metadata: dict[str, str], tensors: dict[str, np.ndarray], message: str
) -> None:
    path = tmp_path / "anna.voice.safetensors"
    save_file(tensors, path, {**GOOD, **metadata})
    with pytest.raises(VoiceError, match=message) as caught:
        read_voice(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kept", [0, 4, 60, -8])
def test_cut_files(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "anna.voice.safetensors"
    save_file({"codes": CODES}, path, GOOD)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(VoiceError, match=r"anna\.voice\.safetensors\] expected a voice file"):
        read_voice(path)


def test_a_file_of_the_documented_format_is_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / "anna.voice.safetensors"
    save_file({"codes": CODES + 5}, path, GOOD)
    voice = read_voice(path)
    assert voice.name == "anna"
    write_voice(tmp_path / "bert.voice.safetensors", voice)
    again = read_voice(tmp_path / "bert.voice.safetensors")
    np.testing.assert_array_equal(again.codes, CODES + 5)
    assert again.transcript == TEXT


def test_the_fingerprint_is_of_the_quantiser(tmp_path: Path) -> None:
    write_random_codec(tmp_path / "a", seed=1)
    write_random_codec(tmp_path / "sharded", seed=1, shards=3)
    write_random_codec(tmp_path / "original", seed=1, layout="original")
    write_random_codec(tmp_path / "b", seed=2)
    first = codec_fingerprint(tmp_path / "a")
    assert len(first) == 64
    assert codec_fingerprint(tmp_path / "sharded") == first
    assert codec_fingerprint(tmp_path / "original") == first
    assert codec_fingerprint(tmp_path / "b") != first


def test_the_fingerprint_names_what_is_missing(tmp_path: Path, random_model: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.safetensors or model\.pth"):
        codec_fingerprint(tmp_path)
    with pytest.raises(CheckpointError, match="not a codec"):
        codec_fingerprint(random_model)  # a language model
    (tmp_path / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0rubbish rubbish rubbish")
    with pytest.raises(CheckpointError, match="expected a safetensors file"):
        codec_fingerprint(tmp_path)


def test_the_default_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HIGGS_RT_VOICES", str(tmp_path / "here"))
    assert default_directory() == tmp_path / "here"
    monkeypatch.delenv("HIGGS_RT_VOICES")
    assert default_directory().parts[-2:] == ("higgs_rt", "voices")


def test_packaging_encodes_every_reference(
    tmp_path: Path, random_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = tmp_path / "demo"
    (demo / "references").mkdir(parents=True)
    write_random_codec(demo / "codec", small_codec_config())
    for name in ("slt", "rms"):
        soundfile.write(demo / "references" / f"{name}.flac", make_recording(1.0, 16000), 16000)
    (demo / "references" / "slt.txt").write_text(f"{TEXT}\n")
    assert package_main([str(demo)]) == 1
    assert "rms.txt" in capsys.readouterr().err
    (demo / "references" / "rms.txt").write_text(f"{TEXT}\n")
    assert package_main([str(demo)]) == 0
    store = VoiceStore(tmp_path, codec_dir=demo / "codec", packaged=demo / "voices")
    assert store.names() == ["rms", "slt"]
    assert store.load("slt").transcript == TEXT


def test_without_torch_the_error_names_the_extra(
    store: VoiceStore, recording: Path, tmp_path: Path
) -> None:
    script = f"""
import sys
sys.modules["torch"] = None
from higgs_rt.voices import VoiceStore
from higgs_rt.errors import VoiceError
store = VoiceStore({str(store.directory)!r}, codec_dir={str(store.encoder.codec_dir)!r})
try:
    store.add("anna", {str(recording)!r}, {TEXT!r})
except VoiceError as error:
    print(error)
"""
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    assert "higgs-rt[voices]" in shown
