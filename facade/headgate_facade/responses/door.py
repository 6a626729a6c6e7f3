"""POST /v1/responses and /v1/responses/input_tokens: OpenAI's newer door."""

from __future__ import annotations

from collections.abc import Callable

from headgate.errors import GatewayError
from headgate.v1 import chat_pb2
from headgate_facade.endpoint import CountingDoor
from headgate_facade.http import Scope
from headgate_facade.responses.body_in import ResponsesCall, read_responses
from headgate_facade.responses.errors import envelope
from headgate_facade.responses.places import body_path
from headgate_facade.responses.response_out import write_response
from headgate_facade.responses.stream_out import EventWriter


class ResponsesDoor(CountingDoor):
    """See `headgate_facade.endpoint.CountingDoor`.

    Args:
        clock: tells the time, in Unix seconds.
    """

    count_name = "input_tokens"

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock

    def read(self, scope: Scope, body: bytes) -> _Call:
        """Reads a request."""
        return _Call(read_responses(body), self._clock)

    def read_count(self, scope: Scope, body: bytes) -> _Call:
        """Reads a request to count.

        https://platform.openai.com/docs/api-reference/responses/input-tokens
        """
        return self.read(scope, body)

    def counted(self, tokens: int) -> bytes:
        """The body of a count."""
        return b'{"object":"response.input_tokens","input_tokens":%d}' % tokens

    def error(self, error: GatewayError, request_id: str) -> bytes:
        """The body of an error."""
        return envelope(error)


class _Call:
    __slots__ = ("_call", "_clock", "request", "stream")

    def __init__(self, call: ResponsesCall, clock: Callable[[], float]) -> None:
        self._call = call
        self._clock = clock
        self.request = call.request
        self.stream = call.stream

    def words(self, path: str) -> str:
        return body_path(path, self._call.message_paths, self._call.tool_paths)

    def answer(self, response: chat_pb2.ChatResponse) -> bytes:
        return write_response(response, self._call.echo, self._call.originals, self._clock())

    def writer(self) -> EventWriter:
        return EventWriter(self._call.echo, self._call.originals, self._clock)
