"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's door.

Owns what Anthropic's HTTP has besides its bodies: the betas in a header, and the header `request-id`.
"""

from __future__ import annotations

from headgate.errors import GatewayError
from headgate.v1 import chat_pb2
from headgate_facade.anthropic.errors import envelope
from headgate_facade.anthropic.messages_in import Asked, read_messages
from headgate_facade.anthropic.messages_out import write_message
from headgate_facade.anthropic.places import body_path
from headgate_facade.anthropic.stream_out import MessageWriter
from headgate_facade.endpoint import CountingDoor
from headgate_facade.http import Scope


class MessagesDoor(CountingDoor):
    """See `headgate_facade.endpoint.CountingDoor`."""

    id_header = b"request-id"  # where Anthropic's SDKs look for it
    count_name = "input_tokens"

    def read(self, scope: Scope, body: bytes) -> MessagesCall:
        """Reads a request."""
        return MessagesCall(read_messages(body, betas_of(scope)))

    def read_count(self, scope: Scope, body: bytes) -> MessagesCall:
        """Reads a request to count."""
        return MessagesCall(read_messages(body, betas_of(scope), counting=True))

    def counted(self, tokens: int) -> bytes:
        """The body of a count."""
        return b'{"input_tokens":%d}' % tokens

    def error(self, error: GatewayError, request_id: str) -> bytes:
        """The body of an error."""
        return envelope(error, request_id)


class MessagesCall:
    """See `headgate_facade.endpoint.Call`."""

    __slots__ = ("_places", "request", "stream")

    def __init__(self, asked: Asked) -> None:
        self.request = asked.request
        self.stream = asked.stream
        self._places = asked.places

    def words(self, path: str) -> str:
        """A field path as a path into the body."""
        return body_path(path, self._places)

    def answer(self, response: chat_pb2.ChatResponse) -> bytes:
        """The body of a whole answer."""
        return write_message(response)

    def writer(self) -> MessageWriter:
        """A writer for a streamed answer."""
        return MessageWriter()


def betas_of(scope: Scope) -> list[str]:
    """The features in test that the caller asks for.

    https://platform.claude.com/docs/en/api/beta-headers
    """
    given = b",".join(value for name, value in scope["headers"] if name == b"anthropic-beta")
    names = (name.strip() for name in given.decode("latin-1").split(","))
    return [name for name in names if name]
