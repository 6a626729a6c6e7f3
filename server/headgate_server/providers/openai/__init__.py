"""The OpenAI Chat Completions dialect, spoken by OpenAI and by the vendors of vendors.toml.

Source: https://platform.openai.com/docs/api-reference/chat (request, answer, chunk objects, errors).
`encode` makes requests, `answer` reads whole answers, `stream` reads streamed ones, `errors` reads
failures, `completions` is the legacy API of bare texts. A vendor's deviation is data in vendors.toml, a
model family's in families.toml.
"""

from __future__ import annotations

from collections.abc import Mapping

from headgate.errors import GatewayError
from headgate.v1 import chat_pb2
from headgate_server.providers.base import Endpoint, HttpCall, Target
from headgate_server.providers.openai.answer import decode_answer
from headgate_server.providers.openai.completions import (
    completion_decoder,
    decode_completion,
    encode_completion,
)
from headgate_server.providers.openai.encode import encode_request
from headgate_server.providers.openai.errors import decode_error, error_in_body
from headgate_server.providers.openai.stream import OpenAIStreamDecoder
from headgate_server.providers.think_tags import tags_of


class OpenAIDialect:
    """Binds the four translations together; see `headgate_server.providers.base.Dialect`."""

    name = "openai"

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes

    def encode(
        self, request: chat_pb2.ChatRequest, target: Target, endpoint: Endpoint, *, stream: bool
    ) -> HttpCall:
        """The upstream request."""
        if request.HasField("text_completion"):
            return encode_completion(request, target, endpoint, stream=stream)
        return encode_request(request, target, endpoint, stream=stream)

    def decode(
        self, body: bytes, request: chat_pb2.ChatRequest, target: Target
    ) -> chat_pb2.ChatResponse:
        """The answer to a unary call."""
        if request.HasField("text_completion"):
            return decode_completion(body)
        return decode_answer(body, tags_of(request, target))

    def stream_decoder(self, request: chat_pb2.ChatRequest, target: Target) -> OpenAIStreamDecoder:
        """A decoder for one streamed answer."""
        if request.HasField("text_completion"):
            return completion_decoder(self._max_event_bytes, target.vendor, request)
        tags = tags_of(request, target)
        return OpenAIStreamDecoder(self._max_event_bytes, target.vendor, tags)

    def error_in_body(self, body: bytes) -> GatewayError | None:
        """The error in a body that came with status 200."""
        return error_in_body(body)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
        """The error behind another status than 200."""
        return decode_error(status, headers, body)
