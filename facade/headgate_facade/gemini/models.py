"""GET /v1beta/models and /v1beta/models/{id}; the same at /v1 for callers with Google's key header.

Source: https://ai.google.dev/api/models.
"""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from headgate.core import CallContext, ChatCore
from headgate.errors import GatewayError, InvalidRequest
from headgate.v1 import model_service_pb2
from headgate_facade.failures import error_headers, in_words
from headgate_facade.gemini.errors import JSON_UTF8, envelope
from headgate_facade.gemini.places import Places, rest_path
from headgate_facade.http import Headers, call_context

_DEFAULT_PAGE_SIZE, _MAX_PAGE_SIZE = 50, 1000
_METHODS = ["generateContent", "streamGenerateContent", "countTokens"]


class GeminiModels:
    """See `headgate_facade.listing.ModelsDoor`."""

    def __init__(self, core: ChatCore) -> None:
        self._core = core

    def is_meant(self, request: Request) -> bool:
        """Whether this is a client of Google's: they send their keys in a way of their own."""
        if "authorization" in request.headers:
            return False
        return "x-goog-api-key" in request.headers or "key" in request.query_params

    async def list_models(self, request: Request) -> Response:
        """A page of the models, by `pageSize` and `pageToken`."""
        context = call_context(request.scope)
        try:
            asked = model_service_pb2.ListModelsRequest(
                page_size=_page_size(_query(request, "pageSize")),
                page_token=_query(request, "pageToken") or "",
            )
            page = await self._core.list_models(asked, context)
        except GatewayError as error:
            return _failed(error, context)
        body: dict[str, object] = {"models": [_model(model) for model in page.models]}
        if page.next_page_token:
            body["nextPageToken"] = page.next_page_token
        return _answer(body, context)

    async def get_model(self, model: str, request: Request) -> Response:
        """One model."""
        context = call_context(request.scope)
        try:
            found = await self._core.get_model(model_service_pb2.GetModelRequest(id=model), context)
        except GatewayError as error:
            return _failed(error, context)
        return _answer(_model(found), context)


def _query(request: Request, name: str) -> str | None:
    """A parameter in either of proto JSON's spellings."""
    snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in name)
    return request.query_params.get(name, request.query_params.get(snake))


def _page_size(given: str | None) -> int:
    if given is None or given == "0":
        return _DEFAULT_PAGE_SIZE
    if not (given.isascii() and given.isdecimal() and len(given) < 10):
        raise InvalidRequest.of("pageSize", f"must be a number from 1 to {_MAX_PAGE_SIZE}")
    return min(int(given), _MAX_PAGE_SIZE)


def _model(model: model_service_pb2.Model) -> dict[str, object]:
    body: dict[str, object] = {
        "name": f"models/{model.id}",
        "displayName": model.id,
        "description": f"Served by {', '.join(model.providers)}",
        "supportedGenerationMethods": _METHODS,
    }
    for field, name in (
        ("context_window_tokens", "inputTokenLimit"),
        ("max_output_tokens", "outputTokenLimit"),
        ("reasoning", "thinking"),
    ):
        if model.HasField(field):  # type: ignore[arg-type]
            body[name] = getattr(model, field)
    return body


def _answer(body: object, context: CallContext) -> Response:
    headers: Headers = [JSON_UTF8, (b"x-request-id", context.request_id.encode())]
    return _response(200, headers, msgspec.json.encode(body))


def _failed(error: GatewayError, context: CallContext) -> Response:
    error = in_words(error, lambda path: rest_path(path, Places()))
    headers = error_headers(error, context.request_id, JSON_UTF8)
    return _response(error.http_status, headers, envelope(error, context.request_id))


def _response(status: int, headers: Headers, body: bytes) -> Response:
    return Response(body, status, {name.decode(): value.decode() for name, value in headers})
