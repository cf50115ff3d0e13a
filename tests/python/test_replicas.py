"""`higgs-rt serve --devices`: a process for each device behind one front."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from websockets.sync.client import connect

from higgs_rt import HiggsError, InvalidRequestError, Runtime
from higgs_rt.server import ServerSettings, create_app
from higgs_rt.server.fleet_metrics import merged
from higgs_rt.server.front import create_front
from higgs_rt.server.replicas import Fleet, parse_devices
from higgs_rt.server.routing import Hint, State, choose, hint_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="replicas answer on Unix sockets")
BODY: dict[str, Any] = {"model": "tts-1", "input": "The sun rises.", "response_format": "pcm"}


@dataclass
class Fake:
    index: int
    in_flight: int = 0
    state: State = "ready"


def test_devices_are_read() -> None:
    assert parse_devices("0,1") == ["cuda:0", "cuda:1"]
    assert parse_devices("cpu, cpu,cuda:3") == ["cpu", "cpu", "cuda:3"]
    for wrong in ("", "0,", "gpu", "0,0", "cuda:x", "-1"):
        with pytest.raises(InvalidRequestError, match="devices"):
            parse_devices(wrong)


def test_a_voice_stays_until_its_replica_is_clearly_more_loaded() -> None:
    fakes = [Fake(0), Fake(1), Fake(2)]
    homes = {name: choose(fakes, Hint(name), 8, 2) for name in map(str, range(60))}
    assert {home.index for home in homes.values() if home} == {0, 1, 2}
    home = homes["7"]
    assert home is not None
    home.in_flight = 1
    assert choose(fakes, Hint("7"), 8, 2) is home
    home.in_flight = 2
    assert choose(fakes, Hint("7"), 8, 2) is not home
    home.in_flight, home.state = 0, "failed"
    moved = {name for name, old in homes.items() if choose(fakes, Hint(name), 8, 2) is not old}
    assert moved == {name for name, old in homes.items() if old is home}


def test_requests_without_a_voice_go_where_least_runs() -> None:
    fakes = [Fake(0, 3), Fake(1, 1), Fake(2, 2)]
    assert choose(fakes, Hint(), 8, 2) is fakes[1]
    assert choose(fakes, Hint(), 8, 2, without=[1]) is fakes[2]
    assert choose(fakes, Hint(replica=0), 8, 2) is fakes[0]
    assert choose(fakes, Hint(replica=0), 3, 2) is None  # full, and nobody else has it
    for fake in fakes:
        fake.in_flight = 8
    assert choose(fakes, Hint(), 8, 2) is None


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        (b"{", Hint()),
        (b"[1]", Hint()),
        (b"[" * 100_000, Hint()),
        (b'{"voice": "default"}', Hint()),
        (b'{"voice": "slt"}', Hint("slt")),
        (b'{"voice": {"id": "slt"}}', Hint("slt")),
        (b'{"speakers": ["slt", "rms"]}', Hint("slt rms")),
        (b'{"audio": {"voice": "awb"}}', Hint("awb")),
        (b'{"messages": [{"audio": {"id": "audio_3_abc"}}]}', Hint(replica=3)),
        (b'{"messages": [{"audio": {"id": "audio_abc"}}, 7]}', Hint()),
    ],
)
def test_requests_tell_where_they_belong(body: bytes, hint: Hint) -> None:
    assert hint_of(body) == hint


def test_recordings_are_told_apart() -> None:
    one, other = (hint_of(json.dumps({"ref_audio": data}).encode()) for data in ("AAAA", "BBBB"))
    assert one.voice and other.voice and one != other


def test_metrics_are_labelled() -> None:
    text = '# HELP a_total A.\n# TYPE a_total counter\na_total{{x="1"}} {}.0\n'
    families = list(
        text_string_to_metric_families(merged({0: text.format(3), 1: text.format(4)}).decode())
    )
    assert len(families) == 1
    found = {sample.labels["replica"]: sample.value for sample in families[0].samples}
    assert found == {"0": 3.0, "1": 4.0}


def test_the_front_checks_before_it_chooses() -> None:
    fleet = Fleet(["cpu"], [], places=2, max_batch=1)  # never started
    front = create_front(fleet, ServerSettings(api_keys=("key",), max_body_bytes=1000))
    client = TestClient(front, base_url="http://front")  # its lifespan does not run
    assert client.post("/v1/audio/speech", json=BODY).status_code == 401
    key = {"Authorization": "Bearer key"}
    answer = client.post("/v1/audio/speech", json=BODY, headers=key)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
    assert answer.headers["retry-after"] == "2"
    assert client.post("/v1/audio/speech", content=b"x" * 2000, headers=key).status_code == 413
    foreign = {**key, "Origin": "http://elsewhere"}
    assert client.post("/v1/audio/speech", json=BODY, headers=foreign).status_code == 403
    assert client.get("/metrics").status_code == 401
    assert client.get("/healthz").json()["replicas"][0]["state"] == "starting"
    assert client.get("/readyz").status_code == 503
    with client.websocket_connect("/v1/audio/speech/stream") as session:
        session.send_json({"type": "session.start", "api_key": "another"})
        assert session.receive_json()["error"]["code"] == "invalid_api_key"
    with client.websocket_connect("/v1/audio/speech/stream") as session:
        session.send_json({"type": "session.start", "api_key": "key"})
        assert session.receive_json()["error"]["code"] == "not_ready"


def test_a_full_fleet_still_tells_its_state() -> None:
    fleet = Fleet(["cpu", "cpu"], [], places=2, max_batch=1)
    for replica in fleet.replicas:
        replica.state, replica.in_flight = "ready", 2
    assert fleet.full
    assert fleet.choose(Hint(), (), fleet.places) is None
    assert fleet.choose(Hint()) is fleet.replicas[0]
    front = create_front(fleet, ServerSettings())
    client = TestClient(front, base_url="http://front")
    answer = client.post("/v1/audio/speech", json=BODY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "queue_full")
    assert answer.headers["retry-after"] == "1"
    assert client.get("/readyz").status_code == 503
    # Nobody listens at these replicas' sockets: taken out, both, and said so.
    answer = client.get("/v1/models")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "replica_failed")
    assert [one.state for one in fleet.replicas] == ["failed", "failed"]


def test_a_lone_replica_that_breaks_is_not_called_full() -> None:
    fleet = Fleet(["cpu"], [], places=2, max_batch=1)
    replica = fleet.replicas[0]
    replica.state = "ready"
    with socket.socket(socket.AF_UNIX) as silent:  # it listens, and hangs up without an answer
        silent.bind(str(replica.path))
        silent.listen()

        def hang_up() -> None:
            with contextlib.suppress(OSError):
                while True:
                    silent.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        client = TestClient(create_front(fleet, ServerSettings()), base_url="http://front")
        answer = client.post("/v1/audio/speech", json=BODY)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "replica_failed")
        assert answer.headers["retry-after"] == "1"
        assert (replica.state, replica.in_flight) == ("ready", 0)  # its watch decides
        text = client.get("/metrics").text
        assert 'higgs_front_refused_total{reason="replica_failed"} 1.0' in text
        silent.shutdown(socket.SHUT_RDWR)


def test_a_server_that_only_fails_says_so(random_model: Path) -> None:
    with Runtime.load(random_model, threads=1) as runtime:
        app = create_app(runtime, ServerSettings())
        client, service = TestClient(app), app.state.service
        for _ in range(5):
            service.note(InvalidRequestError("[input] expected text"))  # not its fault
        service.note(HiggsError("the engine failed"))
        service.note(HiggsError("the engine failed"))
        assert client.get("/healthz").status_code == 200
        service.note(HiggsError("the engine failed"))
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 503
        service.note(None)
        assert client.get("/healthz").status_code == 200


class Served:
    """A server of two replicas."""

    def __init__(self, *options: str, voices: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "higgs_rt", "serve", "--devices", "cpu,cpu"]
        command += ["--port", str(self.port), "--threads", "1", *options]
        environment = {**os.environ, "HIGGS_RT_VOICES": str(voices)}
        self.process = subprocess.Popen(command, env=environment)

    def replicas(self) -> list[dict[str, Any]]:
        with contextlib.suppress(httpx.TransportError):
            found: list[dict[str, Any]] = httpx.get(f"{self.url}/healthz").json()["replicas"]
            return found
        return []

    def wait(self, states: list[str], seconds: float = 40) -> None:
        deadline = time.monotonic() + seconds
        while [one["state"] for one in self.replicas()] != states:
            assert time.monotonic() < deadline, (states, self.replicas())
            assert self.process.poll() is None
            time.sleep(0.05)

    def children(self) -> dict[int, int]:
        """Process ids by replica."""
        found = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                parent = int(path.read_text().rsplit(")", 1)[1].split()[1])
                words = (path.parent / "cmdline").read_bytes().split(b"\0")
                if parent == self.process.pid and b"--replica" in words:
                    found[int(words[words.index(b"--replica") + 1])] = int(path.parent.name)
        return found

    def counts(self, name: str, **labels: str) -> dict[str, float]:
        """Values of a metric by replica."""
        text = httpx.get(f"{self.url}/metrics").text
        return {
            sample.labels["replica"]: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        }


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = Served("--max-queue", "64", voices=tmp_path_factory.mktemp("voices"))
    try:
        server.wait(["ready", "ready"])
        yield server
    finally:
        children = list(server.children().values())
        server.process.terminate()
        server.process.wait(30)
        assert len(children) == 2
        assert not any(Path(f"/proc/{child}").exists() for child in children)


def speak(url: str, **fields: Any) -> httpx.Response:
    return httpx.post(f"{url}/v1/audio/speech", json={**BODY, **fields}, timeout=60)


def speech_counts(served: Served) -> dict[str, float]:
    name = "higgs_http_requests_total"
    return served.counts(name, route="/v1/audio/speech", status="200")


def test_answers_are_those_of_one_process(served: Served) -> None:
    whole = speak(served.url, seed=1, stream=False)
    assert whole.status_code == 200
    assert {speak(served.url, seed=1).content for _ in range(4)} == {whole.content}
    assert speak(served.url, voice="nobody").status_code == 400
    assert httpx.get(f"{served.url}/v1/models").json()["data"][0]["id"] == "higgs-audio-v2"
    assert httpx.get(f"{served.url}/readyz").status_code == 200
    assert "/v1/audio/speech" in httpx.get(f"{served.url}/openapi.json").json()["paths"]
    assert "<html" in httpx.get(served.url).text
    assert httpx.get(f"{served.url}/nothing").status_code == 404


def test_large_bodies_for_nobody_harm_no_replica(served: Served) -> None:
    large = b"x" * (1 << 20)
    for _ in range(3):
        assert httpx.post(f"{served.url}/nothing", content=large).status_code == 404
        assert httpx.post(f"{served.url}/v1/models", content=large).status_code == 405
        assert httpx.post(f"{served.url}/v1/audio/speech", content=large).status_code == 400
        assert [one["state"] for one in served.replicas()] == ["ready", "ready"]
    endless = httpx.post(f"{served.url}/nothing", content=(large for _ in range(40)))
    assert endless.status_code == 413


def test_a_voice_stays_with_its_replica_and_load_is_spread(served: Served) -> None:
    before = speech_counts(served)
    for _ in range(4):
        assert speak(served.url, voice="slt").status_code == 200
    after = speech_counts(served)
    grown = [after.get(one, 0) - before.get(one, 0) for one in ("0", "1")]
    assert sorted(grown) == [0, 4]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: speak(served.url).status_code, range(12)))
    assert answers == [200] * 12
    spread = speech_counts(served)
    assert min(spread.get(one, 0) - after.get(one, 0) for one in ("0", "1")) >= 4


def test_reports_and_conversations_find_their_replica(served: Served) -> None:
    for number in range(4):
        answer = speak(served.url, voice=("slt", "rms", "awb", "kal16")[number])
        report = httpx.get(f"{served.url}/v1/requests/{answer.headers['x-request-id']}")
        assert report.status_code == 200
        assert report.json()["finish"] == "stop"
    first = {"role": "user", "content": "A bird."}
    chat: dict[str, Any] = {
        "model": "tts-1",
        "modalities": ["text", "audio"],
        "audio": {"voice": "default", "format": "wav"},
        "messages": [first],
    }
    url = f"{served.url}/v1/chat/completions"
    said = httpx.post(url, json=chat, timeout=60).json()["choices"][0]["message"]["audio"]["id"]
    again = {"role": "user", "content": "The old man opens the door."}
    chat["messages"] = [first, {"role": "assistant", "audio": {"id": said}}, again]
    for _ in range(3):
        assert httpx.post(url, json=chat, timeout=60).status_code == 200


def test_sockets_are_passed_on(served: Served) -> None:
    with connect(f"ws://127.0.0.1:{served.port}/v1/audio/speech/stream") as session:
        session.send(json.dumps({"type": "session.start", "voice": "slt"}))
        session.send(json.dumps({"type": "input_text.append", "text": "The sun rises."}))
        session.send(json.dumps({"type": "input_text.done"}))
        messages = list(session)
    assert json.loads(messages[0])["type"] == "session.started"
    assert json.loads(messages[-1])["type"] == "speech.done"
    assert sum(len(one) for one in messages if isinstance(one, bytes)) > 10_000


def test_who_leaves_cancels(served: Served) -> None:
    text = "The old man opens the door. " * 60
    body = {**BODY, "input": text, "first_chunk_frames": 1}
    with httpx.stream("POST", f"{served.url}/v1/audio/speech", json=body, timeout=60) as answer:
        next(answer.iter_raw(1))
    deadline = time.monotonic() + 10
    while sum(served.counts("higgs_in_flight").values()) or any(
        one["in_flight"] for one in served.replicas()
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_killed_replica_is_taken_out_and_comes_back(served: Served) -> None:
    answers: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            answers.append(speak(served.url, stream=False).status_code)

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        time.sleep(0.5)
        os.kill(served.children()[0], signal.SIGKILL)
        deadline = time.monotonic() + 20
        while served.replicas()[0]["state"] == "ready":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert httpx.get(f"{served.url}/readyz").status_code == 200
        seen = len(answers)
        while len(answers) < seen + 8:  # the other one goes on
            assert time.monotonic() < deadline
            time.sleep(0.02)
        served.wait(["ready", "ready"])
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert set(answers) == {200}  # those whose answer had not begun were passed to the other
    assert served.counts("higgs_replica_restarts_total") == {"0": 1.0, "1": 0.0}
    assert served.counts("higgs_replica_up") == {"0": 1.0, "1": 1.0}


def test_replicas_end_when_their_front_is_killed(tmp_path: Path) -> None:
    server = Served(voices=tmp_path)
    try:
        server.wait(["ready", "ready"])
        children = list(server.children().values())
        assert len(children) == 2
        server.process.kill()
        server.process.wait(30)
        deadline = time.monotonic() + 20
        while any(Path(f"/proc/{child}").exists() for child in children):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        server.process.kill()
        server.process.wait()
