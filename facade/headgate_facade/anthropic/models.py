"""GET /v1/models and /v1/models/{id} for callers that send `anthropic-version`.

Source: https://platform.claude.com/docs/en/api/models/list.
"""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from headgate.core import CallContext, ChatCore
from headgate.errors import GatewayError, InvalidRequest
from headgate.v1 import model_service_pb2
from headgate_facade.anthropic.errors import envelope
from headgate_facade.failures import error_headers
from headgate_facade.http import call_context
from headgate_facade.listing import every_model

_DEFAULT_LIMIT, _MAX_LIMIT = 20, 1000


class AnthropicModels:
    """See `headgate_facade.listing.ModelsDoor`."""

    def __init__(self, core: ChatCore) -> None:
        self._core = core

    def is_meant(self, request: Request) -> bool:
        """Whether this is a client of Anthropic's API: they all must send the header."""
        return "anthropic-version" in request.headers

    async def list_models(self, request: Request) -> Response:
        """A page of the models, by `limit` and `after_id` or `before_id`."""
        context = call_context(request.scope)
        try:
            models = await every_model(self._core, context)
            if not _wants_active(request):
                models = []
            page, has_more = _page(models, request)
        except GatewayError as error:
            return _failed(error, context)
        body = {
            "data": [_model_info(model) for model in page],
            "has_more": has_more,
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
        }
        return JSONResponse(body, headers=_headers(context))

    async def get_model(self, model: str, request: Request) -> Response:
        """One model."""
        context = call_context(request.scope)
        try:
            found = await self._core.get_model(model_service_pb2.GetModelRequest(id=model), context)
        except GatewayError as error:
            return _failed(error, context)
        return JSONResponse(_model_info(found), headers=_headers(context))


def _wants_active(request: Request) -> bool:
    """Models of a gateway's configuration are in use, all of them."""
    query = request.query_params
    asked = [*query.getlist("lifecycle"), *query.getlist("lifecycle[]")]
    return not asked or "active" in asked


def _page(
    models: list[model_service_pb2.Model], request: Request
) -> tuple[list[model_service_pb2.Model], bool]:
    """The models of the page, and whether there are more in its direction."""
    query = request.query_params
    limit = _limit(query.get("limit"))
    after, before = query.get("after_id"), query.get("before_id")
    if after and before:
        raise InvalidRequest.of("before_id", "cannot stand beside after_id; send one of them")
    if before:
        end = _place(models, before, "before_id")
        start = max(end - limit, 0)
        return models[start:end], start > 0
    start = _place(models, after, "after_id") + 1 if after else 0
    return models[start : start + limit], start + limit < len(models)


def _limit(given: str | None) -> int:
    if given is None:
        return _DEFAULT_LIMIT
    limit = int(given) if given.isascii() and given.isdecimal() and len(given) < 6 else 0
    if not 1 <= limit <= _MAX_LIMIT:
        raise InvalidRequest.of("limit", f"must be a number from 1 to {_MAX_LIMIT}")
    return limit


def _place(models: list[model_service_pb2.Model], wanted: str, field: str) -> int:
    for place, model in enumerate(models):
        if model.id == wanted:
            return place
    raise InvalidRequest.of(field, f"there is no model {json.dumps(wanted[:128])} to go on from")


def _model_info(model: model_service_pb2.Model) -> dict[str, Any]:
    def known(field: str) -> int | None:
        return getattr(model, field) if model.HasField(field) else None  # type: ignore[arg-type]

    return {
        "type": "model",
        "id": model.id,
        "display_name": model.id,
        "created_at": model.create_time.ToJsonString(),
        "lifecycle": "active",
        "max_input_tokens": known("context_window_tokens"),
        "max_tokens": known("max_output_tokens"),
    }


def _headers(context: CallContext) -> dict[str, str]:
    return {"x-request-id": context.request_id, "request-id": context.request_id}


def _failed(error: GatewayError, context: CallContext) -> Response:
    headers = {
        name.decode(): value.decode() for name, value in error_headers(error, context.request_id)
    }
    body = envelope(error, context.request_id)
    return Response(body, error.http_status, headers | _headers(context))
