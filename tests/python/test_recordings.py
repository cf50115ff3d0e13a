"""Encoded recordings on disk."""

from __future__ import annotations

import base64
import logging
import os
import stat
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest

from higgs_rt import Runtime
from higgs_rt.errors import VoiceError
from higgs_rt.server import ServerSettings
from higgs_rt.voices.encode import VoiceEncoder
from higgs_rt.voices.recordings import RecordingCache, default_directory
from serving import served

CODES = np.arange(80, dtype=np.int32).reshape(8, 10)


def test_keeps_codes_by_bytes_and_codec(tmp_path: Path) -> None:
    cache = RecordingCache(tmp_path / "a" / "cache", "codec")
    assert cache.get(b"one") is None
    cache.put(b"one", CODES)
    kept = RecordingCache(cache.directory, "codec").get(b"one")
    assert kept is not None
    assert np.array_equal(kept, CODES)
    assert cache.get(b"two") is None
    assert RecordingCache(cache.directory, "other").get(b"one") is None


def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    cache = RecordingCache(tmp_path / "cache", "codec")
    cache.put(b"one", CODES)
    (path,) = cache.directory.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(cache.directory.stat().st_mode) == 0o700
    assert b"one" not in path.read_bytes()
    cache.directory.chmod(0o755)
    with pytest.raises(VoiceError, match=r"nobody else can open \(mode 700\), got owner .* 755"):
        RecordingCache(cache.directory, "codec")


def test_the_oldest_go_when_it_is_full(tmp_path: Path) -> None:
    cache = RecordingCache(tmp_path / "cache", "codec")
    cache.put(b"0", CODES)
    size = next(cache.directory.iterdir()).stat().st_size
    cache = RecordingCache(cache.directory, "codec", max_bytes=3 * size)
    for index in range(3):
        cache.put(str(index).encode(), CODES)
        path = max(cache.directory.iterdir(), key=lambda one: one.stat().st_mtime_ns)
        os.utime(path, (index, index))
    assert cache.get(b"0") is not None  # used: now the youngest
    cache.put(b"3", CODES)
    kept = [index for index in range(4) if cache.get(str(index).encode()) is not None]
    assert kept == [0, 2, 3]


def test_a_broken_file_is_encoded_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = RecordingCache(tmp_path / "cache", "codec")
    cache.put(b"one", CODES)
    (path,) = cache.directory.iterdir()
    path.write_bytes(path.read_bytes()[:40])
    with caplog.at_level(logging.WARNING):
        assert cache.get(b"one") is None
    assert "expected codes" in caplog.text
    assert not path.exists()


def test_a_folder_that_is_gone_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = RecordingCache(tmp_path / "cache", "codec")
    cache.directory.rmdir()
    cache.put(b"one", CODES)
    assert "expected a writable folder" in caplog.text
    assert cache.get(b"one") is None


def test_refuses_what_is_no_folder_and_no_size(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(VoiceError, match="expected a folder"):
        RecordingCache(tmp_path / "file", "codec")
    with pytest.raises(VoiceError, match="expected at least 1 byte, got 0"):
        RecordingCache(tmp_path / "cache", "codec", max_bytes=0)


def test_many_threads_at_a_time(tmp_path: Path) -> None:
    cache = RecordingCache(tmp_path / "cache", "codec", max_bytes=2000)

    def work(seed: int) -> None:
        for index in range(40):
            key = str((seed + index) % 7).encode()
            codes = cache.get(key)
            assert codes is None or int(codes[0, 0]) == int(key)
            cache.put(key, np.full((8, 10), int(key), np.int32))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not list(cache.directory.glob(".*"))
    assert sum(path.stat().st_size for path in cache.directory.iterdir()) <= 2000


def test_default_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert str(default_directory()).endswith("recordings")


def test_a_restarted_server_does_not_encode_again(
    tmp_path: Path, demo_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = (demo_model / "references" / "slt.flac").read_bytes()
    body = {
        "model": "tts-1",
        "input": "The sun rises.",
        "ref_audio": base64.b64encode(recording).decode(),
        "ref_text": (demo_model / "references" / "slt.txt").read_text(),
        "response_format": "pcm",
        "seed": 3,
    }
    settings = ServerSettings(recordings=tmp_path / "recordings")

    def answer(runtime: Runtime, **changes: str) -> httpx.Response:
        with served(runtime, settings) as url:
            return httpx.post(f"{url}/v1/audio/speech", json={**body, **changes}, timeout=60)

    with Runtime.load(voices=tmp_path / "voices") as runtime:
        first = answer(runtime)
        assert first.status_code == 200, first.text
        assert len(list((tmp_path / "recordings").iterdir())) == 1

        def encode(*_: object, **__: object) -> None:
            raise AssertionError("encoded again")

        monkeypatch.setattr(VoiceEncoder, "encode", encode)
        assert answer(runtime).content == first.content
        assert answer(runtime, ref_text="Other words.").status_code == 200
        refused = answer(runtime, ref_text="...")
        assert refused.status_code == 400
        assert "[ref_text]" in refused.text
