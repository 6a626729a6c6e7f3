"""The routes of Gemini's door, below /v1beta and, for what other vendors do not have there, below /v1.

Source: https://ai.google.dev/api/models and https://ai.google.dev/gemini-api/docs/api-versions. Google's
SDK for Python calls /v1, the one for JavaScript /v1beta.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from headgate.core import ChatCore
from headgate_facade.endpoint import ChatEndpoint, CountEndpoint
from headgate_facade.gemini.door import COUNT, GENERATE, STREAM, GeminiDoor, model_and_verb
from headgate_facade.gemini.errors import JSON_UTF8, plain_envelope
from headgate_facade.gemini.models import GeminiModels
from headgate_facade.http import Receive, Scope, Send, call_context, send_body
from headgate_facade.settings import FacadeSettings

if TYPE_CHECKING:
    from headgate_facade.app import Facade


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
        door = GeminiDoor()
        generate = ChatEndpoint(core, settings, door)
        self._methods: dict[str, ASGIApp] = {
            GENERATE: generate,
            STREAM: generate,
            COUNT: CountEndpoint(core, settings, door),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        _, verb = model_and_verb(scope["path"])
        await self._methods.get(verb, _NOTHING)(scope, receive, send)


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


_NOTHING = _Nothing()
