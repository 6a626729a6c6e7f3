"""The dialect of Ollama's own chat API, at `/api/chat`.

Source: https://docs.ollama.com/api/chat. `encode` makes requests (`messages` the conversation and the
tools), `answer` reads whole answers, `stream` streamed ones (`lines` their framing), `errors` failures.
"""

from __future__ import annotations

from collections.abc import Mapping

from headgate.errors import GatewayError
from headgate.v1 import chat_pb2
from headgate_server.providers.base import Endpoint, HttpCall, Target
from headgate_server.providers.ollama.answer import decode_answer
from headgate_server.providers.ollama.encode import NAME, encode_request
from headgate_server.providers.ollama.errors import decode_error, error_in_body
from headgate_server.providers.ollama.stream import OllamaStreamDecoder


class OllamaDialect:
    """Binds the translations together; see `headgate_server.providers.base.Dialect`."""

    name = NAME

    def __init__(self, max_event_bytes: int) -> None:
        self._max_line_bytes = max_event_bytes

    def encode(
        self, request: chat_pb2.ChatRequest, target: Target, endpoint: Endpoint, *, stream: bool
    ) -> HttpCall:
        """The upstream request."""
        return encode_request(request, target, endpoint, stream=stream)

    def decode(
        self, body: bytes, request: chat_pb2.ChatRequest, target: Target
    ) -> chat_pb2.ChatResponse:
        """The answer to a unary call."""
        return decode_answer(body, request)

    def stream_decoder(self, request: chat_pb2.ChatRequest, target: Target) -> OllamaStreamDecoder:
        """A decoder for one streamed answer."""
        return OllamaStreamDecoder(self._max_line_bytes, request)

    def error_in_body(self, body: bytes) -> GatewayError | None:
        """The error in a body that came with status 200."""
        return error_in_body(body)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
        """The error behind another status than 200."""
        return decode_error(status, headers, body)
