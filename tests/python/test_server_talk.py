"""Chats and sockets: speech as an answer, and of text that is still written."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import soundfile
from websockets.sync.client import connect

from higgs_rt import Runtime
from prompts import watch_prompts

pytestmark = pytest.mark.usefixtures("quiet")
TEXT = "The sun rises in the east. It sets in the west, and then it is dark."


def test_chat_speaks_and_goes_on(client: openai.OpenAI, demo: Runtime) -> None:
    messages: list[Any] = [
        {"role": "system", "content": "Generate audio following instruction."},
        {"role": "user", "content": TEXT},
    ]
    options: dict[str, Any] = {"model": "gpt-audio", "modalities": ["text", "audio"]}
    answer = client.chat.completions.create(
        messages=messages,
        audio={"voice": "slt", "format": "wav"},
        extra_body={"seed": 3},
        **options,
    )
    audio = answer.choices[0].message.audio
    assert audio is not None
    assert audio.transcript == TEXT
    samples, _ = soundfile.read(io.BytesIO(base64.b64decode(audio.data)), dtype="float32")
    expected = demo.speak(TEXT, voice="slt", seed=3).samples
    np.testing.assert_allclose(samples, expected, atol=1e-4)
    messages += [
        {"role": "assistant", "audio": {"id": audio.id}},
        {"role": "user", "content": "And then it rises again."},
    ]
    pieces = client.chat.completions.create(
        messages=messages,
        audio={"voice": "slt", "format": "pcm16"},
        stream=True,
        **options,
    )
    data, transcript, finish = b"", "", None
    for piece in pieces:
        delta = piece.choices[0].delta.model_dump().get("audio") or {}
        data += base64.b64decode(delta.get("data") or "")
        transcript += delta.get("transcript") or ""
        finish = piece.choices[0].finish_reason or finish
    assert transcript == "And then it rises again."
    assert finish in ("stop", "length")
    assert len(data) > 10_000


def test_chat_goes_on_from_what_was_asked_for(
    url: str, demo: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = watch_prompts(demo, monkeypatch)
    messages: list[Any] = [{"role": "user", "content": "It is 5 (or not)\u2026"}]
    body = {"model": "gpt-audio", "modalities": ["audio"], "audio": {"format": "wav"}}
    for _ in range(2):
        chat = {**body, "messages": messages, "max_seconds": 1}
        answer = httpx.post(f"{url}/v1/chat/completions", json=chat, timeout=30)
        assert answer.status_code == 200, answer.text
        audio = answer.json()["choices"][0]["message"]["audio"]
        assert audio["transcript"] == "It is 5 (or not)\u2026"
        messages = [*messages, {"role": "assistant", "audio": {"id": audio["id"]}}, messages[0]]
    said = "It is five or not ..."
    assert asked == [(said, []), (said, [said])]


def test_tokens_are_frames(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="gpt-audio",
        modalities=["text", "audio"],
        audio={"voice": "slt", "format": "wav"},
        messages=[{"role": "user", "content": TEXT}],
        max_completion_tokens=10,
        presence_penalty=0.5,
        stop=["x"],
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 11


def test_chat_refuses_what_it_cannot_speak(client: openai.OpenAI) -> None:
    hello = [{"role": "user", "content": "Hi."}]
    faults: list[tuple[dict[str, Any], str]] = [
        ({"messages": hello, "modalities": ["text"]}, "modalities"),
        ({"messages": [{"role": "assistant", "content": "Hi."}]}, "user message"),
        ({"messages": [{"role": "system", "content": "Hi."}]}, "user message"),
        ({"messages": hello, "audio": {"voice": "nobody", "format": "wav"}}, "nobody"),
        ({"messages": hello, "audio": {"voice": "slt", "format": "wav"}, "stream": True}, "pcm16"),
    ]
    for fault, culprit in faults:
        with pytest.raises(openai.BadRequestError, match=culprit):
            client.chat.completions.create(
                model="gpt-audio", **{"modalities": ["text", "audio"], **fault}
            )
    lost = [*hello, {"role": "assistant", "audio": {"id": "audio_1"}}, *hello]
    with pytest.raises(openai.NotFoundError, match="none of that id"):
        client.chat.completions.create(
            model="gpt-audio",
            modalities=["text", "audio"],
            messages=lost,  # type: ignore[arg-type]
        )


def test_text_in_and_audio_out_through_a_socket(url: str, demo: Runtime) -> None:
    with connect(f"{url.replace('http', 'ws')}/v1/audio/speech/stream") as socket:
        socket.send(json.dumps({"type": "session.start", "voice": "slt", "seed": 3}))
        started = json.loads(socket.recv())
        assert (started["type"], started["sample_rate"]) == ("session.started", 24000)
        socket.send(json.dumps({"type": "input_text.append", "text": "The sun rises. It"}))
        first = socket.recv(timeout=10)
        assert isinstance(first, bytes)
        socket.send(json.dumps({"type": "input_text.append", "text": " sets again."}))
        socket.send(json.dumps({"type": "input_text.done"}))
        data, done = first, None
        while done is None:
            message = socket.recv(timeout=10)
            if isinstance(message, bytes):
                data += message
            else:
                done = json.loads(message)
    assert done["type"] == "speech.done"
    assert (done["finish"], done["turns"]) == ("stop", 2)
    samples = np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32767)
    alone = demo.speak("The sun rises.", voice="slt", seed=3).samples
    same = len(alone) - 960 * 10  # then the next sentence is the codec's context
    np.testing.assert_allclose(samples[:same], alone[:same], atol=1e-4)
    assert len(samples) > len(alone)


def test_sockets_refuse_nonsense(url: str) -> None:
    address = f"{url.replace('http', 'ws')}/v1/audio/speech/stream"
    start = {"type": "session.start"}
    for messages, culprit in [
        (["{"], "JSON"),
        (["[1]"], "object"),
        ([json.dumps({"type": "x"})], "session.start"),
        ([json.dumps({**start, "voice": "nobody"})], "nobody"),
        ([json.dumps({**start, "speed": 9})], "speed"),
        ([json.dumps(start), json.dumps({"type": "x"})], "input_text"),
        ([json.dumps(start), json.dumps({"type": "input_text.append", "text": 3})], "text"),
    ]:
        with connect(address) as socket:
            for message in messages:
                socket.send(message)
            answer = json.loads(socket.recv(timeout=10))
            if answer["type"] == "session.started":
                answer = json.loads(socket.recv(timeout=10))
            assert answer["type"] == "error"
            assert culprit in answer["error"]["message"]
