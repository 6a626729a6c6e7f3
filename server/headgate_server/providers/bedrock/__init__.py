"""The dialect of Amazon Bedrock's Converse API, which is one for all of its models.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html, and beside it
API_runtime_ConverseStream and API_runtime_CountTokens. `encode` makes requests, `answer` reads whole
answers, `stream` reads streamed ones in the framing of `eventstream`, `errors` reads failures.
Credentials are not its business: a call gets its signature when it is sent.
"""

from __future__ import annotations

from collections.abc import Mapping

from headgate.errors import GatewayError
from headgate.v1 import chat_pb2
from headgate_server.providers.base import Endpoint, HttpCall, Target
from headgate_server.providers.bedrock.answer import decode_answer, decode_count
from headgate_server.providers.bedrock.encode import encode_count, encode_request
from headgate_server.providers.bedrock.errors import decode_error, error_in_body
from headgate_server.providers.bedrock.stream import BedrockStreamDecoder


class BedrockDialect:
    """Binds the translations together; see `headgate_server.providers.base.Dialect`."""

    name = "bedrock"

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
        return decode_answer(body, target)

    def stream_decoder(self, request: chat_pb2.ChatRequest, target: Target) -> BedrockStreamDecoder:
        """A decoder for one streamed answer."""
        return BedrockStreamDecoder(self._max_event_bytes, target)

    def error_in_body(self, body: bytes) -> GatewayError | None:
        """The error in a body that came with status 200."""
        return error_in_body(body)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
        """The error behind another status than 200."""
        return decode_error(status, headers, body)

    def encode_count(
        self, request: chat_pb2.ChatRequest, target: Target, endpoint: Endpoint
    ) -> HttpCall | None:
        """The upstream request that counts the prompt's tokens; None if it does not for this model."""
        return encode_count(request, target, endpoint)

    def decode_count(self, body: bytes) -> int:
        """The number of the prompt's tokens."""
        return decode_count(body)
