"""POST /v1/responses: OpenAI's newer door."""

from __future__ import annotations

from collections.abc import Callable

from headgate.errors import GatewayError
from headgate.v1 import chat_pb2
from headgate_facade.http import Headers, Scope
from headgate_facade.responses.body_in import ResponsesCall, read_responses
from headgate_facade.responses.errors import Paths, envelope, error_headers
from headgate_facade.responses.response_out import write_response
from headgate_facade.responses.stream_out import EventWriter


class ResponsesDoor:
    """See `headgate_facade.endpoint.Door`. One for each request.

    It remembers from where in the body the messages came, which errors name: items and messages do not
    match one to one.

    Args:
        clock: tells the time, in Unix seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._paths: Paths | None = None

    def read(self, scope: Scope, body: bytes) -> _Call:
        """Reads a request."""
        call = read_responses(body)
        self._paths = paths = Paths(call.message_paths, call.tool_paths)
        return _Call(call, paths, self._clock)

    def error(self, error: GatewayError, request_id: str) -> bytes:
        """The body of an error."""
        return envelope(error, self._paths)

    def error_headers(self, error: GatewayError, request_id: str) -> Headers:
        """The headers of an error."""
        return error_headers(error, request_id)


class _Call:
    __slots__ = ("_call", "_clock", "_paths", "request", "stream")

    def __init__(self, call: ResponsesCall, paths: Paths, clock: Callable[[], float]) -> None:
        self._call = call
        self._paths = paths
        self._clock = clock
        self.request = call.request
        self.stream = call.stream

    def answer(self, response: chat_pb2.ChatResponse) -> bytes:
        return write_response(response, self._call.echo, self._call.originals, self._clock())

    def writer(self) -> EventWriter:
        return EventWriter(self._call.echo, self._call.originals, self._paths, self._clock)
