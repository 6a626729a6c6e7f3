"""The models that a caller may use, for the front doors' lists of them.

Owns the walk over the core's pages, and the seam by which several vendors share the path /v1/models.
"""

from __future__ import annotations

from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from headgate.core import CallContext, ChatCore
from headgate.v1 import model_service_pb2

_PAGE_SIZE = 1000


class ModelsDoor(Protocol):
    """A vendor's own form of GET /v1/models and /v1/models/{id}."""

    def is_meant(self, request: Request) -> bool:
        """Whether the caller says that it speaks this vendor's dialect."""
        ...

    async def list_models(self, request: Request) -> Response:
        """The list, or a page of it."""
        ...

    async def get_model(self, model: str, request: Request) -> Response:
        """One model."""
        ...


async def every_model(core: ChatCore, context: CallContext) -> list[model_service_pb2.Model]:
    """All of them, sorted by id. Raises `GatewayError`."""
    found: list[model_service_pb2.Model] = []
    token = ""
    while True:
        page = await core.list_models(
            model_service_pb2.ListModelsRequest(page_size=_PAGE_SIZE, page_token=token), context
        )
        found.extend(page.models)
        token = page.next_page_token
        if not token:
            return found
