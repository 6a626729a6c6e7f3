"""POST /v1/chat/completions: OpenAI's door."""

from __future__ import annotations

from headgate.errors import GatewayError
from headgate.v1 import chat_pb2
from headgate_facade.endpoint import Door
from headgate_facade.http import Scope
from headgate_facade.openai.chat_in import ChatCall, read_chat
from headgate_facade.openai.chat_out import write_response
from headgate_facade.openai.chunks_out import ChunkWriter
from headgate_facade.openai.errors import envelope, rest_path


class ChatDoor(Door):
    """See `headgate_facade.endpoint.Door`.

    Args:
        reasoning_in_unary: whether whole answers carry `reasoning_content`.
    """

    def __init__(self, *, reasoning_in_unary: bool) -> None:
        self._reasoning_in_unary = reasoning_in_unary

    def read(self, scope: Scope, body: bytes) -> _Call:
        """Reads a request."""
        return _Call(read_chat(body), self._reasoning_in_unary)

    def error(self, error: GatewayError, request_id: str) -> bytes:
        """The body of an error."""
        return envelope(error)


class _Call:
    __slots__ = ("_call", "_reasoning_in_unary", "request", "stream")

    def __init__(self, call: ChatCall, reasoning_in_unary: bool) -> None:
        self._call = call
        self._reasoning_in_unary = reasoning_in_unary
        self.request = call.request
        self.stream = call.stream

    def words(self, path: str) -> str:
        return rest_path(path)

    def answer(self, response: chat_pb2.ChatResponse) -> bytes:
        return write_response(
            response,
            legacy_functions=self._call.legacy_functions,
            with_reasoning=self._reasoning_in_unary,
        )

    def writer(self) -> ChunkWriter:
        return ChunkWriter(
            include_usage=self._call.include_usage, legacy_functions=self._call.legacy_functions
        )
