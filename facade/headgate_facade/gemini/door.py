"""POST /v1beta/models/{model}:generateContent and :streamGenerateContent: Gemini's door."""

from __future__ import annotations

from urllib.parse import parse_qs

from headgate.errors import GatewayError, InvalidRequest
from headgate.v1 import chat_pb2
from headgate_facade.gemini.content_out import View, write_response
from headgate_facade.gemini.errors import envelope, error_headers
from headgate_facade.gemini.places import Places
from headgate_facade.gemini.request_in import Asked, read_generate
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


class GeminiDoor:
    """See `headgate_facade.endpoint.Door`. One for each request: it knows where its parts stand."""

    __slots__ = ("_places",)

    def __init__(self) -> None:
        self._places: Places | None = None

    def read(self, scope: Scope, body: bytes) -> GeminiCall:
        """Reads a request."""
        model, verb = model_and_verb(scope["path"])
        sse = _wants_events(scope["query_string"])
        places = Places()
        asked = read_generate(body, model, places)
        # Only now: what the reading itself finds fault with is named as in the body already.
        self._places = places
        return GeminiCall(asked, stream=verb == STREAM, sse=sse, places=places)

    def error(self, error: GatewayError, request_id: str) -> bytes:
        """The body of an error."""
        return envelope(error, request_id, self._places)

    def error_headers(self, error: GatewayError, request_id: str) -> Headers:
        """The headers of an error."""
        return error_headers(error, request_id)


class GeminiCall:
    """See `headgate_facade.endpoint.Call`."""

    __slots__ = ("_asked", "_places", "_sse", "request", "stream")

    def __init__(self, asked: Asked, *, stream: bool, sse: bool, places: Places) -> None:
        self._asked = asked
        self._sse = sse
        self._places = places
        self.request = asked.request
        self.stream = stream

    def answer(self, response: chat_pb2.ChatResponse) -> bytes:
        """The body of a whole answer."""
        return write_response(response, self._view())

    def writer(self) -> ChunkWriter:
        """A writer for a streamed answer."""
        return ChunkWriter(self._view(), sse=self._sse, places=self._places)

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
