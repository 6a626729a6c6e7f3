"""The dialect of OpenAI's Responses API, for models that live there only.

Source: https://platform.openai.com/docs/api-reference/responses. `encode` makes requests (`items` the
conversation, `tools` the tools), `answer` reads whole answers, `stream` streamed ones (`output` their
items), `errors` failures.
"""

from __future__ import annotations

from collections.abc import Mapping

from headgate.errors import GatewayError
from headgate.v1 import chat_pb2
from headgate_server.providers.base import Endpoint, HttpCall, Target
from headgate_server.providers.responses.answer import NAME, decode_answer, decode_count
from headgate_server.providers.responses.encode import encode_count, encode_request
from headgate_server.providers.responses.errors import decode_error, error_in_body
from headgate_server.providers.responses.stream import ResponsesStreamDecoder


class ResponsesDialect:
    """Binds the translations together; see `Dialect` and `TokenCounter` in `providers.base`."""

    name = NAME

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes

    def encode(
        self, request: chat_pb2.ChatRequest, target: Target, endpoint: Endpoint, *, stream: bool
    ) -> HttpCall:
        """The upstream request."""
        return encode_request(request, target, endpoint, stream=stream)

    def decode(
        self, body: bytes, request: chat_pb2.ChatRequest, target: Target
    ) -> chat_pb2.ChatResponse:
        """The answer to a unary call."""
        return decode_answer(body)

    def stream_decoder(
        self, request: chat_pb2.ChatRequest, target: Target
    ) -> ResponsesStreamDecoder:
        """A decoder for one streamed answer."""
        return ResponsesStreamDecoder(self._max_event_bytes)

    def error_in_body(self, body: bytes) -> GatewayError | None:
        """The error in a body that came with status 200."""
        return error_in_body(body)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
        """The error behind another status than 200."""
        return decode_error(status, headers, body)

    def encode_count(
        self, request: chat_pb2.ChatRequest, target: Target, endpoint: Endpoint
    ) -> HttpCall:
        """The upstream request that counts the prompt's tokens."""
        return encode_count(request, target, endpoint)

    def decode_count(self, body: bytes) -> int:
        """The number in the answer to it."""
        return decode_count(body)
