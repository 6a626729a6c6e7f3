"""The routes of the Responses door."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headgate.core import ChatCore
from headgate_facade.endpoint import ChatEndpoint, CountEndpoint
from headgate_facade.http import call_context
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


def add_routes(app: Facade, core: ChatCore, settings: FacadeSettings) -> None:
    """Adds them."""
    door = ResponsesDoor(time.time)
    app.add_hot_route(PATH, ChatEndpoint(core, settings, door), settings)
    app.add_hot_route(f"{PATH}/input_tokens", CountEndpoint(core, settings, door), settings)
    for path, methods in _OF_KEPT_ANSWERS:
        app.router.routes.append(Route(PATH + path, _kept_nothing, methods=methods))


async def _kept_nothing(request: Request) -> Response:
    context = call_context(request.scope)
    body = plain_envelope(f"{request.url.path}: {_KEPT_NOTHING}", "not_found")
    return Response(body, 404, {"x-request-id": context.request_id}, media_type="application/json")
