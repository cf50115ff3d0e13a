"""The installed package and the examples that use it, from text to waveform without Python.

The library is installed from the build directory into a temporary prefix, and the examples are
built against that with find_package(higgs_rt). What they say must be what this package says.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from higgs_rt import Runtime
from higgs_rt.audio import pcm16
from higgs_rt.checkpoint.files import DEMO_DIRECTORY
from native_build import build_directory
from waiting import until

ROOT = Path(__file__).resolve().parents[2]
TEXT = "The sun rises in the east."
HEADERS = {"error.h", "higgs_rt.h", "runtime.h", "speaker.h", "types.h"}


def run(*command: object, **options: Any) -> str:
    """The output of a program, which must end well within two minutes."""
    done = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        **options,
    )
    assert done.returncode == 0, done.stdout
    return str(done.stdout)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the examples' programs, built against the installed package."""
    build = build_directory()
    scratch = tmp_path_factory.mktemp("embedding")
    cmake = shutil.which("cmake", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert cmake is not None
    prefix = scratch / "prefix"
    run(cmake, "--install", build, "--prefix", prefix, "--component", "runtime")
    assert {path.name for path in (prefix / "include").rglob("*.h")} == HEADERS
    for example in ("c", "cpp", "cpp_service"):
        folder = scratch / example
        settings = (f"-DCMAKE_PREFIX_PATH={prefix}", "-DCMAKE_BUILD_TYPE=Debug")  # builds faster
        run(cmake, "-S", ROOT / "examples" / example, "-B", folder, *settings)
        run(cmake, "--build", folder, "-j", "2")
    return scratch


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """No voices but the model's own."""
    return {**os.environ, "HIGGS_RT_VOICES": str(tmp_path_factory.mktemp("no_voices"))}


@pytest.fixture(scope="module")
def spoken() -> dict[str, NDArray[np.int16]]:
    """What this package says with seed 7, by voice; "" is the model's own choice."""
    with Runtime.load(threads=2) as runtime:
        return {
            voice: pcm16(runtime.speak(TEXT, voice=voice or None, seed=7).samples)
            for voice in ("slt", "")
        }


def samples_of(source: Path | io.BytesIO) -> NDArray[np.int16]:
    with wave.open(str(source) if isinstance(source, Path) else source) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 24000)
        return np.frombuffer(file.readframes(1 << 28), "<i2")


@pytest.mark.parametrize("program", ["cpp/speak", "c/speak_c"])
def test_examples_say_what_python_says(
    program: str,
    programs: Path,
    environment: dict[str, str],
    spoken: dict[str, NDArray[np.int16]],
    tmp_path: Path,
) -> None:
    for voice, expected in spoken.items():
        wav = tmp_path / f"of_{voice}.wav"
        run(programs / program, DEMO_DIRECTORY, wav, TEXT, voice, 7, env=environment)
        assert np.array_equal(samples_of(wav), expected)
    failed = subprocess.run(
        [programs / program, DEMO_DIRECTORY, tmp_path / "no.wav", "It is 5.", "slt"],
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
        timeout=60,
    )
    assert failed.returncode == 1
    assert "[text] expected numbers, symbols and abbreviations spelled out" in failed.stderr


@contextmanager
def running(programs: Path, model: Path, environment: dict[str, str]) -> Iterator[str]:
    """The address of a speech_service, which must end well at SIGTERM."""
    command = [programs / "cpp_service" / "speech_service", model]
    process = subprocess.Popen(
        [*command, "--port", "0", "--threads", "2", "--max-batch", "4"],
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on http://127.0.0.1:"), line
        yield line.removeprefix("listening on ").strip()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def service(programs: Path, environment: dict[str, str]) -> Iterator[str]:
    """A service with the demo model."""
    with running(programs, DEMO_DIRECTORY, environment) as address:
        yield address


@pytest.fixture
def endless_service(
    programs: Path, endless_model: Path, environment: dict[str, str]
) -> Iterator[str]:
    """A service whose speech ends by its limit alone."""
    with running(programs, endless_model, environment) as address:
        yield address


def speech_body(**fields: object) -> dict[str, object]:
    return {"model": "tts-1", "input": TEXT, "voice": "slt", "seed": 7, **fields}


def health(address: str) -> dict[str, Any]:
    answer = httpx.get(f"{address}/healthz")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def open_speech(address: str, body: dict[str, object]) -> socket.socket:
    """A connection with a request for speech on its way."""
    host, port = address.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    data = json.dumps(body).encode()
    head = (
        "POST /v1/audio/speech HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    connection.sendall(head.encode() + data)
    return connection


ENDLESS = {"input": "Aaah.", "temperature": 0, "ras_window": 0, "max_seconds": 150}


def test_service_says_what_python_says(service: str, spoken: dict[str, NDArray[np.int16]]) -> None:
    url = f"{service}/v1/audio/speech"
    answer = httpx.post(url, json=speech_body(response_format="pcm"), timeout=60)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "audio/pcm"
    assert answer.headers["transfer-encoding"] == "chunked"
    assert np.array_equal(np.frombuffer(answer.content, "<i2"), spoken["slt"])
    answer = httpx.post(url, json=speech_body(voice=None), timeout=60)
    assert answer.headers["content-type"] == "audio/wav"
    assert np.array_equal(samples_of(io.BytesIO(answer.content)), spoken[""])
    voices = httpx.get(f"{service}/v1/audio/voices").json()
    assert voices == {"voices": ["awb", "kal16", "rms", "slt"]}


def test_service_streams(service: str) -> None:
    url, body = f"{service}/v1/audio/speech", speech_body(response_format="pcm")
    with httpx.stream("POST", url, json=body, timeout=60) as answer:
        chunks = [chunk for chunk in answer.iter_raw() if chunk]
    assert len(chunks) > 1
    assert len(chunks[0]) < sum(map(len, chunks)) / 2


def test_audio_comes_before_the_end_and_a_disconnect_cancels(endless_service: str) -> None:
    with open_speech(endless_service, ENDLESS) as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
        assert health(endless_service)["running"] == 1
    until(lambda: health(endless_service)["cancelled"] == 1)
    assert health(endless_service)["running"] == 0


def test_service_speaks_to_many_at_once(service: str, spoken: dict[str, NDArray[np.int16]]) -> None:
    connections = [open_speech(service, speech_body(response_format="pcm")) for _ in range(8)]
    for connection in connections:
        data = b""
        while received := connection.recv(1 << 16):
            data += received
        connection.close()
        assert data.endswith(b"\r\n0\r\n\r\n")
        assert len(data) > 2 * len(spoken["slt"])
    assert health(service)["cancelled"] == 0


@pytest.mark.parametrize(
    ("status", "message", "body"),
    [
        (400, "JSON body", b"{"),
        (400, "each name once", b'{"input": "a", "input": "b"}'),
        (400, "speed: expected no such field", {"input": "Hi.", "speed": 2}),
        (400, "at least one word", {}),
        (400, "input: expected a string", {"input": 5}),
        (400, "spelled out", {"input": "It is 5."}),
        (400, "max_turn_chars", {"input": "word " * 20}),
        (400, "expected temperature in", {"input": "Hi.", "temperature": -1}),
        (400, "seed: expected a whole number", {"input": "Hi.", "seed": 1.5}),
        (400, "temperature: expected a number in", {"input": "Hi.", "temperature": 1e300}),
        (400, "max_seconds: expected a number in", {"input": "Hi.", "max_seconds": -1e9}),
        (400, "JSON body", b'{"input": "Hi.", "top_p": 1e999}'),
        (400, "\ufffd: expected no such field", b'{"\xff": 1}'),
        (400, "got \ufffd\ufffd", b'{"input": "Hi.", "response_format": "\xed\xa0"}'),
        (400, "response_format", {"input": "Hi.", "response_format": "mp3"}),
        (400, "[voice]", {"input": "Hi.", "voice": "../slt"}),
        (404, "got eve", {"input": "Hi.", "voice": "eve"}),
        (413, "at most 65536 bytes", b" " * 70000),
    ],
)
def test_service_refuses_bad_input(
    status: int, message: str, body: bytes | dict[str, object], service: str
) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = {"content-type": "application/json"}
    answer = httpx.post(f"{service}/v1/audio/speech", content=data, headers=kind)
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]
    assert answer.json()["error"]["code"] == status


def test_service_refuses_bad_http(service: str) -> None:
    host, port = service.removeprefix("http://").split(":")

    def ask(request: bytes) -> bytes:
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(request)
            answer = b""
            while received := connection.recv(4096):
                answer += received
            return answer

    post = b"POST /v1/audio/speech HTTP/1.1\r\n"
    assert b" 404 " in ask(b"GET /nothing HTTP/1.1\r\n\r\n")
    assert b" 405 " in ask(b"GET /v1/audio/speech HTTP/1.1\r\n\r\n")
    assert b" 400 " in ask(b"nonsense\r\n\r\n")
    assert b" 400 " in ask(post + b"Content-Length: x\r\n\r\n")
    assert b" 411 " in ask(post + b"\r\n")
    assert b" 411 " in ask(post + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    assert b" 413 " in ask(post + b"Content-Length: 99999999999999999999\r\n\r\n")
    assert b" 415 " in ask(post + b"Content-Length: 2\r\n\r\n{}")
    assert b" 431 " in ask(b"GET / HTTP/1.1\r\nX: " + b"a" * 20000 + b"\r\n\r\n")
    assert health(service)["status"] == "ok"


def test_service_ends_while_it_speaks(
    programs: Path, endless_model: Path, environment: dict[str, str]
) -> None:
    with running(programs, endless_model, environment) as address:
        connection = open_speech(address, ENDLESS)
        assert connection.recv(4096)  # it ends well all the same, and soon
    connection.close()


def test_asyncio_example(tmp_path: Path) -> None:
    script = ROOT / "examples" / "python_asyncio" / "serve_sentences.py"
    sentences = [f"Sentence {word}." for word in ("one", "two", "three", "four", "five", "six")]
    source = tmp_path / "sentences.txt"
    source.write_text("\n\n".join([*sentences, "..."]) + "\n", encoding="utf-8")
    options = ["--voice", "slt", "--at-once", "3", "--out"]
    command = [sys.executable, str(script), str(source), *options]
    done = subprocess.run(
        [*command, str(tmp_path / "speech")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1  # one of them cannot be spoken
    assert "6: [text] expected at least one letter or digit" in done.stderr
    assert done.stdout.startswith("6 spoken (")
    assert done.stdout.endswith("1 failed, 0 timed out\n")
    files = sorted((tmp_path / "speech").iterdir())
    assert [file.name for file in files] == [f"{number:03}.wav" for number in range(6)]
    with Runtime.load() as runtime:
        expected = pcm16(runtime.speak(sentences[4], voice="slt", seed=0).samples)
    assert np.array_equal(samples_of(files[4]), expected)
    done = subprocess.run(
        [*command, str(tmp_path / "late"), "--timeout", "0"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "0 spoken (0.0 s), 0 failed, 7 timed out" in done.stdout
    assert list((tmp_path / "late").iterdir()) == []
