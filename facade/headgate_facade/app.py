"""The facade: a FastAPI app in front of a `ChatCore`.

Owns the table of routes.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from headgate import __version__, metadata
from headgate.core import ChatCore, RouteCore
from headgate_facade import openapi
from headgate_facade.admin import admin_router
from headgate_facade.anthropic import routes as anthropic_routes
from headgate_facade.endpoint import ChatEndpoint
from headgate_facade.gemini import routes as gemini_routes
from headgate_facade.http import call_context
from headgate_facade.openai.chat import ChatDoor
from headgate_facade.openai.completions import CompletionsDoor
from headgate_facade.openai.errors import plain_envelope
from headgate_facade.openai.models import models_router
from headgate_facade.responses import routes as responses_routes
from headgate_facade.settings import FacadeSettings

_DESCRIPTION = "A gateway to large language models. Use it with any OpenAI SDK: set `base_url`."
_HEADERS = [
    metadata.REQUEST_ID,
    "request-id",
    metadata.PROVIDER,
    metadata.MODEL,
    metadata.ATTEMPTS,
    metadata.ROUTE,
    metadata.TRIED,
    metadata.WAITED,
    metadata.CACHE,
    metadata.REPEATED,
    metadata.WARNINGS,
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
]
# The page is one file, and reads /openapi.json.
_CSP = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Facade(FastAPI):
    """FastAPI with a short way around its middleware for the routes that take all the traffic.

    They are plain ASGI apps that answer everything themselves, their own defects included; what
    FastAPI's layers would add to each request is 35 µs. All other methods and paths go through them.
    """

    def add_hot_route(self, path: str, endpoint: ASGIApp, settings: FacadeSettings) -> None:
        """Serves POST at the path, and at the path with a slash behind."""
        if settings.cors_origins:
            endpoint = CORSMiddleware(endpoint, **_cors(settings))
        for spelling in (path, path + "/"):
            self._hot[spelling] = endpoint
            # Known to the router, too, which answers other methods with 405.
            self.router.routes.append(Route(spelling, endpoint, methods=["POST"]))

    def add_hot_prefix(self, prefix: str, endpoint: ASGIApp, settings: FacadeSettings) -> None:
        """Serves POST at every path that begins so, whose rest is the endpoint's business."""
        if settings.cors_origins:
            endpoint = CORSMiddleware(endpoint, **_cors(settings))
        self._hot_prefixes.append((prefix, endpoint))
        self.router.routes.append(Route(prefix + "{rest:path}", endpoint, methods=["POST"]))

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._hot: dict[str, ASGIApp] = {}
        self._hot_prefixes: list[tuple[str, ASGIApp]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        hot = self._hot_endpoint(scope.get("path", "")) if scope.get("method") == "POST" else None
        if hot is not None:
            await hot(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def _hot_endpoint(self, path: str) -> ASGIApp | None:
        endpoint = self._hot.get(path)
        if endpoint is None:
            for prefix, below in self._hot_prefixes:
                if path.startswith(prefix):
                    return below
        return endpoint


def _cors(settings: FacadeSettings) -> dict[str, Any]:
    return {
        "allow_origins": list(settings.cors_origins),
        "allow_credentials": settings.cors_allow_credentials,
        "allow_methods": ["GET", "POST"],
        "allow_headers": ["*"],
        "expose_headers": _HEADERS,
    }


def create_app(
    core: ChatCore, settings: FacadeSettings | None = None, routes: RouteCore | None = None
) -> FastAPI:
    """The app. It opens nothing and closes nothing: the core's owner does.

    Args:
        core: what answers.
        settings: None means the defaults.
        routes: what operators are told about routing; None: they are not, and /admin/v1 is not there.
    """
    settings = settings or FacadeSettings()
    app = Facade(
        title="Headgate",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,  # FastAPI's own pages load their scripts from elsewhere
        redoc_url=None,
        # A redirect names a host and a scheme that a proxy in front may have changed.
        redirect_slashes=False,
    )
    chat = ChatDoor(reasoning_in_unary=settings.reasoning_in_unary)
    app.add_hot_route("/v1/chat/completions", ChatEndpoint(core, settings, chat), settings)
    texts = ChatEndpoint(core, settings, CompletionsDoor())
    app.add_hot_route("/v1/completions", texts, settings)
    anthropic_routes.add_routes(app, core, settings)
    gemini_routes.add_routes(app, core, settings)
    responses_routes.add_routes(app, core, settings)
    app.include_router(
        models_router(core, [anthropic_routes.models_door(core), gemini_routes.models_door(core)])
    )
    if routes is not None:
        app.include_router(admin_router(routes, settings))
    _add_probes(app, core)
    _add_pages(app)
    _add_error_handlers(app)
    if settings.cors_origins:
        app.add_middleware(CORSMiddleware, **_cors(settings))
    openapi.install(app)
    return app


def _add_pages(app: FastAPI) -> None:
    page = resources.files(__package__).joinpath("docs.html").read_text("utf-8")

    @app.get("/docs", include_in_schema=False)
    @app.head("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page, headers={"content-security-policy": _CSP})


def _add_probes(app: FastAPI, core: ChatCore) -> None:
    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", tags=["probes"], summary="Whether the process is alive")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.head("/readyz", include_in_schema=False)
    @app.get(
        "/readyz",
        tags=["probes"],
        summary="Whether calls are taken",
        responses={503: {"description": "Not now: starting, draining, or the core is away."}},
    )
    async def readyz(response: Response) -> dict[str, str]:
        if await core.ready():
            return {"status": "ready"}
        response.status_code = 503
        return {"status": "not ready"}


def _add_error_handlers(app: FastAPI) -> None:
    """OpenAI's envelope also for what never reaches a route."""

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        path = request.url.path
        if error.status_code == 404:
            message, code = f"there is no {request.method} {path}; see /docs", "not_found"
        elif error.status_code == 405:
            message, code = (
                f"{path} does not take {request.method}; see /docs",
                "method_not_allowed",
            )
        else:
            message, code = str(error.detail), None
        return _plain(
            request, error.status_code, message, "invalid_request_error", code, error.headers
        )

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        return _plain(request, 400, f"{where}: {first['msg']}", "invalid_request_error")

    @app.exception_handler(Exception)
    async def defect(request: Request, error: Exception) -> Response:
        return _plain(request, 500, "internal error", "server_error", "internal")


def _plain(
    request: Request,
    status: int,
    message: str,
    kind: str,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    request_id = call_context(request.scope).request_id
    own = {metadata.REQUEST_ID: request_id}
    if anthropic_routes.owns(request.url.path):
        own["request-id"] = request_id
        body = anthropic_routes.plain_envelope(status, message, request_id)
    else:
        body = plain_envelope(message, kind, code)
    return Response(body, status, own | dict(headers or {}), media_type="application/json")
