"""POST /v1beta/models/{model}:generateContent and :streamGenerateContent: Gemini's door."""

from __future__ import annotations

from urllib.parse import parse_qs

from headgate.errors import GatewayError, InvalidRequest
from headgate.v1 import chat_pb2
from headgate_facade.endpoint import CountingDoor
from headgate_facade.failures import error_headers
from headgate_facade.gemini.content_out import View, write_response
from headgate_facade.gemini.errors import JSON_UTF8, envelope
from headgate_facade.gemini.places import rest_path
from headgate_facade.gemini.request_in import Asked, read_count, read_generate
from headgate_facade.gemini.stream_out import ChunkWriter
from headgate_facade.http import Headers, Scope

GENERATE = "generateContent"
STREAM = "streamGenerateContent"
COUNT = "countTokens"


def model_and_verb(path: str) -> tuple[str, str]:
    """What a path names: ``/v1beta/models/a/b:c:countTokens`` is model ``a/b:c``, verb ``countTokens``.

    The path is percent-decoded. A model's name may hold slashes and colons; the last colon is the verb's.
    """
    name, _, verb = path.partition("/models/")[2].rstrip("/").rpartition(":")
    return name, verb


class GeminiDoor(CountingDoor):
    """See `headgate_facade.endpoint.CountingDoor`."""

    count_name = "totalTokens"

    def read(self, scope: Scope, body: bytes) -> GeminiCall:
        """Reads a request."""
        model, verb = model_and_verb(scope["path"])
        sse = _wants_events(scope["query_string"])
        return GeminiCall(read_generate(body, model), stream=verb == STREAM, sse=sse)

    def read_count(self, scope: Scope, body: bytes) -> GeminiCall:
        """Reads a request to count."""
        model, _ = model_and_verb(scope["path"])
        return GeminiCall(read_count(body, model), stream=False, sse=False)

    def counted(self, tokens: int) -> bytes:
        """The body of a count."""
        return b'{"totalTokens":%d}' % tokens

    def error(self, error: GatewayError, request_id: str) -> bytes:
        """The body of an error."""
        return envelope(error, request_id)

    def error_headers(self, error: GatewayError, request_id: str) -> Headers:
        """The headers of an error."""
        return error_headers(error, request_id, JSON_UTF8)


class GeminiCall:
    """See `headgate_facade.endpoint.Call`."""

    __slots__ = ("_asked", "_sse", "request", "stream")

    def __init__(self, asked: Asked, *, stream: bool, sse: bool) -> None:
        self._asked = asked
        self._sse = sse
        self.request = asked.request
        self.stream = stream

    def words(self, path: str) -> str:
        """A field path as a path into the body."""
        return rest_path(path, self._asked.places)

    def answer(self, response: chat_pb2.ChatResponse) -> bytes:
        """The body of a whole answer."""
        return write_response(response, self._view())

    def writer(self) -> ChunkWriter:
        """A writer for a streamed answer."""
        return ChunkWriter(self._view(), sse=self._sse)

    def _view(self) -> View:
        return View(self._asked.include_thoughts, self._asked.one_word)


def _wants_events(query: bytes) -> bool:
    """Whether `alt=sse` was asked for. Raises `InvalidRequest` for forms that there are not."""
    if b"alt=" not in query:
        return False
    alt = parse_qs(query.decode("latin-1")).get("alt", ["json"])[-1]
    if alt not in ("json", "sse"):
        raise InvalidRequest.of("alt", f"must be json or sse, not {alt[:32]!r}")
    return alt == "sse"
