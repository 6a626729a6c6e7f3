"""The routes of Gemini's door, below /v1beta and, for what other vendors do not have there, below /v1.

Source: https://ai.google.dev/api/models and https://ai.google.dev/gemini-api/docs/api-versions. Google's
SDK for Python calls /v1, the one for JavaScript /v1beta.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headgate.core import CallContext, ChatCore
from headgate.errors import GatewayError, InternalError
from headgate.v1 import chat_pb2
from headgate_facade.endpoint import ChatEndpoint
from headgate_facade.gemini.door import COUNT, GENERATE, STREAM, GeminiDoor, model_and_verb
from headgate_facade.gemini.errors import JSON_UTF8, envelope, error_headers, plain_envelope
from headgate_facade.gemini.models import GeminiModels
from headgate_facade.gemini.places import Places
from headgate_facade.gemini.request_in import read_count
from headgate_facade.http import (
    ClientGone,
    Headers,
    Receive,
    Scope,
    Send,
    answer_headers,
    call_context,
    cancelled_when_gone,
    read_body,
    send_body,
)
from headgate_facade.settings import FacadeSettings

if TYPE_CHECKING:
    from headgate_facade.app import Facade

_log = logging.getLogger(__name__)


def add_routes(app: Facade, core: ChatCore, settings: FacadeSettings) -> None:
    """Adds them."""
    models, methods = GeminiModels(core), ModelMethods(core, settings)

    async def get_model(request: Request) -> Response:
        return await models.get_model(request.path_params["model"], request)

    for version in ("/v1beta", "/v1"):
        app.add_hot_prefix(f"{version}/models/", methods, settings)
    # At /v1/models it is one of several: see `models_door`.
    routes = app.router.routes
    routes.append(Route("/v1beta/models", models.list_models, methods=["GET"]))
    routes.append(Route("/v1beta/models/{model:path}", get_model, methods=["GET"]))
    routes.append(Route("/v1beta/{rest:path}", _Nothing()))


def models_door(core: ChatCore) -> GeminiModels:
    """Gemini's form of the models' routes at /v1, which belong to OpenAI's door."""
    return GeminiModels(core)


class ModelMethods:
    """POST {model}:{verb}, a plain ASGI app."""

    def __init__(self, core: ChatCore, settings: FacadeSettings) -> None:
        self._core = core
        self._settings = settings
        self._count = CountEndpoint(core, settings)
        self._nothing = _Nothing()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        _, verb = model_and_verb(scope["path"])
        if verb in (GENERATE, STREAM):
            await ChatEndpoint(self._core, self._settings, GeminiDoor())(scope, receive, send)
        elif verb == COUNT:
            await self._count(scope, receive, send)
        else:
            await self._nothing(scope, receive, send)


class CountEndpoint:
    """POST {model}:countTokens, a plain ASGI app."""

    def __init__(self, core: ChatCore, settings: FacadeSettings) -> None:
        self._core = core
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        context, places = call_context(scope), Places()
        known: Places | None = None
        try:
            body = await read_body(scope, receive, self._settings.body_limit)
            request = read_count(body, model_and_verb(scope["path"])[0], places)
            known = places
            async with cancelled_when_gone(scope, receive):
                counted = await self._core.count_tokens(request, context)
                headers = [JSON_UTF8, *_count_headers(counted, context)]
                await send_body(send, 200, headers, b'{"totalTokens":%d}' % counted.input_tokens)
        except GatewayError as error:
            await _send_error(send, error, context, known)
        except ClientGone:
            return
        except Exception:
            _log.exception("request %s failed", context.request_id)
            opaque = InternalError(f"internal error; the log has it under {context.request_id}")
            await _send_error(send, opaque, context, known)


async def _send_error(
    send: Send, error: GatewayError, context: CallContext, places: Places | None
) -> None:
    headers = error_headers(error, context.request_id)
    await send_body(send, error.http_status, headers, envelope(error, context.request_id, places))


def _count_headers(counted: chat_pb2.CountTokensResponse, context: CallContext) -> Headers:
    warnings = list(counted.warnings)
    if counted.estimated:
        message = "estimated, because the provider does not count"
        warnings.insert(0, chat_pb2.Warning(field="totalTokens", message=message))
    headers = answer_headers(context, counted.served, warnings)
    # Nobody served an estimate.
    facts = (b"x-headgate-provider", b"x-headgate-model", b"x-headgate-attempts")
    return [h for h in headers if h[0] not in facts or counted.HasField("served")]


class _Nothing:
    """What there is not, in Google's envelope; a plain ASGI app."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        message = (
            f"there is no {method} {path}; there are generateContent, streamGenerateContent, "
            "countTokens and the list of models, see /docs"
        )
        headers = [JSON_UTF8, (b"x-request-id", call_context(scope).request_id.encode())]
        await send_body(send, 404, headers, plain_envelope(404, message, "NOT_FOUND"))
