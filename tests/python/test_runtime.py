"""The Python runtime over small random models: every way to speak, cancelling, errors, limits."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from higgs_rt import (
    AudioError,
    CheckpointError,
    HiggsError,
    InvalidRequestError,
    LengthStopWarning,
    Profile,
    QueueFullError,
    Reference,
    Runtime,
    Speech,
    Voice,
    VoiceError,
)
from higgs_rt.checkpoint import small_codec_config, write_random_checkpoint, write_random_codec
from higgs_rt.request import estimated_seconds
from higgs_rt.voices import write_voice
from waiting import until

TEXT = "The sun rises in the east."
GREEDY: dict[str, Any] = {"temperature": 0.0, "ras_window": 0}
LONG: dict[str, Any] = {**GREEDY, "max_seconds": 120}


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("voices")


@pytest.fixture(scope="module")
def runtime(random_model: Path, voices: Path) -> Iterator[Runtime]:
    with Runtime.load(random_model, threads=1, voices=voices) as loaded:
        yield loaded


@pytest.fixture
def endless(endless_model: Path, voices: Path) -> Iterator[Runtime]:
    with Runtime.load(endless_model, threads=1, voices=voices, max_batch=4, max_queue=8) as loaded:
        yield loaded


def make_voice(runtime: Runtime, name: str = "anna", frames: int = 6, **changes: object) -> Voice:
    fields: dict[str, Any] = {
        "name": name,
        "codes": np.random.default_rng(frames).integers(0, 32, (8, frames)).astype(np.int32),
        "transcript": "Who is it?",
        "codec": runtime.voices.encoder.fingerprint,
        "sample_rate": 24000,
        "samples_per_frame": 960,
        "created": "2026-01-01T00:00:00+00:00",
        "source": "x.wav",
    }
    return Voice(**{**fields, **changes})


def test_speech_is_whole_and_consistent(runtime: Runtime) -> None:
    speech = runtime.speak(TEXT, seed=3)
    assert speech.finish == "stop"
    assert speech.sample_rate == 24000
    assert speech.samples.dtype == np.float32
    assert speech.samples.ndim == 1
    assert speech.seconds == pytest.approx(speech.frames.shape[1] * 0.04)
    assert len(speech.samples) == 960 * speech.frames.shape[1]
    columns, frames = speech.columns, speech.frames
    assert columns.shape[1] == 8
    assert (columns[0] == 32).all()  # BOS
    for frame in range(frames.shape[1]):  # the delay pattern, specification 5
        expected = [columns[frame + k + 1, k] for k in range(8)]
        np.testing.assert_array_equal(frames[:, frame], expected)
    timing = speech.timing
    assert 0 <= timing.started <= timing.first_column <= timing.first_chunk <= timing.finished
    assert speech.real_time_factor == pytest.approx(timing.finished / speech.seconds)


def test_the_seed_repeats_a_request(runtime: Runtime) -> None:
    first = runtime.speak(TEXT)
    again = runtime.speak(TEXT, seed=first.seed)
    np.testing.assert_array_equal(first.columns, again.columns)
    np.testing.assert_array_equal(first.samples, again.samples)
    others = {runtime.speak(TEXT).seed for _ in range(4)}
    assert len(others) == 4


def test_a_stream_is_the_whole_in_pieces(endless: Runtime) -> None:
    options = {**LONG, "max_seconds": 6}
    with pytest.warns(LengthStopWarning):
        whole = endless.speak(TEXT, **options)
    with endless.stream(TEXT, **options) as stream, pytest.warns(LengthStopWarning):
        chunks = list(stream)
    assert len(chunks) > 3
    assert stream.finish == "length"
    np.testing.assert_allclose(np.concatenate(chunks), whole.samples, atol=1e-6)
    np.testing.assert_array_equal(stream.columns, whole.columns)
    assert stream.seconds == pytest.approx(whole.seconds)
    assert stream.timing.first_chunk < stream.timing.finished


def test_the_rest_of_a_stream_can_be_taken_whole(endless: Runtime) -> None:
    stream = endless.stream(TEXT, **{**LONG, "max_seconds": 3})
    first = next(stream)
    with pytest.warns(LengthStopWarning):
        rest = stream.result()
    assert len(first) + len(rest.samples) == stream.num_samples


def test_every_way_to_speak_gives_the_same(runtime: Runtime) -> None:
    options: dict[str, Any] = {"seed": 11, "scene": "A quiet room."}
    expected = runtime.speak(TEXT, **options)

    async def awaited() -> tuple[Speech, NDArray[np.float32], Speech]:
        spoken = await runtime.aspeak(TEXT, **options)
        chunks = [chunk async for chunk in runtime.astream(TEXT, **options)]
        rest = await runtime.astream(TEXT, **options).result()
        return spoken, np.concatenate(chunks), rest

    spoken, chunks, rest = asyncio.run(awaited())
    np.testing.assert_array_equal(spoken.columns, expected.columns)
    np.testing.assert_array_equal(spoken.samples, expected.samples)
    np.testing.assert_array_equal(rest.columns, expected.columns)
    np.testing.assert_array_equal(rest.frames, expected.frames)
    np.testing.assert_allclose(chunks, expected.samples, atol=1e-6)


def test_many_at_once_give_what_each_gives_alone(runtime: Runtime) -> None:
    texts = [f"{TEXT} {'again ' * n}" for n in range(12)]
    alone = [runtime.speak(text, seed=n).columns for n, text in enumerate(texts)]

    async def together() -> list[Speech]:
        requests = (runtime.aspeak(text, seed=n) for n, text in enumerate(texts))
        return list(await asyncio.gather(*requests))

    for one, other in zip(alone, asyncio.run(together()), strict=True):
        np.testing.assert_array_equal(one, other.columns)


def test_the_limit_of_seconds_is_kept_and_reported(endless: Runtime) -> None:
    with pytest.warns(LengthStopWarning, match="its limit after 34 columns"):
        speech = endless.speak(TEXT, **{**LONG, "max_seconds": 1.0})
    assert speech.finish == "length"
    assert len(speech.columns) == 25 + 9
    assert speech.seconds <= 1.4


def test_the_default_limit_follows_the_text(endless: Runtime) -> None:
    with pytest.warns(LengthStopWarning):
        speech = endless.speak("Hi there.", **GREEDY)
    assert speech.columns.shape[0] == pytest.approx(25 * estimated_seconds("Hi there.") + 9, abs=1)
    assert estimated_seconds("你好你好") > estimated_seconds("nihao")


def test_voices_are_used(runtime: Runtime, voices: Path) -> None:
    write_voice(voices / "anna.voice.safetensors", make_voice(runtime))
    write_voice(voices / "bert.voice.safetensors", make_voice(runtime, "bert", frames=9))
    plain = runtime.speak(TEXT, **GREEDY)
    anna = runtime.speak(TEXT, voice="anna", **GREEDY)
    assert not np.array_equal(plain.columns, anna.columns)
    same = runtime.speak(TEXT, voice=runtime.voices.load("anna"), **GREEDY)
    np.testing.assert_array_equal(anna.columns, same.columns)
    dialogue = "[SPEAKER0] Hi. [SPEAKER1] Ho."
    both = runtime.speak(dialogue, speakers=["anna", "bert"], **GREEDY)
    swapped = runtime.speak(dialogue, speakers=["bert", "anna"], **GREEDY)
    assert not np.array_equal(both.columns, swapped.columns)
    runtime.speak(dialogue, speakers=["anna", Profile("a deep voice")])
    runtime.speak(TEXT, voice="anna", placement="system")


def test_a_recording_is_a_voice(runtime: Runtime, recording: Path) -> None:
    spoken = runtime.speak(TEXT, ref_audio=recording, ref_text="Who is it?", **GREEDY)
    stored = runtime.voices.add("carl", recording, "Who is it?")
    again = runtime.speak(TEXT, voice=stored, **GREEDY)
    np.testing.assert_array_equal(spoken.columns, again.columns)


def test_errors_name_the_culprit_and_harm_no_other(
    endless: Runtime, recording: Path, tmp_path: Path
) -> None:
    options = {**LONG, "max_seconds": 20}
    with pytest.warns(LengthStopWarning):
        expected = endless.speak(TEXT, **options)
    other = endless.submit(TEXT, **options)
    alien = make_voice(endless, codes=np.full((8, 4), 32, np.int32))
    narrow = make_voice(endless, codes=np.zeros((4, 4), np.int32))
    (tmp_path / "bad.wav").write_bytes(b"RIFF rubbish")
    faults: list[tuple[str, dict[str, Any], type[Exception], str]] = [
        ("", {}, InvalidRequestError, r"\[text\].*empty"),
        (" \n", {}, InvalidRequestError, r"\[text\].*white space"),
        ("?!", {}, InvalidRequestError, r"\[text\].*'\?!'"),
        ("x" * 200_001, {}, InvalidRequestError, r"\[text\].*200000.*200001"),
        ("word " * 999, {"max_turn_chars": 0}, InvalidRequestError, r"\[text\].*max_sequence"),
        # The prompt fits, and leaves room for a tenth of the speech.
        (
            "word " * 760,
            {"max_seconds": None, "max_turn_chars": 0},
            InvalidRequestError,
            r"for .* 152 s",
        ),
        (TEXT, {"speakers": [Reference([[1]], "x")]}, InvalidRequestError, "got list"),  # type: ignore[arg-type]
        (TEXT, {"scene": ""}, InvalidRequestError, r"\[scene\]"),
        (TEXT, {"voice": "nobody"}, VoiceError, r"\[voice nobody\]"),
        (TEXT, {"voice": "../x"}, VoiceError, r"\[voice name\].*'\.\./x'"),
        (TEXT, {"voice": alien}, VoiceError, r"\[voice anna\].*below 32.*up to 32"),
        (TEXT, {"voice": narrow}, VoiceError, r"\[voice anna\] expected 8 codebooks.*got 4"),
        (TEXT, {"voice": "a", "speakers": ["b"]}, InvalidRequestError, "expected one of them"),
        (TEXT, {"ref_text": "words"}, InvalidRequestError, r"\[ref_text\]"),
        (TEXT, {"ref_audio": recording}, InvalidRequestError, r"\[ref_text\].*recording\.wav"),
        (
            TEXT,
            {"ref_audio": tmp_path / "bad.wav", "ref_text": "words"},
            AudioError,
            r"bad\.wav",
        ),
        (TEXT, {"temperature": -0.5}, InvalidRequestError, "temperature.*-0.5"),
        (TEXT, {"temperature": float("nan")}, InvalidRequestError, "temperature"),
        (TEXT, {"top_p": 0.0}, InvalidRequestError, "top_p"),
        (TEXT, {"top_p": 1.5}, InvalidRequestError, "top_p.*1.5"),
        (TEXT, {"top_k": -1}, InvalidRequestError, "top_k.*-1"),
        (TEXT, {"top_k": 35}, InvalidRequestError, "top_k.*35"),
        (TEXT, {"ras_window": 65}, InvalidRequestError, "ras_window.*65"),
        (TEXT, {"ras_max_repeat": 0}, InvalidRequestError, "ras_max_repeat"),
        (TEXT, {"seed": -1}, InvalidRequestError, r"\[seed\].*-1"),
        (TEXT, {"seed": 1 << 64}, InvalidRequestError, r"\[seed\]"),
        (TEXT, {"stream_rule": "none"}, InvalidRequestError, r"\[stream_rule\].*'none'"),
        (TEXT, {"max_seconds": 0}, InvalidRequestError, r"\[max_seconds\].*0"),
        (TEXT, {"max_seconds": 1e6}, InvalidRequestError, r"\[max_seconds\].*1000000"),
        (TEXT, {"max_seconds": float("nan")}, InvalidRequestError, r"\[max_seconds\].*nan"),
        (TEXT, {"loudness": 3}, TypeError, "'loudness'"),
        (TEXT, {"temperature": "1"}, InvalidRequestError, r"\[temperature\].*'1'"),
        (TEXT, {"temperature": 10**400}, InvalidRequestError, r"\[temperature\]"),
        (TEXT, {"top_p": "all"}, InvalidRequestError, r"\[top_p\].*'all'"),
        (TEXT, {"top_k": 1.5}, InvalidRequestError, r"\[top_k\].*1\.5"),
        (
            TEXT,
            {"top_k": 1 << 40},
            InvalidRequestError,
            r"\[top_k\].*2147483647, got 1099511627776",
        ),
        (TEXT, {"ras_window": True}, InvalidRequestError, r"\[ras_window\].*True"),
        (TEXT, {"seed": 1.0}, InvalidRequestError, r"\[seed\].*1\.0"),
        (TEXT, {"max_seconds": "3"}, InvalidRequestError, r"\[max_seconds\].*'3'"),
        (TEXT, {"max_chunk_frames": 2.0}, InvalidRequestError, r"\[max_chunk_frames\]"),
        (TEXT, {"voice": 3}, InvalidRequestError, r"\[voice, speakers\].*got int"),
        (TEXT, {"speakers": "anna"}, InvalidRequestError, r"\[speakers\].*'anna'"),
        (TEXT, {"ref_audio": recording, "ref_text": 3}, InvalidRequestError, r"\[ref_text\].*int"),
    ]
    for text, fault, kind, message in faults:
        with pytest.raises(kind, match=message):
            endless.speak(text, **{**options, **fault})
    with pytest.raises(InvalidRequestError, match="first_chunk_frames"):
        endless.stream(TEXT, first_chunk_frames=0)
    with pytest.warns(LengthStopWarning):
        np.testing.assert_array_equal(other.result().columns, expected.columns)


def test_a_full_queue_refuses_and_recovers(endless: Runtime) -> None:
    running = [endless.submit(TEXT, **LONG) for _ in range(4)]
    until(lambda: endless.stats.running == 4)
    waiting = [endless.submit(TEXT, **LONG) for _ in range(8)]
    with pytest.raises(QueueFullError, match=r"max_queue 8"):
        endless.submit(TEXT, **LONG)
    for request in [*running, *waiting]:
        request.cancel()
    until(lambda: endless.stats.running == 0 and endless.stats.waiting == 0)
    with pytest.warns(LengthStopWarning):
        endless.speak(TEXT, **{**LONG, "max_seconds": 1})
    assert endless.stats.refused == 1
    assert endless.stats.free_blocks == endless.stats.total_blocks


def test_loading_names_what_is_missing(tmp_path: Path, random_model: Path) -> None:
    with pytest.raises(CheckpointError, match="absent"):
        Runtime.load(tmp_path / "absent")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        Runtime.load(tmp_path)
    with pytest.raises(CheckpointError, match="codec"):
        Runtime.load(random_model, codec=tmp_path / "nowhere")
    with pytest.raises(HiggsError, match="tpu"):
        Runtime.load(random_model, device="tpu")
    with pytest.raises(HiggsError, match="max_batch"):
        Runtime.load(random_model, max_batch=0)
    with pytest.raises(InvalidRequestError, match=r"\[convention\]"):
        Runtime.load(random_model, convention="llama")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match=r"\[threads\].*1099511627776"):
        Runtime.load(random_model, threads=1 << 40)


def test_a_codec_that_makes_no_numbers_is_an_error(random_model: Path, tmp_path: Path) -> None:
    shutil.copytree(random_model, tmp_path / "model")
    path = tmp_path / "model" / "codec" / "model.safetensors"
    tensors = load_file(path)
    tensors["acoustic_decoder.conv1.bias"][:] = np.nan
    save_file(tensors, path, {"format": "pt"})
    with Runtime.load(tmp_path / "model", threads=1) as broken:
        with pytest.raises(HiggsError, match=r"\[codec\].*finite.*nan"):
            broken.speak(TEXT, **GREEDY)
        stream = broken.stream(TEXT, **GREEDY)
        with pytest.raises(HiggsError, match=r"\[codec\]"):
            stream.result()
        assert stream.finish == "error"


def test_a_stream_keeps_its_runtime(random_model: Path, runtime: Runtime) -> None:
    """Nothing but the stream holds the runtime here."""
    expected = runtime.speak(TEXT, **GREEDY).samples
    streamed = list(Runtime.load(random_model, threads=1).stream(TEXT, **GREEDY))
    np.testing.assert_array_equal(np.concatenate(streamed), expected)

    async def listen() -> list[NDArray[np.float32]]:
        spoken = Runtime.load(random_model, threads=1).astream(TEXT, **GREEDY)
        return [chunk async for chunk in spoken]

    np.testing.assert_array_equal(np.concatenate(asyncio.run(listen())), expected)


def test_encoding_leaves_the_event_loop_free(
    runtime: Runtime, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = runtime.voices.encoder.encode
    threads: list[threading.Thread] = []

    def noted(*args: Any, **options: Any) -> Voice:
        threads.append(threading.current_thread())
        return encode(*args, **options)

    monkeypatch.setattr(runtime.voices.encoder, "encode", noted)
    asyncio.run(runtime.aspeak(TEXT, ref_audio=recording, ref_text="Who is it?", **GREEDY))
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


@pytest.mark.parametrize("layout", ["original", "transformers"])
def test_both_layouts_load(tmp_path: Path, runtime: Runtime, layout: Any) -> None:
    codec = small_codec_config()
    write_random_checkpoint(tmp_path, vocab=320, codebook_size=codec.codebook_size, layout=layout)
    write_random_codec(tmp_path / "codec", codec, layout=layout)
    with Runtime.load(tmp_path, threads=1) as loaded:
        assert loaded.info.layout == layout
        speech = loaded.speak(TEXT, seed=3)
    expected = runtime.speak(TEXT, seed=3)  # the same numbers in the other files
    np.testing.assert_array_equal(speech.columns, expected.columns)
    np.testing.assert_allclose(speech.samples, expected.samples, atol=1e-5)


def test_information(runtime: Runtime, random_model: Path) -> None:
    assert runtime.info.num_codebooks == 8
    assert runtime.info.model_dir == str(random_model)
    assert runtime.frame_rate == pytest.approx(25)
    assert runtime.stats.submitted >= 0


def test_importing_the_package_loads_nothing_heavy() -> None:
    script = """
import sys
import higgs_rt
heavy = {"torch", "numpy", "tokenizers", "higgs_rt._higgs_rt", "transformers"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert "Runtime" in dir(higgs_rt) and higgs_rt.__version__
higgs_rt.Runtime, higgs_rt.VoiceStore
assert not {"torch", "transformers", "jiwer"} & set(sys.modules)
try:
    higgs_rt.absent
except AttributeError as error:
    assert "absent" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", script], check=True)
