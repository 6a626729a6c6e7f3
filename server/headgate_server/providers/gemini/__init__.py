"""The generateContent dialect: the Gemini API, and Gemini on Vertex AI.

Sources: https://ai.google.dev/api/generate-content and
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference. The target's kind tells
the two apart; they differ in addresses, and in a few rules that are marked where they hold.

`encode` makes requests (`messages`, `media`, `tools`, `thinking`, `address`), `stream` reads answers,
whole and streamed (`candidate`, `answer`, `grounding`, `calls`), `errors` reads failures.
"""

from __future__ import annotations

from collections.abc import Mapping

from headgate.errors import GatewayError
from headgate.v1 import chat_pb2
from headgate_server.providers.base import Endpoint, HttpCall, Target
from headgate_server.providers.gemini.answer import decode_count
from headgate_server.providers.gemini.encode import DIALECT, encode_count, encode_request
from headgate_server.providers.gemini.errors import decode_error, error_in_body
from headgate_server.providers.gemini.stream import GeminiStreamDecoder, decode_answer


class GeminiDialect:
    """Binds the translations together; see `headgate_server.providers.base`, also for counting."""

    name = DIALECT

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

    def stream_decoder(self, request: chat_pb2.ChatRequest, target: Target) -> GeminiStreamDecoder:
        """A decoder for one streamed answer."""
        return GeminiStreamDecoder(self._max_event_bytes)

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
