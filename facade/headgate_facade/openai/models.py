"""GET /v1/models, /v1/models/{id} and /v1/model-catalog/{id}.

Other vendors have the first two paths as well: who speaks their dialect is answered by their doors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from headgate.core import CallContext, ChatCore
from headgate.errors import GatewayError
from headgate.v1 import model_service_pb2
from headgate_facade.failures import error_headers
from headgate_facade.http import call_context
from headgate_facade.listing import ModelsDoor, every_model
from headgate_facade.openai.errors import envelope


class ModelObject(BaseModel):
    """A model, as OpenAI describes one."""

    id: str = Field(description="The name to put into a request's `model`.")
    object: Literal["model"] = "model"
    created: int = Field(description="When the model became known to this gateway, Unix time.")
    owned_by: str = Field(description="The providers behind it.")


class ModelList(BaseModel):
    """The models that the caller may use."""

    object: Literal["list"] = "list"
    data: list[ModelObject]


class Modalities(BaseModel):
    """What a model reads and writes; null if not known."""

    input: list[str] | None
    output: list[str] | None


class CatalogEntry(BaseModel):
    """What is known about a model; null means not known."""

    id: str
    object: Literal["model.catalog"] = "model.catalog"
    providers: list[str]
    family: str | None
    modalities: Modalities
    context_window: int | None
    max_output_tokens: int | None
    tools: bool | None
    structured_output: bool | None
    reasoning: bool | None
    price: dict[str, float] | None


def models_router(core: ChatCore, others: Sequence[ModelsDoor] = ()) -> APIRouter:
    """The three routes.

    Args:
        core: knows the models.
        others: doors of other vendors at the same paths; the first that is meant answers.
    """
    router = APIRouter(tags=["models"])

    @router.head("/v1/models", include_in_schema=False)
    @router.get("/v1/models/", include_in_schema=False)
    @router.get("/v1/models", response_model=ModelList, summary="List models")
    async def list_models(request: Request) -> Response:
        for other in others:
            if other.is_meant(request):
                return await other.list_models(request)
        context = call_context(request.scope)
        try:
            found = [_model_object(model) for model in await every_model(core, context)]
        except GatewayError as error:
            return _failed(error, context)
        return JSONResponse({"object": "list", "data": found}, headers=_headers(context))

    @router.head("/v1/models/{model:path}", include_in_schema=False)
    @router.get("/v1/models/{model:path}", response_model=ModelObject, summary="Get a model")
    async def get_model(model: str, request: Request) -> Response:
        for other in others:
            if other.is_meant(request):
                return await other.get_model(model, request)
        context = call_context(request.scope)
        try:
            found = await core.get_model(model_service_pb2.GetModelRequest(id=model), context)
        except GatewayError as error:
            return _failed(error, context)
        return JSONResponse(_model_object(found), headers=_headers(context))

    @router.head("/v1/model-catalog/{model:path}", include_in_schema=False)
    @router.get(
        "/v1/model-catalog/{model:path}",
        response_model=CatalogEntry,
        summary="Get what is known about a model",
    )
    async def get_catalog_entry(model: str, request: Request) -> Response:
        context = call_context(request.scope)
        try:
            found = await core.get_model(model_service_pb2.GetModelRequest(id=model), context)
        except GatewayError as error:
            return _failed(error, context)
        return JSONResponse(_catalog_entry(found), headers=_headers(context))

    return router


def _model_object(model: model_service_pb2.Model) -> dict[str, Any]:
    return {
        "id": model.id,
        "object": "model",
        "created": model.create_time.seconds,
        "owned_by": ", ".join(model.providers),
    }


def _catalog_entry(model: model_service_pb2.Model) -> dict[str, Any]:
    def known(field: str) -> Any:
        return getattr(model, field) if model.HasField(field) else None  # type: ignore[arg-type]

    price = {d.name: value for d, value in model.price.ListFields()}
    return {
        "id": model.id,
        "object": "model.catalog",
        "providers": list(model.providers),
        "family": model.family or None,
        "modalities": {
            "input": _modalities(model.input_modalities),
            "output": _modalities(model.output_modalities),
        },
        "context_window": known("context_window_tokens"),
        "max_output_tokens": known("max_output_tokens"),
        "tools": known("tools"),
        "structured_output": known("structured_output"),
        "reasoning": known("reasoning"),
        "price": price or None,
    }


def _modalities(values: Any) -> list[str] | None:
    names = [
        model_service_pb2.Modality.Name(value).removeprefix("MODALITY_").lower() for value in values
    ]
    return names or None


def _headers(context: CallContext) -> dict[str, str]:
    return {"x-request-id": context.request_id}


def _failed(error: GatewayError, context: CallContext) -> Response:
    headers = {
        name.decode(): value.decode() for name, value in error_headers(error, context.request_id)
    }
    return Response(envelope(error), error.http_status, headers)
