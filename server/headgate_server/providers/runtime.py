"""A configured provider at work: its dialect, its address, its connections, one attempt at a time.

`Provider` is what the executor knows. `HttpProvider` is nearly every provider; another gateway, which is
spoken to over gRPC, is in `remote`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from headgate.core import CallContext
from headgate.errors import DeadlineExceeded, InvalidRequest, Overloaded, UpstreamProtocol
from headgate.fold import Folder
from headgate.v1 import chat_pb2
from headgate.wire import MalformedJson
from headgate_server.keyring import Key, Keyring
from headgate_server.providers.base import Dialect, Endpoint, HttpCall, Target, TokenCounter
from headgate_server.providers.vendors import Vendor
from headgate_server.upstream import Upstream

_NOT_A_STREAM = ("application/json", "application/problem+json", "text/html", "application/xhtml")
# JSON that travels as text is read more than once; what was not too deep for the first reader may be
# so for the next one, who stands higher on the stack.
_DEEP = (RecursionError, MalformedJson)
_ASKED_TOO_DEEP = "JSON in the request is nested too deeply"
_TOO_DEEP = "the JSON of the upstream's answer is nested too deeply"

Batch = list[chat_pb2.ChatEvent]

Authorize = Callable[[HttpCall, float | None], Awaitable[HttpCall]]
"""Takes a call and the deadline (`time.monotonic`), returns it with credentials. Raises `GatewayError`:
`UpstreamRejectedUs` if there are none, `DeadlineExceeded` if getting them took too long."""


class Gate:
    """Lets so many calls through at a time, and so many more wait.

    For llama.cpp's server: it does not notice that a caller has gone who still stands in its queue.
    """

    def __init__(self, permits: int, max_waiting: int) -> None:
        self._permits = asyncio.Semaphore(permits)
        self._max_waiting = max_waiting
        self._waiting = 0

    @asynccontextmanager
    async def hold(self, deadline: float | None) -> AsyncGenerator[None, None]:
        """Waits for a place, at most until the deadline (`time.monotonic`)."""
        if self._waiting >= self._max_waiting:
            raise Overloaded(f"{self._waiting} calls wait for this model already", retry_after=1.0)
        self._waiting += 1
        left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        try:
            async with asyncio.timeout(left):
                await self._permits.acquire()
        except TimeoutError as error:
            raise DeadlineExceeded("the caller's deadline passed in the queue") from error
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._permits.release()


class Provider(Protocol):
    """One entry of the section `providers`, as the executor sees it.

    Attributes:
        name: in the configuration.
        kind: its kind there.
        vendor: facts of that kind.
        api_version: of its API, if the configuration names one.
        dialect_name: the wire format of its extras, as in `Served.dialect`.
        secrets: texts that must not reach a caller, whatever the upstream quotes.
        keyring: its keys, if it is reached with keys of the configuration.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def vendor(self) -> Vendor: ...  # noqa: D102
    @property
    def api_version(self) -> str | None: ...  # noqa: D102
    @property
    def dialect_name(self) -> str: ...  # noqa: D102
    @property
    def secrets(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def keyring(self) -> Keyring | None: ...  # noqa: D102

    async def complete(
        self,
        request: chat_pb2.ChatRequest,
        target: Target,
        context: CallContext,
        key: Key | None = None,
    ) -> chat_pb2.ChatResponse:
        """One attempt at a whole answer, with a key of the keyring. Raises `GatewayError`."""
        ...

    def stream(
        self,
        request: chat_pb2.ChatRequest,
        target: Target,
        context: CallContext,
        key: Key | None = None,
    ) -> AsyncGenerator[Batch, None]:
        """One attempt at a streamed answer; Started is the first event. Raises `GatewayError`."""
        ...

    async def count_tokens(
        self,
        request: chat_pb2.ChatRequest,
        target: Target,
        context: CallContext,
        key: Key | None = None,
    ) -> chat_pb2.CountTokensResponse | None:
        """The tokens of the prompt; None if the provider does not count. Raises `GatewayError`."""
        ...


@dataclass(frozen=True, slots=True)
class HttpProvider:
    """A provider that is spoken to over HTTP, in a dialect.

    Attributes:
        name, kind, vendor, api_version, secrets, keyring: see `Provider`.
        dialect: its wire format.
        upstream: its connections.
        endpoint: where it is now; raises `Overloaded` while it is nowhere (a model that loads).
        authorize: completes a call with credentials that change, such as a signature or a token
            that expires; None where the endpoint's headers do.
        always_stream: whole answers are asked for as streams, too, and folded; for servers that
            notice only on a stream that the caller has gone.
        gate: bounds the calls at the same time, where the server's own queue is a bad one.
    """

    name: str
    kind: str
    vendor: Vendor
    dialect: Dialect
    upstream: Upstream
    endpoint: Callable[[], Endpoint]
    authorize: Authorize | None = None
    always_stream: bool = False
    api_version: str | None = None
    gate: Gate | None = None
    secrets: tuple[str, ...] = ()
    keyring: Keyring | None = None

    @property
    def dialect_name(self) -> str:
        """The wire format."""
        return self.dialect.name

    async def complete(
        self,
        request: chat_pb2.ChatRequest,
        target: Target,
        context: CallContext,
        key: Key | None = None,
    ) -> chat_pb2.ChatResponse:
        """One attempt at a whole answer."""
        if self.always_stream:
            folder = Folder()
            async with aclosing(self.stream(request, target, context, key)) as batches:
                async for batch in batches:
                    for event in batch:
                        folder.add(event)
            return folder.response()
        call = self._encode(request, target, key, stream=False)
        if self.authorize is not None:
            call = await self.authorize(call, context.deadline)
        answer = await self.upstream.complete(call, context.deadline, target.timeouts)
        if answer.status != 200:
            raise self.dialect.decode_error(answer.status, answer.headers, answer.body)
        try:
            response = self.dialect.decode(answer.body, request, target)
        except _DEEP as error:
            raise UpstreamProtocol(_TOO_DEEP) from error
        response.warnings.extend(call.warnings)
        return response

    async def stream(
        self,
        request: chat_pb2.ChatRequest,
        target: Target,
        context: CallContext,
        key: Key | None = None,
    ) -> AsyncGenerator[Batch, None]:
        """One attempt at a streamed answer."""
        dialect = self.dialect
        call = self._encode(request, target, key, stream=True)
        if self.authorize is not None:
            call = await self.authorize(call, context.deadline)
        decoder = dialect.stream_decoder(request, target)
        warned = not call.warnings
        async with (
            self._hold(context.deadline),
            self.upstream.stream(call, context.deadline, target.timeouts) as answer,
        ):
            if answer.status != 200:
                body = await answer.read_error()
                raise dialect.decode_error(answer.status, answer.headers, body)
            form = answer.headers.get("content-type", "").lower()
            if form.startswith(_NOT_A_STREAM):
                found = dialect.error_in_body(await answer.read_error())
                raise found or UpstreamProtocol(
                    f"the upstream answered {form!r} to a stream request"
                )
            try:
                async for piece in answer:
                    batch = decoder.feed(piece)
                    if batch:
                        answer.progressed()
                        if not warned:
                            warned = True
                            batch[0].started.warnings.extend(call.warnings)
                        yield batch
                    if decoder.done:
                        break
                batch = decoder.finish()
            except _DEEP as error:
                raise UpstreamProtocol(_TOO_DEEP) from error
            if not warned:
                batch[0].started.warnings.extend(call.warnings)
            yield batch
            await answer.drain()

    async def count_tokens(
        self,
        request: chat_pb2.ChatRequest,
        target: Target,
        context: CallContext,
        key: Key | None = None,
    ) -> chat_pb2.CountTokensResponse | None:
        """The tokens of the prompt, where the dialect has a way to ask."""
        dialect = self.dialect
        if not isinstance(dialect, TokenCounter):
            return None
        try:
            endpoint = self.endpoint() if key is None else key.endpoint
            call = dialect.encode_count(request, target, endpoint)
        except _DEEP as error:
            raise InvalidRequest(_ASKED_TOO_DEEP) from error
        if call is None:
            return None
        if self.authorize is not None:
            call = await self.authorize(call, context.deadline)
        answer = await self.upstream.complete(call, context.deadline, target.timeouts)
        if answer.status != 200:
            raise dialect.decode_error(answer.status, answer.headers, answer.body)
        try:
            tokens = dialect.decode_count(answer.body)
        except _DEEP as error:
            raise UpstreamProtocol(_TOO_DEEP) from error
        if not 0 <= tokens < 2**63:
            raise UpstreamProtocol("the upstream sent a number of tokens out of range")
        return chat_pb2.CountTokensResponse(input_tokens=tokens, warnings=call.warnings)

    def _encode(
        self, request: chat_pb2.ChatRequest, target: Target, key: Key | None, *, stream: bool
    ) -> HttpCall:
        endpoint = self.endpoint() if key is None else key.endpoint
        try:
            return self.dialect.encode(request, target, endpoint, stream=stream)
        except _DEEP as error:
            raise InvalidRequest(_ASKED_TOO_DEEP) from error

    def _hold(self, deadline: float | None) -> AbstractAsyncContextManager[None]:
        """A place among the calls that may run at the same time."""
        return nullcontext() if self.gate is None else self.gate.hold(deadline)
