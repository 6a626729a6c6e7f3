"""The routes of Anthropic's door, and what the app must know about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from headgate.core import ChatCore
from headgate_facade.anthropic.door import MessagesDoor
from headgate_facade.anthropic.errors import plain_envelope
from headgate_facade.anthropic.models import AnthropicModels
from headgate_facade.endpoint import ChatEndpoint, CountEndpoint
from headgate_facade.settings import FacadeSettings

__all__ = ["add_routes", "models_door", "owns", "plain_envelope"]

if TYPE_CHECKING:
    from headgate_facade.app import Facade

PATH = "/v1/messages"


def add_routes(app: Facade, core: ChatCore, settings: FacadeSettings) -> None:
    """Adds them."""
    door = MessagesDoor()
    app.add_hot_route(PATH, ChatEndpoint(core, settings, door), settings)
    app.add_hot_route(f"{PATH}/count_tokens", CountEndpoint(core, settings, door), settings)
    # Claude Code looks here, without a key, for whether anybody is at home.
    app.router.routes.append(Route("/", _root, methods=["GET", "HEAD"]))


def models_door(core: ChatCore) -> AnthropicModels:
    """Anthropic's form of the models' routes, which belong to OpenAI's door."""
    return AnthropicModels(core)


def owns(path: str) -> bool:
    """Whether errors at the path go out in Anthropic's envelope."""
    return path == PATH or path.startswith(f"{PATH}/")


async def _root(request: Request) -> Response:
    return JSONResponse({"name": "headgate", "docs": "/docs"})
