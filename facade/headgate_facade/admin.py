"""POST /admin/v1/explain and GET /admin/v1/targets: what operators are told about routing.

A request is explained as /v1/chat/completions would take it: the same body, the same headers. Messages
come out in their plain form (`headgate.plain`), errors in OpenAI's envelope.
"""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from google.protobuf.message import Message
from pydantic import BaseModel, Field

from headgate.admin.v1 import route_service_pb2
from headgate.core import CallContext, RouteCore
from headgate.errors import GatewayError, InvalidRequest
from headgate.plain import plain
from headgate_facade.endpoint import UNFIT, unfit
from headgate_facade.failures import error_headers, in_words
from headgate_facade.http import ClientGone, call_context, read_body
from headgate_facade.openai.chat_in import read_chat
from headgate_facade.openai.errors import envelope, rest_path
from headgate_facade.settings import FacadeSettings


class Candidate(BaseModel):
    """A target, and why it stands where it does or is left out."""

    provider: str
    model: str
    reason: str


class Fallback(BaseModel):
    """A model behind the targets of a route."""

    model: str
    kind: str = Field(description="general, on_context_window or on_content_policy.")
    left_out: str = Field(description="Why it would not be tried; empty if it would.")


class Explanation(BaseModel):
    """Where a request would go."""

    model: str
    route: str = Field(description="The public model that serves it.")
    steps: list[str] = Field(description="Aliases, rules, canaries and shadows that had a say.")
    strategy: str
    candidates: list[Candidate] = Field(description="In the order in which they would be tried.")
    left_out: list[Candidate]
    fallbacks: list[Fallback]
    shadow: str
    estimated_input_tokens: int


class BenchedKey(BaseModel):
    """A key that is not used for now."""

    name: str
    fault: str
    remaining_seconds: float


class TargetState(BaseModel):
    """How a target is; null means no, or not known yet."""

    provider: str
    model: str
    routes: list[str] = Field(description="The public models that it serves.")
    breaker: Literal["closed", "open", "half_open"]
    opens_for_seconds: float | None = Field(description="How long the breaker stays open.")
    ejected_for_seconds: float | None
    cooling_for_seconds: float | None
    in_flight: int
    limit: int | None
    queued: int
    first_token_seconds: float | None
    total_seconds: float | None
    error_rate: float
    window_calls: int
    benched_keys: list[BenchedKey]


class Targets(BaseModel):
    """The targets, by provider and model."""

    targets: list[TargetState]


def admin_router(routes: RouteCore, settings: FacadeSettings) -> APIRouter:
    """The two routes."""
    router = APIRouter(prefix="/admin/v1", tags=["admin"])

    @router.post(
        "/explain",
        response_model=Explanation,
        summary="Say where a chat completion would go, and why",
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {"schema": {"$ref": "#/components/schemas/ChatBody"}}
                },
            }
        },
    )
    async def explain(
        request: Request,
        tenant: str | None = Query(None, description="Whose request it would be; default: yours."),
    ) -> Response:
        context = call_context(request.scope)
        try:
            body = await read_body(request.scope, request.receive, settings.body_limit)
            asked = route_service_pb2.ExplainRequest(
                request=read_chat(body).request, headers=dict(context.headers), tenant=tenant
            )
            return _answer(await routes.explain(asked, context), context)
        except GatewayError as error:
            return _failed(in_words(error, rest_path), context)
        except UNFIT as error:
            return _failed(unfit(error, InvalidRequest), context)
        except ClientGone:
            return Response(status_code=400)  # nobody reads it

    @router.get("/targets", response_model=Targets, summary="Tell how the targets are")
    async def list_targets(
        request: Request,
        route: str = Query("", description="Only targets of this public model."),
    ) -> Response:
        context = call_context(request.scope)
        try:
            asked = route_service_pb2.ListTargetsRequest(route=route)
            return _answer(await routes.list_targets(asked, context), context)
        except GatewayError as error:
            return _failed(error, context)

    return router


def _answer(message: Message, context: CallContext) -> Response:
    content: dict[str, Any] = plain(message)
    return JSONResponse(content, headers={"x-request-id": context.request_id})


def _failed(error: GatewayError, context: CallContext) -> Response:
    headers = {
        name.decode(): value.decode() for name, value in error_headers(error, context.request_id)
    }
    return Response(envelope(error), error.http_status, headers)
