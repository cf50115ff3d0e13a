"""Several adapters in one runtime, chosen by request: Python, the server and the command line."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from numpy.typing import NDArray
from websockets.sync.client import connect

from commands import run
from higgs_rt import Runtime
from higgs_rt.errors import CheckpointError, InvalidRequestError
from higgs_rt.server import ServerSettings, create_app
from random_adapter import write_random_adapter
from serving import served

pytestmark = pytest.mark.usefixtures("quiet")
TEXT = "The sun rises in the east."
OPTIONS: dict[str, Any] = {"seed": 3, "max_seconds": 1.5, "guards": False}
CHOICES = (None, "anna", "bert")


def heard(data: bytes) -> NDArray[np.float32]:
    """Samples of 16-bit PCM."""
    return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32767)


@pytest.fixture(scope="module")
def folders(endless_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters of different ranks."""
    root = tmp_path_factory.mktemp("adapters")
    return {
        "anna": write_random_adapter(root / "a", endless_model, rank=4, seed=1),
        "bert": write_random_adapter(root / "b", endless_model, rank=12, seed=2),
    }


@pytest.fixture(scope="module")
def runtime(endless_model: Path, folders: dict[str, Path]) -> Iterator[Runtime]:
    with Runtime.load(endless_model, threads=2, max_batch=6, adapters=folders) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def alone(runtime: Runtime) -> list[NDArray[np.int32]]:
    """The frames of each choice."""
    made = [runtime.speak(TEXT, adapter=name, **OPTIONS).frames for name in CHOICES]
    assert not np.array_equal(made[0], made[1])
    assert not np.array_equal(made[1], made[2])
    return made


@pytest.fixture(scope="module")
def url(runtime: Runtime) -> Iterator[str]:
    with served(runtime) as address:
        yield address


def test_together_as_alone(runtime: Runtime, alone: list[NDArray[np.int32]]) -> None:
    streams = [runtime.submit(TEXT, adapter=name, **OPTIONS) for name in CHOICES * 2]
    for stream, expected in zip(streams, alone * 2, strict=True):
        assert np.array_equal(stream.result().frames, expected)
    assert runtime.info.adapters == ["anna", "bert"]


def test_without_an_adapter_as_without_adapters(
    endless_model: Path, alone: list[NDArray[np.int32]]
) -> None:
    with Runtime.load(endless_model, threads=2) as plain:
        assert plain.info.adapters == []
        assert np.array_equal(plain.speak(TEXT, **OPTIONS).frames, alone[0])
        with pytest.raises(InvalidRequestError, match=r"\[adapter\] expected none: none were"):
            plain.speak(TEXT, adapter="anna")


def test_turn_after_turn(runtime: Runtime) -> None:
    options: dict[str, Any] = {**OPTIONS, "max_turn_chars": 30, "max_seconds": None}
    text = f"{TEXT} It sets in the west. And then it is dark."
    long = [runtime.speak(text, adapter=name, **options) for name in CHOICES]
    assert all(len(one.turns) > 1 for one in long)
    assert not np.array_equal(long[0].frames, long[1].frames)
    again = runtime.speak(text, adapter="anna", **options)
    assert np.array_equal(again.frames, long[1].frames)


@pytest.mark.parametrize("name", ["carl", "ANNA", 7])
def test_unknown_names(runtime: Runtime, name: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"\[adapter\] expected one of anna, bert, got "):
        runtime.speak(TEXT, adapter=name)


def test_adapters_that_do_not_fit(
    endless_model: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    head = np.zeros((8 * 34, 128), np.float32)
    write_random_adapter(
        tmp_path / "full", endless_model, rank=2, seed=1, extra={"audio_lm_head.weight": head}
    )
    wrong: list[tuple[Any, type[Exception], str]] = [
        ({"full": tmp_path / "full"}, CheckpointError, "trained in full .merge this adapter"),
        ({"gone": tmp_path / "gone"}, CheckpointError, "gone"),
        ({"a b": folders["anna"]}, InvalidRequestError, r"\[adapters\] name of adapter 0"),
        (["anna"], InvalidRequestError, r"\[adapters\] expected folders by name, got list"),
    ]
    for adapters, kind, message in wrong:
        with pytest.raises(kind, match=message):
            Runtime.load(endless_model, adapters=adapters)
    with pytest.raises(CheckpointError, match=r"\[adapters\] expected none with backend tensorrt"):
        Runtime.load(endless_model, backend="tensorrt", adapters=folders)


def test_the_model_of_a_request_is_the_adapter(
    url: str, runtime: Runtime, alone: list[NDArray[np.int32]]
) -> None:
    expected = [runtime.speak(TEXT, adapter=name, **OPTIONS).samples for name in CHOICES]
    got: dict[str, bytes] = {}
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        assert [one.id for one in client.models.list()] == ["higgs-audio-v2", "anna", "bert"]
        card = client.models.retrieve("bert")
        assert (card.id, card.model_dump()["parent"]) == ("bert", "higgs-audio-v2")

        def speak(model: str) -> None:
            got[model] = client.audio.speech.create(
                model=model,
                voice="default",
                input=TEXT,
                response_format="pcm",
                extra_body=OPTIONS,
            ).content

        names = ["higgs-audio-v2", "anna", "bert", "tts-1"]
        threads = [threading.Thread(target=speak, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        for name, samples in zip(names, [*expected, expected[0]], strict=True):
            np.testing.assert_allclose(heard(got[name]), samples, atol=1e-4)
        known = r"expected the model higgs-audio-v2 or one of its adapters \(anna, bert\), got carl"
        with pytest.raises(openai.NotFoundError, match=known):
            client.audio.speech.create(model="carl", voice="default", input=TEXT)


def test_chat_and_the_socket_choose_as_well(url: str, runtime: Runtime) -> None:
    body = {
        "model": "anna",
        "audio": {"format": "pcm16"},
        "messages": [{"role": "user", "content": TEXT}],
        **OPTIONS,
    }
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == "anna"
    said = answer.json()["choices"][0]["message"]["audio"]["data"]
    expected = runtime.speak(TEXT, adapter="anna", **OPTIONS).samples
    np.testing.assert_allclose(heard(base64.b64decode(said)), expected, atol=1e-4)
    with connect(f"{url.replace('http', 'ws')}/v1/audio/speech/stream") as socket:
        socket.send(json.dumps({"type": "session.start", "model": "anna", **OPTIONS}))
        assert json.loads(socket.recv(30))["type"] == "session.started"
        for message in ({"type": "input_text.append", "text": TEXT}, {"type": "input_text.done"}):
            socket.send(json.dumps(message))
        data = b""
        while isinstance(part := socket.recv(30), bytes):
            data += part
        assert json.loads(part)["type"] == "speech.done"
    expected = runtime.speak([TEXT], adapter="anna", **OPTIONS).samples
    np.testing.assert_allclose(heard(data), expected, atol=1e-4)


def test_an_adapter_cannot_have_the_models_name(runtime: Runtime) -> None:
    with pytest.raises(InvalidRequestError, match=r"\[adapters\] expected other names than the"):
        create_app(runtime, ServerSettings(model_name="bert"))


def test_the_command_speaks_with_one(
    endless_model: Path,
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HIGGS_RT_VOICES", str(tmp_path / "voices"))
    common = ["--model", endless_model, "--seed", "3", "--max-seconds", "1", "--no-guards"]
    files = []
    for number, chosen in enumerate(([], ["--use-adapter", "anna"])):
        files.append(tmp_path / f"{number}.wav")
        given = [f"--adapters=anna={folders['anna']}", *chosen]
        result = run("speak", TEXT, "-o", files[-1], *common, *given)
        assert result.exit_code == 0, result.output
    assert files[0].read_bytes() != files[1].read_bytes()
    for wrong, message in (
        (["--adapters", "anna"], "[adapters] expected NAME=DIR, got 'anna'"),
        (["--adapters=a=x", "--adapters=a=y"], "expected each name once, got a twice"),
        (["--use-adapter", "anna"], "[adapter] expected none: none were loaded, got 'anna'"),
    ):
        result = run("speak", TEXT, "-o", tmp_path / "no.wav", *common, *wrong)
        assert result.exit_code == 1
        assert message in " ".join(result.stderr.split())
