"""Requests and connections of the fake upstream: what came in, and what a step may do about it.

Owns the sockets and just enough HTTP/1.1 to read a request. Decides nothing about answers.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, cast

PATIENCE = 60.0  # the longest hang, in seconds
MAX_REQUEST = 256 << 20

# What a body is made of: bytes, a pause in seconds, or an event that the test sets to let it go on.
Piece = bytes | float | asyncio.Event
# complete: as HTTP wants it. hang: silence. fin, rst: the connection ends there.
Ending = Literal["complete", "hang", "fin", "rst"]


class Headers(Mapping[str, str]):
    """Header fields by any spelling of their names; repeated ones are joined with commas."""

    def __init__(self, raw: Iterable[tuple[str, str]]) -> None:
        self.raw = list(raw)
        self._joined: dict[str, str] = {}
        for name, value in self.raw:
            key = name.lower()
            self._joined[key] = f"{self._joined[key]}, {value}" if key in self._joined else value

    def __getitem__(self, name: str) -> str:
        return self._joined[name.lower()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._joined

    def __iter__(self) -> Iterator[str]:
        return iter(self._joined)

    def __len__(self) -> int:
        return len(self._joined)

    def __repr__(self) -> str:
        return f"Headers({self.raw!r})"


@dataclass(eq=False)
class Record:
    """One request, and what became of its connection and answer."""

    method: str
    path: str  # with the query
    headers: Headers
    body: bytes
    connection: int  # which connection, from 0: equal numbers mean that one was reused
    received_at: float = field(default_factory=time.monotonic)
    sent: int = 0  # bytes of the answer that the kernel took
    finished: bool = False  # the whole answer was written
    closed_at: float | None = None  # when the peer closed the connection, before we did
    _closed: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    _finished: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    async def wait_closed(self, within: float = 5.0) -> float:
        """Wait until the peer closes; the monotonic time of it."""
        await asyncio.wait_for(self._closed.wait(), within)
        assert self.closed_at is not None
        return self.closed_at

    async def wait_finished(self, within: float = 5.0) -> None:
        """Wait until the whole answer is written."""
        await asyncio.wait_for(self._finished.wait(), within)


# -- the connection -----------------------------------------------------------------------------


class Exchange:
    """What a step may do with one request's connection."""

    def __init__(self, connection: Connection, record: Record) -> None:
        self._connection = connection
        self.record = record

    async def write(self, data: bytes) -> None:
        """Write bytes as they are; returns when the kernel has them all."""
        await self._connection.write(data)
        self.record.sent += len(data)

    async def put(self, piece: Piece) -> None:
        """Write bytes, or wait as a pause says."""
        if isinstance(piece, bytes):
            await self.write(piece)
        elif isinstance(piece, asyncio.Event):
            await asyncio.wait_for(piece.wait(), PATIENCE)
        else:
            await asyncio.sleep(piece)

    async def end(self, ending: Ending) -> None:
        """Finish, hang, or break the connection."""
        if ending == "complete":
            self.record.finished = True
            self.record._finished.set()
        elif ending == "hang":
            await asyncio.sleep(PATIENCE)  # cancelled when the peer goes
            self._connection.transport.abort()
        elif ending == "fin":
            self._connection.transport.close()
        else:
            await asyncio.sleep(0.01)  # a reset may overtake what the peer has not read yet
            self._connection.reset()

    def close(self) -> None:
        """Close the connection after what was written."""
        self._connection.transport.close()


Step = Callable[[Exchange], Awaitable[None]]


class _Gone(Exception):
    """The connection is closed; ends its task quietly."""


class Owner(Protocol):
    """The server, as its connections see it."""

    failures: list[Exception]

    def adopt(self, connection: Connection) -> int: ...
    def drop(self, connection: Connection) -> None: ...
    def take(self, record: Record) -> Step: ...


class Connection(asyncio.Protocol):
    """One accepted connection: reads requests, hands each to its step, notes when the peer goes."""

    transport: asyncio.Transport
    task: asyncio.Task[None]

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.records: list[Record] = []
        self.buffer = bytearray()
        self.news = asyncio.Event()
        self.writable = asyncio.Event()
        self.writable.set()
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self.transport.set_write_buffer_limits(high=0)  # so that a drained write is with the kernel
        self.number = self.owner.adopt(self)
        self.task = asyncio.get_running_loop().create_task(self.serve())

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self.news.set()
        if len(self.buffer) > MAX_REQUEST:
            self.transport.abort()

    def eof_received(self) -> None:
        self.peer_closed()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self.peer_closed()
        self.task.cancel()
        self.lost.set()
        self.owner.drop(self)

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def peer_closed(self) -> None:
        now = time.monotonic()
        for record in self.records:
            if record.closed_at is None:
                record.closed_at = now
                record._closed.set()

    async def write(self, data: bytes) -> None:
        if self.transport.is_closing():
            raise _Gone
        self.transport.write(data)
        await asyncio.sleep(0)  # let other connections and the peer in this loop have their turn
        await self.writable.wait()

    def reset(self) -> None:
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    async def serve(self) -> None:
        try:
            while not self.transport.is_closing():
                record = await self.read_request()
                self.records.append(record)
                await self.owner.take(record)(Exchange(self, record))
                if record.headers.get("connection", "").lower() == "close":
                    self.transport.close()
        except _Gone:
            pass
        except Exception as failure:  # a step of a test failed: reported when the upstream ends
            self.owner.failures.append(failure)
            self.transport.abort()

    # -- HTTP/1.1 requests ----------------------------------------------------------------------

    async def read_request(self) -> Record:
        head = await self.until(b"\r\n\r\n")
        line, *rest = head.decode("latin-1").split("\r\n")
        method, path, _version = line.split(" ", 2)
        pairs = (field.split(":", 1) for field in rest if field)
        headers = Headers((name, value.strip()) for name, value in pairs)
        if "100-continue" in headers.get("expect", "").lower():
            await self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = b""
            while size := int((await self.until(b"\r\n")).split(b";")[0], 16):
                body += (await self.exactly(size + 2))[:-2]
            await self.until(b"\r\n")
        else:
            body = await self.exactly(int(headers.get("content-length", "0")))
        return Record(method, path, headers, body, self.number)

    async def until(self, mark: bytes) -> bytes:
        while (at := self.buffer.find(mark)) < 0:
            await self.more()
        return (await self.exactly(at + len(mark)))[: -len(mark)]

    async def exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            await self.more()
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data

    async def more(self) -> None:
        self.news.clear()
        await self.news.wait()
