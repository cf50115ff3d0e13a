"""One process for each device, started, watched, taken out when it fails, and started again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from higgs_rt.errors import InvalidRequestError
from higgs_rt.server.relay import ReplicaError, fetch
from higgs_rt.server.routing import Hint, State, choose

logger = logging.getLogger("higgs_rt.server")

KEYS_VARIABLE = "HIGGS_RT_API_KEYS"
_HEALTH_PERIOD = 0.5  # seconds between looks
_HEALTH_TIMEOUT = 5.0
_FAILURES = 3  # looks in a row without a healthy answer
_STARTUP = 900.0  # seconds until a new one must answer
_LONGEST_PAUSE = 30.0  # before a replica that keeps failing is started again


def parse_devices(text: str) -> list[str]:
    """`0,1` or `cuda:0,cuda:1` or `cpu,cpu` as devices of the runtime."""
    devices = []
    for part in (piece.strip() for piece in text.split(",")):
        device = f"cuda:{part}" if part.isdecimal() else part
        number = device.removeprefix("cuda:")
        if device != "cpu" and not (device.startswith("cuda:") and number.isdecimal()):
            raise InvalidRequestError(
                f"[devices] expected GPUs by number, cuda:N or cpu, with commas, got {part!r}"
            )
        devices.append(device)
    gpus = [device for device in devices if device != "cpu"]
    if len(set(gpus)) != len(gpus):
        raise InvalidRequestError(f"[devices] expected each GPU once, got {text}")
    return devices


def stop_with_parent() -> None:
    """End this process, as by SIGTERM, when the one that holds its standard input is gone."""

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 64):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True, name="parent").start()


class Replica:
    """One process with one runtime, behind a socket file."""

    def __init__(self, index: int, device: str, path: Path) -> None:
        self.index = index
        self.device = device
        self.path = path
        self.state: State = "starting"
        self.in_flight = 0
        self.restarts = 0
        self.process: asyncio.subprocess.Process | None = None
        self.reason = ""  # why it was taken out last

    def summary(self) -> dict[str, str | int]:
        """For /healthz and /readyz."""
        return {
            "replica": self.index,
            "device": self.device,
            "state": self.state,
            "in_flight": self.in_flight,
            "restarts": self.restarts,
        }

    def fail(self, reason: str) -> None:
        """Take it out of the choice; the watch decides what becomes of it."""
        if self.state in ("ready", "starting"):
            logger.warning("replica %d (%s) is taken out: %s", self.index, self.device, reason)
            self.state, self.reason = "failed", reason


class Fleet:
    """The replicas of one server."""

    def __init__(
        self, devices: Sequence[str], arguments: Sequence[str], *, places: int, max_batch: int
    ) -> None:
        """arguments: of `higgs-rt serve` for each. places: requests at a time of one replica."""
        self._folder = Path(tempfile.mkdtemp(prefix="higgs-rt-"))  # nobody else may enter
        self._arguments = list(arguments)
        self._watches: list[asyncio.Task[None]] = []
        self._closing = False
        self.places = places
        # A voice stays where it is known until a quarter of a batch more runs there.
        self.slack = max(2, max_batch // 4)
        self.replicas = [
            Replica(index, device, self._folder / f"{index}.sock")
            for index, device in enumerate(devices)
        ]

    async def start(self) -> None:
        """Start all; returns at once."""
        self._watches = [asyncio.create_task(self._watch(one)) for one in self.replicas]

    async def close(self, seconds: float = 15.0) -> None:
        """Let all end what they do, for at most `seconds`."""
        self._closing = True
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        await asyncio.gather(*(self._end(one, seconds) for one in self.replicas))
        shutil.rmtree(self._folder, ignore_errors=True)

    def choose(
        self, hint: Hint, without: Sequence[int] = (), places: int | None = None
    ) -> Replica | None:
        """The replica for a request (see routing); `places` None: for one that needs no place."""
        limit = sys.maxsize if places is None else places
        return choose(self.replicas, hint, limit, self.slack, without)

    @property
    def ready(self) -> list[Replica]:
        """Those that answer."""
        return [one for one in self.replicas if one.state == "ready"]

    @property
    def full(self) -> bool:
        """Whether no replica would take one more request."""
        return all(one.in_flight >= self.places for one in self.ready)

    async def _watch(self, replica: Replica) -> None:
        pause = 1.0
        while True:
            begun = time.monotonic()
            try:
                await self._run(replica)
            except Exception as error:
                replica.fail(str(error))
            await self._end(replica, 0.0)
            replica.restarts += 1
            pause = 1.0 if time.monotonic() - begun > 60 else min(2 * pause, _LONGEST_PAUSE)
            await asyncio.sleep(pause)

    async def _run(self, replica: Replica) -> None:
        """Start it and look at it until it has to be taken out."""
        replica.path.unlink(missing_ok=True)
        replica.state = "starting"
        process = replica.process = await self._spawn(replica)
        failures, deadline = 0, time.monotonic() + _STARTUP
        while process.returncode is None:
            try:
                status, _ = await fetch(replica.path, "/healthz", _HEALTH_TIMEOUT)
                healthy, reason = status == 200, f"/healthz answers {status}"
            except ReplicaError as error:
                healthy, reason = False, str(error)
            if healthy:
                failures, deadline = 0, float("inf")
                if replica.state != "ready":
                    logger.info("replica %d (%s) is ready", replica.index, replica.device)
                    replica.state = "ready"
            else:
                failures += replica.state != "starting"
                if failures >= _FAILURES or time.monotonic() > deadline:
                    replica.fail(reason)
                    return
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(process.wait(), _HEALTH_PERIOD)
        replica.fail(f"its process ended with {process.returncode}")

    async def _spawn(self, replica: Replica) -> asyncio.subprocess.Process:
        command = [sys.executable, "-m", "higgs_rt", "serve", *self._arguments]
        command += ["--device", replica.device, "--uds", str(replica.path)]
        command += ["--replica", str(replica.index)]
        environment = {key: value for key, value in os.environ.items() if key != KEYS_VARIABLE}
        # Its standard input ends with this process, however that ends.
        return await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, env=environment
        )

    async def _end(self, replica: Replica, seconds: float) -> None:
        process = replica.process
        if self._closing:
            replica.state = "stopped"
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate() if seconds > 0 else process.kill()
        try:
            await asyncio.wait_for(process.wait(), max(seconds, 5.0))
        except asyncio.TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
