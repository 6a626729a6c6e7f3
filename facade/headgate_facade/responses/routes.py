"""The routes of the Responses door."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headgate.core import ChatCore
from headgate.errors import GatewayError, InternalError
from headgate.v1 import chat_pb2
from headgate_facade.endpoint import ChatEndpoint
from headgate_facade.http import (
    JSON,
    ClientGone,
    Receive,
    Scope,
    Send,
    answer_headers,
    call_context,
    cancelled_when_gone,
    read_body,
    send_body,
)
from headgate_facade.responses.door import ResponsesDoor
from headgate_facade.responses.errors import plain_envelope
from headgate_facade.settings import FacadeSettings

if TYPE_CHECKING:
    from headgate_facade.app import Facade

PATH = "/v1/responses"
# What OpenAI has under a response's id; all of it needs answers that are kept.
_OF_KEPT_ANSWERS = (
    ("/{id}", ["GET", "DELETE"]),
    ("/{id}/input_items", ["GET"]),
    ("/{id}/cancel", ["POST"]),
)
_KEPT_NOTHING = (
    "this gateway keeps no answers, so there is none under an id; send what the next turn needs"
    " in `input`"
)
_log = logging.getLogger(__name__)


def add_routes(app: Facade, core: ChatCore, settings: FacadeSettings) -> None:
    """Adds them."""
    app.add_hot_route(PATH, ResponsesEndpoint(core, settings), settings)
    app.add_hot_route(f"{PATH}/input_tokens", CountEndpoint(core, settings), settings)
    for path, methods in _OF_KEPT_ANSWERS:
        app.router.routes.append(Route(PATH + path, _kept_nothing, methods=methods))


class ResponsesEndpoint:
    """The endpoint of responses, a plain ASGI app."""

    def __init__(self, core: ChatCore, settings: FacadeSettings) -> None:
        self._core = core
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        endpoint = ChatEndpoint(self._core, self._settings, ResponsesDoor(time.time))
        await endpoint(scope, receive, send)


class CountEndpoint:
    """The endpoint that counts the tokens of a request, a plain ASGI app.

    https://platform.openai.com/docs/api-reference/responses/input-tokens
    """

    def __init__(self, core: ChatCore, settings: FacadeSettings) -> None:
        self._core = core
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        context = call_context(scope)
        door = ResponsesDoor(time.time)
        try:
            call = door.read(scope, await read_body(scope, receive, self._settings.body_limit))
            async with cancelled_when_gone(scope, receive):
                counted = await self._core.count_tokens(
                    chat_pb2.CountTokensRequest(request=call.request), context
                )
                warnings = list(counted.warnings)
                if counted.estimated:
                    why = "estimated, because the provider does not count"
                    warnings.append(chat_pb2.Warning(field="input_tokens", message=why))
                body = b'{"object":"response.input_tokens","input_tokens":%d}'
                headers = [JSON, *answer_headers(context, counted.served, warnings)]
                await send_body(send, 200, headers, body % counted.input_tokens)
            return
        except GatewayError as raised:
            error = raised
        except ClientGone:
            return
        except Exception:
            _log.exception("request %s failed", context.request_id)
            error = InternalError(f"internal error; the log has it under {context.request_id}")
        headers = door.error_headers(error, context.request_id)
        await send_body(send, error.http_status, headers, door.error(error, context.request_id))


async def _kept_nothing(request: Request) -> Response:
    context = call_context(request.scope)
    body = plain_envelope(f"{request.url.path}: {_KEPT_NOTHING}", "not_found")
    return Response(body, 404, {"x-request-id": context.request_id}, media_type="application/json")
