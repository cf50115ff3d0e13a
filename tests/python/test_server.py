"""The server with the clients that people use, over small models and the packaged voice."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import openai
import pytest
import soundfile
from numpy.typing import NDArray
from websockets.sync.client import connect

from higgs_rt import Runtime
from higgs_rt.audio import pcm16
from higgs_rt.server import ServerSettings, create_app
from higgs_rt.server.formats import change_speed, make_encoder
from serving import served
from waiting import until

pytestmark = pytest.mark.usefixtures("quiet")
TEXT = "The sun rises in the east. It sets in the west, and then it is dark."
SPEECH = {"model": "tts-1", "input": TEXT, "voice": "slt", "seed": 3}
FORMATS = ("wav", "mp3", "opus", "aac", "flac", "pcm")
ENDLESS = {"temperature": 0, "ras_window": 0, "guards": False}
# More than the buffers of the sockets hold: 1,700 seconds, 80 MB.
VERY_LONG = {
    **{"model": "tts-1", "input": "So it is. " * 300, **ENDLESS},
    **{"response_format": "pcm", "max_turn_chars": 9, "context_turns": 0},
}


@pytest.fixture
def endless(endless_model: Path) -> Iterator[Runtime]:
    with Runtime.load(
        endless_model, threads=1, max_batch=2, max_queue=2, max_buffered_chunks=2
    ) as loaded:
        yield loaded


def decoded(data: bytes, name: str) -> NDArray[np.float32]:
    if name == "pcm":
        return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32767)
    with av.open(io.BytesIO(data), "r") as container:
        rate = container.streams.audio[0].rate
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
    samples = np.concatenate([frame.reshape(-1) for frame in frames])
    if samples.dtype.kind == "i":
        samples = samples / np.iinfo(samples.dtype).max
    # FFmpeg's Opus decoder always gives 48 kHz.
    return samples[:: rate // 24000].astype(np.float32)


def spoken(demo: Runtime) -> NDArray[np.float32]:
    return demo.speak(TEXT, voice="slt", seed=3).samples


@pytest.mark.parametrize("name", FORMATS)
def test_the_openai_client_gets_every_format(
    client: openai.OpenAI, demo: Runtime, name: Any
) -> None:
    expected = spoken(demo)
    whole = client.audio.speech.create(
        model="tts-1", voice="slt", input=TEXT, response_format=name, extra_body={"seed": 3}
    )
    samples = decoded(whole.content, name)
    # Lossy codecs add a delay of some frames.
    assert abs(len(samples) - len(expected)) < 3000
    if name in ("wav", "flac", "pcm"):
        np.testing.assert_allclose(samples, expected, atol=1e-4)
    with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="slt", input=TEXT, response_format=name, extra_body={"seed": 3}
    ) as response:
        assert response.headers["x-higgs-seed"] == "3"
        streamed = b"".join(response.iter_bytes())
    if name != "opus":  # its stream has a random number
        assert streamed == whole.content


def test_the_default_is_mp3(client: openai.OpenAI) -> None:
    speech = client.audio.speech.create(model="tts-1", voice="slt", input="Hi there.")
    assert speech.response.headers["content-type"] == "audio/mpeg"


def test_whole_files_know_their_length_and_end(url: str, demo: Runtime) -> None:
    for name in ("wav", "flac"):
        body = {**SPEECH, "stream": False, "response_format": name}
        response = httpx.post(f"{url}/v1/audio/speech", json=body)
        assert response.headers["x-higgs-finish"] == "stop"
        assert int(response.headers["content-length"]) == len(response.content)
        samples, rate = soundfile.read(io.BytesIO(response.content), dtype="float32")
        assert rate == 24000
        np.testing.assert_allclose(samples, spoken(demo), atol=1e-4)


def test_events(client: openai.OpenAI, url: str, demo: Runtime) -> None:
    body = {**SPEECH, "response_format": "pcm", "stream_format": "sse"}
    text = httpx.post(f"{url}/v1/audio/speech", json=body).text
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    kinds = [event["type"] for event in events]
    assert kinds == ["speech.audio.delta"] * (len(events) - 1) + ["speech.audio.done"]
    assert events[-1]["finish"] == "stop"
    assert events[-1]["seed"] == 3
    data = b"".join(base64.b64decode(event["audio"]) for event in events[:-1])
    np.testing.assert_allclose(decoded(data, "pcm"), spoken(demo), atol=1e-4)


def test_every_request_has_a_stop_reason(url: str) -> None:
    response = httpx.post(
        f"{url}/v1/audio/speech", json=SPEECH, headers={"X-Request-Id": "my-request"}
    )
    assert response.headers["x-request-id"] == "my-request"
    report = httpx.get(f"{url}/v1/requests/my-request").json()
    assert report["finish"] == "stop"
    assert report["seed"] == 3
    assert 0 < report["first_audio"] <= report["took"]
    assert httpx.get(f"{url}/v1/requests/another").status_code == 404


def test_speed_changes_the_length_and_not_the_pitch(url: str) -> None:
    lengths = {}
    for speed in (0.25, 0.5, 1, 2, 4):
        body = {**SPEECH, "response_format": "pcm", "speed": speed}
        lengths[speed] = len(httpx.post(f"{url}/v1/audio/speech", json=body).content)
    for speed, length in lengths.items():
        assert length * speed == pytest.approx(lengths[1], rel=0.05)
    time_axis = np.arange(24000) / 24000
    tone = np.sin(2 * np.pi * 440 * time_axis).astype(np.float32) * 0.5
    faster = change_speed(tone, 24000, 2.0)
    assert np.argmax(np.abs(np.fft.rfft(faster, 24000))) == pytest.approx(440, abs=4)


def test_encoders_take_any_pieces() -> None:
    rng = np.random.default_rng(0)
    samples = (rng.standard_normal(30000) * 0.1).astype(np.float32)
    for name in ("wav", "pcm", "flac"):
        encoder = make_encoder(name, 24000)
        data = b"".join(encoder.encode(part) for part in np.split(samples, [1, 1, 777, 20000]))
        got = decoded(data + encoder.finish(), name)
        np.testing.assert_array_equal(pcm16(got), pcm16(samples))
    for name in FORMATS:
        assert isinstance(make_encoder(name, 24000).finish(), bytes)  # type: ignore[arg-type]


def test_long_texts_and_dialogues(url: str, demo: Runtime) -> None:
    script = "[SPEAKER0] Who is it? [SPEAKER1] It is me. " * 6
    body = {
        "model": "tts-1",
        "input": script,
        "speakers": ["slt", "rms"],
        "response_format": "pcm",
        "seed": 3,
    }
    response = httpx.post(f"{url}/v1/audio/speech", json=body)
    report = httpx.get(f"{url}/v1/requests/{response.headers['x-request-id']}").json()
    assert report["turns"] == 12
    expected = demo.speak(script, speakers=["slt", "rms"], seed=3).samples
    np.testing.assert_allclose(decoded(response.content, "pcm"), expected, atol=1e-4)
    at_once = {**body, "input": "[SPEAKER0] Hi. [SPEAKER1] Ho.", "max_seconds": 2}
    at_once |= {"dialogue": "tags", "placement": "system"}
    response = httpx.post(f"{url}/v1/audio/speech", json=at_once)
    report = httpx.get(f"{url}/v1/requests/{response.headers['x-request-id']}").json()
    assert report["turns"] == 1


def test_errors_name_the_field(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="expected the model higgs-audio-v2"):
        client.audio.speech.create(model="whisper-1", voice="slt", input="Hi.")
    with pytest.raises(openai.BadRequestError, match=r"\[voice\].*slt.*'nobody'"):
        client.audio.speech.create(model="tts-1", voice="nobody", input="Hi.")
    for field, value in {
        "input": "?!",
        "speed": 9,
        "temperature": -1,
        "top_p": 0,
        "max_seconds": -1,
        "language": "xx",
        "loudness": 3,
        "ref_text": "words",
        "response_format": "midi",
    }.items():
        with pytest.raises(openai.BadRequestError, match=f"{field}|text") as caught:
            client.audio.speech.create(
                model="tts-1", voice="slt", input="Hi.", extra_body={field: value}
            )
        assert caught.value.type == "invalid_request_error"


def test_voices(url: str, demo: Runtime, demo_model: Path) -> None:
    recording = (demo_model / "references" / "slt.flac").read_bytes()
    words = (demo_model / "references" / "slt.txt").read_text()
    names = httpx.get(f"{url}/v1/audio/voices").json()["voices"]
    assert names == ["awb", "kal16", "rms", "slt"]
    added = httpx.post(
        f"{url}/v1/audio/voices",
        data={"name": "ann", "ref_text": words},
        files={"file": ("ann.flac", recording)},
        timeout=60,
    )
    assert added.status_code == 201, added.text
    encoded = base64.b64encode(recording).decode()
    upload = {"name": "ann", "ref_text": words, "ref_audio": encoded}
    assert httpx.post(f"{url}/v1/audio/voices", json=upload).status_code == 409
    upload["name"] = "bob"
    assert httpx.post(f"{url}/v1/audio/voices", json=upload, timeout=60).status_code == 201
    speak = {**SPEECH, "response_format": "pcm"}
    by_name = httpx.post(f"{url}/v1/audio/speech", json={**speak, "voice": "bob"}).content
    by_recording = {**speak, "voice": None, "ref_audio": encoded, "ref_text": words}
    for _ in range(2):  # encoded, then known
        assert httpx.post(f"{url}/v1/audio/speech", json=by_recording).content == by_name
    assert by_name == httpx.post(f"{url}/v1/audio/speech", json=speak).content  # it is slt
    for name, status in (("ann", 200), ("bob", 200), ("ann", 404), ("slt", 403)):
        assert httpx.delete(f"{url}/v1/audio/voices/{name}").status_code == status
    for wrong in (
        {"name": "../x", "ref_text": words, "ref_audio": encoded},
        {"name": "x", "ref_text": "", "ref_audio": encoded},
        {"name": "x", "ref_text": words, "ref_audio": "!!"},
        {"name": "x", "ref_text": words, "ref_audio": base64.b64encode(b"no audio").decode()},
        {"name": "x"},
    ):
        response = httpx.post(f"{url}/v1/audio/voices", json=wrong)
        assert response.status_code == 400, response.text


def test_models_and_state(client: openai.OpenAI, url: str) -> None:
    assert [model.id for model in client.models.list()] == ["higgs-audio-v2"]
    assert client.models.retrieve("higgs-audio-v2").id == "higgs-audio-v2"
    assert httpx.get(f"{url}/healthz").json()["status"] == "ok"
    assert httpx.get(f"{url}/readyz").status_code == 200
    httpx.post(f"{url}/v1/audio/speech", json=SPEECH)
    numbers = httpx.get(f"{url}/metrics").text
    for name in (
        'higgs_http_requests_total{route="/v1/audio/speech",status="200"}',
        "higgs_first_audio_seconds_bucket",
        "higgs_frame_seconds_sum",
        "higgs_underruns_total",
        'higgs_stop_reasons_total{finish="stop"}',
        "higgs_runtime_free_blocks",
        "higgs_runtime_waiting",
        "higgs_runtime_columns_total",
    ):
        assert name in numbers
    page = httpx.get(url)
    assert "<textarea" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    document = httpx.get(f"{url}/openapi.json").json()
    assert document["components"]["schemas"]["SpeechRequest"]["examples"]


def test_who_hangs_up_cancels(endless: Runtime) -> None:
    with served(endless) as url:
        for count, kind in enumerate(("pcm", "mp3", "wav"), 1):
            request = {**VERY_LONG, "response_format": kind, "stream": False}
            with pytest.raises(httpx.TimeoutException), httpx.Client() as http:
                http.post(f"{url}/v1/audio/speech", json=request, timeout=0.3)
            until(lambda: "higgs_in_flight 0.0" in httpx.get(f"{url}/metrics").text)
            until(lambda: endless.stats.running == 0)
            counted = f'higgs_stop_reasons_total{{finish="cancelled"}} {count}.0'
            until(lambda wanted=counted: wanted in httpx.get(f"{url}/metrics").text)  # type: ignore[misc]
        with httpx.stream("POST", f"{url}/v1/audio/speech", json=VERY_LONG) as response:
            next(response.iter_raw())
            request_id = response.headers["x-request-id"]
        until(lambda: endless.stats.running == 0)
        until(lambda: httpx.get(f"{url}/v1/requests/{request_id}").status_code == 200)
        report = httpx.get(f"{url}/v1/requests/{request_id}").json()
        assert report["finish"] == "cancelled"
        until(lambda: "higgs_in_flight 0.0" in httpx.get(f"{url}/metrics").text)


def test_a_slow_reader_pauses_its_request(endless: Runtime) -> None:
    settings = ServerSettings(send_timeout=1.0)
    with (
        served(endless, settings) as url,
        httpx.stream("POST", f"{url}/v1/audio/speech", json=VERY_LONG) as response,
    ):
        parts = response.iter_raw(4096)
        next(parts)
        columns = -1
        while columns != endless.stats.columns:
            columns = endless.stats.columns
            time.sleep(0.25)
        assert columns < 25 * 500
        # It does not read for a second: its place is free.
        report = f"{url}/v1/requests/{response.headers['x-request-id']}"
        until(lambda: httpx.get(report).status_code == 200)
        assert endless.stats.columns == columns
        with pytest.raises(httpx.RemoteProtocolError):
            list(parts)


def test_a_full_server_says_when_to_return(endless: Runtime) -> None:
    body = {"model": "tts-1", "input": "A b.", "max_seconds": 100, **ENDLESS}
    settings = ServerSettings(max_requests=2)

    async def main(url: str) -> None:
        async with httpx.AsyncClient(base_url=url) as http:
            tasks = [asyncio.create_task(http.post("/v1/audio/speech", json=body)) for _ in "ab"]
            while endless.stats.running < 2:
                await asyncio.sleep(0.01)
            refused = await http.post("/v1/audio/speech", json=body)
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "1"
            assert refused.json()["error"]["code"] == "queue_full"
            assert (await http.get("/readyz")).status_code == 503
            assert (await http.get("/healthz")).status_code == 200
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    with served(endless, settings) as url:
        asyncio.run(main(url))
        until(lambda: endless.stats.running == 0)


def test_leaving_a_socket_cancels(endless: Runtime) -> None:
    start = {"type": "session.start", "max_seconds": 100, **ENDLESS}
    with served(endless) as url:
        for done in (False, True):
            with connect(f"{url.replace('http', 'ws')}/v1/audio/speech/stream") as socket:
                socket.send(json.dumps(start))
                socket.send(json.dumps({"type": "input_text.append", "text": "So it is. Cd"}))
                if done:
                    socket.send(json.dumps({"type": "input_text.done"}))
                socket.recv()
                socket.recv()
            until(lambda: endless.stats.running == 0)


def test_voices_survive_a_restart(demo_model: Path, tmp_path: Path) -> None:
    recording = (demo_model / "references" / "rms.flac").read_bytes()
    form = {"name": "kept", "ref_text": "My brother walks to the harbor every day."}
    with Runtime.load(voices=tmp_path, threads=2) as runtime, served(runtime) as url:
        added = httpx.post(
            f"{url}/v1/audio/voices", data=form, files={"file": ("x", recording)}, timeout=60
        )
        assert added.status_code == 201
    with Runtime.load(voices=tmp_path, threads=2) as runtime, served(runtime) as url:
        assert "kept" in httpx.get(f"{url}/v1/audio/voices").json()["voices"]


def test_the_application_closes_its_runtime(random_model: Path) -> None:
    runtime = Runtime.load(random_model, threads=1)
    app = create_app(runtime)

    async def main() -> None:
        async with app.router.lifespan_context(app):
            pass

    asyncio.run(main())
    with pytest.raises(Exception, match="shut"):
        runtime.speak("Hi.")
