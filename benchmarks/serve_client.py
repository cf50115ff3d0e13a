"""Streams of speech through a server, as `higgs_bench` sends them to a runtime.

    python benchmarks/serve_client.py http://127.0.0.1:8000 --concurrency 64 --rounds 2

A process of its own that costs little: the standard library, one connection a client, requests
that are ready before the clock starts. Prints JSON: seconds to the first audio of every request,
underruns, seconds of audio, wall time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

FRAME_SECONDS = 0.04
SAMPLE_BYTES = 2
INDEX = "{INDEX}"


@dataclass
class Request:
    """One answer: times in seconds since its request was sent."""

    first: float = -1.0
    ended: float = -1.0
    samples_bytes: int = 0
    parts: int = 0
    underruns: int = 0
    status: int = 0


@dataclass
class Run:
    """What all clients did."""

    requests: list[Request] = field(default_factory=list)
    wall: float = 0.0


class Client(asyncio.Protocol):
    """A connection that takes chunked answers apart as they come."""

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._data = bytearray()
        self._left = -1  # of a chunk with its line end; -1: at a chunk's size
        self._in_head = True
        self._request = Request()
        self._sent = self._played = 0.0
        self._done: asyncio.Future[Request] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Kept for sending."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """An answer that was not complete is an error."""
        if self._done is not None and not self._done.done():
            self._done.set_exception(exc or ConnectionError("the server closed the connection"))

    async def ask(self, request: bytes) -> Request:
        """Send, and wait for the whole answer."""
        self._request, self._in_head, self._left = Request(), True, -1
        self._done = asyncio.get_running_loop().create_future()
        self._sent = self._played = time.perf_counter()
        self.transport.write(request)
        return await self._done

    def data_received(self, data: bytes) -> None:
        """Count what is complete."""
        now = time.perf_counter()
        self._data += data
        heard = 0
        if self._in_head and not self._head():
            return
        while not self._in_head:
            if self._left < 0:
                end = self._data.find(b"\r\n")
                if end < 0:
                    break
                size = int(self._data[:end], 16)
                del self._data[: end + 2]
                self._left = size + 2
                if size == 0:
                    self._hear(now, heard)
                    self._end(now)
                    return
            take = min(self._left, len(self._data))
            if take == 0:
                break
            heard += max(0, min(take, self._left - 2))
            self._left -= take
            del self._data[:take]
            if self._left == 0:
                self._left = -1
        self._hear(now, heard)

    def _head(self) -> bool:
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._data[:end]).lower()
        del self._data[: end + 4]
        self._in_head = False
        self._request.status = int(head.split(b" ", 2)[1])
        if self._request.status != 200 or b"chunked" not in head:
            raise ConnectionError(head.decode(errors="replace"))
        return True

    def _hear(self, now: float, size: int) -> None:
        if size == 0:
            return
        request = self._request
        if request.first < 0:
            request.first = now - self._sent
            self._played = now
        elif now > self._played:
            request.underruns += 1
            self._played = now
        self._played += size / SAMPLE_BYTES / self._rate
        request.samples_bytes += size
        request.parts += 1

    def _end(self, now: float) -> None:
        self._request.ended = now - self._sent
        assert self._done is not None
        self._done.set_result(self._request)


def frames_of(frames: int, index: int, count: int) -> int:
    """Frames of request `index` (from 1) of `count`, as `higgs_bench` varies them."""
    return frames if count == 1 else max(1, frames + int(frames * (index * 7 % 16 - 8) / 32))


def fields_of(body: str, index: int) -> dict[str, Any]:
    """The fields of one request."""
    fields: dict[str, Any] = json.loads(body.replace(INDEX, f"{index:06d}"))
    return fields


def post(host: str, body: dict[str, Any]) -> bytes:
    """A speech request as bytes."""
    data = json.dumps(body).encode()
    head = (
        f"POST /v1/audio/speech HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


async def load(url: str, bodies: list[bytes], clients: int, sample_rate: int) -> Run:
    """`clients` connections take the requests in order, each its next when its last has ended."""
    place = urlsplit(url)
    assert place.hostname is not None
    assert place.port is not None
    loop = asyncio.get_running_loop()
    connections = [
        (await loop.create_connection(lambda: Client(sample_rate), place.hostname, place.port))[1]
        for _ in range(clients)
    ]
    run, todo = Run(), iter(bodies)

    async def work(connection: Client) -> None:
        for body in todo:
            run.requests.append(await connection.ask(body))

    begin = time.perf_counter()
    await asyncio.gather(*(work(connection) for connection in connections))
    run.wall = time.perf_counter() - begin
    for connection in connections:
        connection.transport.close()
    return run


def main(arguments: list[str] | None = None) -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument(
        "--body",
        default="{}",
        help="JSON: fields of the requests; {INDEX} in it counts them.",
    )
    parser.add_argument("--sample-rate", type=int, default=24000)
    options = parser.parse_args(arguments)
    count = options.concurrency * options.rounds
    host = urlsplit(options.url).netloc
    bodies = []
    for index in range(1, count + 1):
        frames = frames_of(options.frames, index, count)
        body = {"model": "tts-1", "response_format": "pcm", "seed": index}
        # A little less, so that rounding does not add a frame.
        body |= {"max_seconds": (frames - 0.1) * FRAME_SECONDS, **fields_of(options.body, index)}
        bodies.append(post(host, body))
    run = asyncio.run(load(options.url, bodies, options.concurrency, options.sample_rate))
    json.dump(
        {
            "concurrency": options.concurrency,
            "requests": count,
            "wall_seconds": run.wall,
            "audio_seconds": sum(one.samples_bytes for one in run.requests)
            / SAMPLE_BYTES
            / options.sample_rate,
            "first_audio": [round(one.first, 5) for one in run.requests],
            "ended": [round(one.ended, 5) for one in run.requests],
            "underruns": sum(one.underruns for one in run.requests),
            "parts": sum(one.parts for one in run.requests),
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
