"""The Anthropic Messages dialect, spoken by Anthropic and by vendors that offer its API.

Source: https://platform.claude.com/docs/en/api/messages/create (request, answer),
https://platform.claude.com/docs/en/build-with-claude/streaming (events),
https://platform.claude.com/docs/en/api/errors. `encode` makes requests, `answer` reads whole answers,
`stream` reads streamed ones, `errors` reads failures. What one family of models takes is data in
families.toml.
"""

from __future__ import annotations

from collections.abc import Mapping

from headgate.errors import GatewayError
from headgate.v1 import chat_pb2
from headgate_server.providers.anthropic.answer import decode_answer, decode_count
from headgate_server.providers.anthropic.encode import Heads, encode_count, encode_request
from headgate_server.providers.anthropic.errors import decode_error, error_in_body
from headgate_server.providers.anthropic.stream import AnthropicStreamDecoder
from headgate_server.providers.base import Endpoint, HttpCall, Target


class AnthropicDialect:
    """Binds the translations together; see `Dialect` and `TokenCounter` in `providers.base`."""

    name = "anthropic"

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._heads = Heads()

    def encode(
        self, request: chat_pb2.ChatRequest, target: Target, endpoint: Endpoint, *, stream: bool
    ) -> HttpCall:
        """The upstream request."""
        return encode_request(request, target, endpoint, self._heads, stream=stream)

    def decode(
        self, body: bytes, request: chat_pb2.ChatRequest, target: Target
    ) -> chat_pb2.ChatResponse:
        """The answer to a unary call."""
        return decode_answer(body)

    def stream_decoder(
        self, request: chat_pb2.ChatRequest, target: Target
    ) -> AnthropicStreamDecoder:
        """A decoder for one streamed answer."""
        return AnthropicStreamDecoder(self._max_event_bytes)

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
        return encode_count(request, target, endpoint, self._heads)

    def decode_count(self, body: bytes) -> int:
        """The number in the answer to it."""
        return decode_count(body)
