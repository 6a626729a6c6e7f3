"""The core: everything that happens to a call between the front door and the upstream.

::

    authenticate -> validate -> route -> check content -> execute -> settle

`Core` is the in-process `headgate.ChatCore`; the gRPC servicers are thin adapters around it. It holds no
gRPC types and opens no sockets.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from headgate.core import CallContext, EventStream
from headgate.errors import DeadlineExceeded, InvalidRequest
from headgate.v1 import chat_pb2, model_service_pb2
from headgate_server.auth import Authenticator, Caller
from headgate_server.catalog import (
    DEFAULT_PAGE_SIZE,
    MAX_PAGE_SIZE,
    check_content,
    describe,
)
from headgate_server.estimate import estimate_tokens
from headgate_server.execute import Executor
from headgate_server.prices import Prices
from headgate_server.providers.base import Target
from headgate_server.routing import Route, Router, not_found
from headgate_server.settlement import Hook, Settlement, Settling
from headgate_server.validate import validate


class Core:
    """Satisfies `headgate.ChatCore` directly.

    Args:
        authenticator: who may call.
        router: which targets serve a model.
        executor: makes the attempts.
        hooks: get the settlement of each chat call.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        router: Router,
        executor: Executor,
        hooks: Sequence[Hook] = (),
    ) -> None:
        self._authenticator = authenticator
        self._router = router
        self._executor = executor
        self._hooks = tuple(hooks)
        self._serving = True
        self._prices = Prices()
        self._models = {name: describe(route) for name, route in router.routes.items()}

    async def chat_complete(
        self, request: chat_pb2.ChatRequest, context: CallContext
    ) -> chat_pb2.ChatResponse:
        """Runs a completion and returns it whole."""
        with self._open(request, context, streamed=False) as call:
            candidates = self._admit(request, context, call.record)
            response = await self._executor.complete(request, candidates, context, call.record)
            if response.HasField("usage"):
                call.record.usage = response.usage
        return response

    def chat_stream(self, request: chat_pb2.ChatRequest, context: CallContext) -> EventStream:
        """Runs a completion and returns its events as they arrive."""
        return EventStream(self._events(request, context))

    async def count_tokens(
        self, request: chat_pb2.CountTokensRequest, context: CallContext
    ) -> chat_pb2.CountTokensResponse:
        """Counts the tokens of a prompt, or estimates them where the provider does not count."""
        asked = request.request
        with self._open(asked, context, streamed=False) as call:
            candidates = self._admit(asked, context, call.record)
            counted = await self._executor.count_tokens(asked, candidates, context, call.record)
            if counted is None:
                counted = chat_pb2.CountTokensResponse(
                    input_tokens=estimate_tokens(asked), estimated=True
                )
        return counted

    async def list_models(
        self, request: model_service_pb2.ListModelsRequest, context: CallContext
    ) -> model_service_pb2.ListModelsResponse:
        """One page of the models that the caller may use, sorted by id."""
        with _unsettled(context):
            caller = self._authenticator.authenticate(context)
            if request.page_size < 0:
                raise InvalidRequest.of("page_size", "must not be negative")
            size = min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
            after = _read_page_token(request.page_token)
            ids = sorted(name for name in self._models if name > after and caller.may_use(name))
            await self._prices.load()
            response = model_service_pb2.ListModelsResponse(
                models=[self._priced(self._router.routes[name]) for name in ids[:size]]
            )
            if len(ids) > size:
                response.next_page_token = _write_page_token(ids[size - 1])
            return response

    async def get_model(
        self, request: model_service_pb2.GetModelRequest, context: CallContext
    ) -> model_service_pb2.Model:
        """One model."""
        with _unsettled(context):
            caller = self._authenticator.authenticate(context)
            if not request.id:
                raise InvalidRequest.of("id", "is required")
            route = self._allowed(request.id, caller)
            await self._prices.load()
            return self._priced(route)

    async def ready(self) -> bool:
        """Whether calls are taken."""
        return self._serving

    def drain(self) -> None:
        """Says from now on that no new calls should come; running ones go on."""
        self._serving = False

    async def _events(
        self, request: chat_pb2.ChatRequest, context: CallContext
    ) -> AsyncGenerator[list[chat_pb2.ChatEvent], None]:
        with self._open(request, context, streamed=True) as call:
            candidates = self._admit(request, context, call.record)
            # `aclosing`, here and below: a generator that is merely dropped is closed when the
            # garbage collector comes by, and until then the upstream's socket stays open.
            events = self._executor.stream(request, candidates, context, call.record)
            async with aclosing(events):
                async for batch in events:
                    call.first_event()
                    last = batch[-1]
                    if last.HasField("completed"):
                        call.completed = True
                        if last.completed.HasField("usage"):
                            call.record.usage = last.completed.usage
                    yield batch

    def _open(
        self, request: chat_pb2.ChatRequest, context: CallContext, *, streamed: bool
    ) -> Settling:
        record = Settlement(request_id=context.request_id, model=request.model, streamed=streamed)
        return Settling(record, self._hooks, context.deadline)

    def _admit(
        self, request: chat_pb2.ChatRequest, context: CallContext, record: Settlement
    ) -> list[Target]:
        """Everything that can be refused before an upstream is asked."""
        caller = self._authenticator.authenticate(context)
        record.caller = caller.name
        validate(request)
        route = self._allowed(request.model, caller)
        check_content(request, self._describe(route))
        if context.deadline is not None and not context.remaining():
            raise DeadlineExceeded("the caller's deadline passed before the call began")
        return self._router.candidates(route)

    def _allowed(self, model: str, caller: Caller) -> Route:
        if not caller.may_use(model):
            raise not_found(model)
        return self._router.route(model)

    def _priced(self, route: Route) -> model_service_pb2.Model:
        return describe(route, self._prices)

    def _describe(self, route: Route) -> model_service_pb2.Model:
        return self._models.get(route.name) or describe(route)


def _unsettled(context: CallContext) -> Settling:
    """The same care for errors around calls that cost nothing, and that no hook hears of."""
    return Settling(Settlement(context.request_id, "", streamed=False), ())


def _write_page_token(last_id: str) -> str:
    return base64.urlsafe_b64encode(b"m:" + last_id.encode()).decode()


def _read_page_token(token: str) -> str:
    if not token:
        return ""
    try:
        raw = base64.urlsafe_b64decode(token.encode())
        text = raw.decode()
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest.of("page_token", "is not one that this gateway gave out") from error
    if not text.startswith("m:"):
        raise InvalidRequest.of("page_token", "is not one that this gateway gave out")
    return text[2:]
