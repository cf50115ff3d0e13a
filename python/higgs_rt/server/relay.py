"""A request passed on to a replica's socket, and its answer as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import h11

Headers = list[tuple[bytes, bytes]]

_READ = 64 << 10
# Of one connection, not of the message; and what the front has checked already.
_OWN = frozenset(
    (
        b"authorization",
        b"connection",
        b"content-length",
        b"expect",
        b"keep-alive",
        b"origin",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
_NOT_RETURNED = frozenset(
    (b"connection", b"date", b"keep-alive", b"server", b"transfer-encoding", b"x-request-id")
)


class ReplicaError(ConnectionError):
    """The replica did not answer, or not to the end."""


class UnreachableError(ReplicaError):
    """Nobody answers at the replica's socket."""


class Exchange:
    """One request to a replica; `open` waits for the head of the answer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_READ)
        self._writer: asyncio.StreamWriter | None = None
        self.status = 0
        self.headers: Headers = []

    async def open(
        self, method: str, target: bytes, headers: Sequence[tuple[bytes, bytes]], body: bytes
    ) -> None:
        """Send and wait for the status; ReplicaError when there is none."""
        try:
            self._reader, self._writer = await asyncio.open_unix_connection(self._path)
        except OSError as error:
            raise UnreachableError(f"[replica] expected it to listen, got: {error}") from None
        try:
            kept = [(name, value) for name, value in headers if name.lower() not in _OWN]
            if all(name.lower() != b"host" for name, _ in kept):
                kept.append((b"host", b"replica"))
            kept.append((b"connection", b"close"))
            kept += [(b"content-length", str(len(body)).encode())]
            request = h11.Request(method=method, target=target, headers=kept)
            data = self._connection.send(request) or b""
            data += self._connection.send(h11.Data(data=body)) or b""
            self._writer.write(data + (self._connection.send(h11.EndOfMessage()) or b""))
            await self._writer.drain()
            head = await self._next()
        except (OSError, h11.ProtocolError) as error:
            raise ReplicaError(f"[replica] expected an answer, got: {error}") from None
        if not isinstance(head, h11.Response):
            raise ReplicaError(f"[replica] expected an answer, got {type(head).__name__}")
        self.status = head.status_code
        self.headers = [pair for pair in head.headers if pair[0] not in _NOT_RETURNED]

    async def body(self) -> AsyncIterator[bytes]:
        """The parts of the body; ReplicaError when it breaks off."""
        while True:
            try:
                event = await self._next()
            except (OSError, h11.ProtocolError) as error:
                raise ReplicaError(f"[replica] expected more, got: {error}") from None
            if isinstance(event, h11.EndOfMessage):
                return
            if isinstance(event, h11.Data):
                yield bytes(event.data)

    async def whole(self) -> bytes:
        """The body at once."""
        return b"".join([part async for part in self.body()])

    async def _next(self) -> h11.Event | type[h11.PAUSED]:
        while (event := self._connection.next_event()) is h11.NEED_DATA:
            self._connection.receive_data(await self._reader.read(_READ))
        return event  # type: ignore[return-value]  # NEED_DATA is gone

    def close(self) -> None:
        """Hang up: the replica cancels what is left."""
        if self._writer is not None:
            self._writer.close()


async def fetch(path: Path, target: str, timeout: float) -> tuple[int, bytes]:
    """Status and body of a GET; ReplicaError also when `timeout` seconds pass."""
    exchange = Exchange(path)

    async def ask() -> tuple[int, bytes]:
        await exchange.open("GET", target.encode(), [], b"")
        return exchange.status, await exchange.whole()

    try:
        return await asyncio.wait_for(ask(), timeout)
    except asyncio.TimeoutError:
        raise ReplicaError(f"[replica] expected an answer within {timeout} s, got none") from None
    finally:
        exchange.close()
